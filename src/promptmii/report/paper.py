"""Comparison with the paper: its published numbers, and a run's answers under the authors' two scorers."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from promptmii.follower import Prediction
from promptmii.metrics import f1_over_union, released_f1
from promptmii.records import Run
from promptmii.report.scores import Scope, Scores, within
from promptmii.report.statistics import means
from promptmii.report.tables import NOTHING, ReportTable, number


def answer_texts(predictions: Iterable[Prediction]) -> list[str]:
    """Answers as the authors' scorers would read them: the written text, the chosen label, or an empty string."""
    return [
        prediction.answer if prediction.answer is not None else prediction.label or "" for prediction in predictions
    ]


def analysis_f1(gold: Sequence[str], answers: Sequence[str]) -> float | None:
    """Macro-F1 as in the authors' tables (`analyze_baseline_results_f1_macro.py: calculate_f1_from_predictions`).

    Rows with an empty answer are dropped. The mean is over every distinct text among gold labels and raw answers, so
    each distinct answer that is not a label adds a class with F1 = 0. Like their code, returns None if no rows or only
    one gold label remain, or if there are more gold labels than half the rows.
    """
    rows = [(_clean(label), _clean(answer)) for label, answer in zip(gold, answers, strict=True)]
    rows = [(label, answer) for label, answer in rows if not {label, answer} & {"", "nan"}]
    classes = {label for label, _ in rows}
    if len(classes) < 2 or len(classes) > len(rows) * 0.5:
        return None
    return f1_over_union([label for label, _ in rows], [answer for _, answer in rows])


def _clean(text: str) -> str:
    return text.lower().strip()


MODE = "generate"
"""The authors' follower mode, and the only one in which the scorers differ."""
SCORERS = {"macro_f1": "ours", "reward_f1": "their reward", "analysis_f1": "their tables"}
"""Headings of the scorers' columns."""
PUBLISHED = {
    "llama318b": {
        "naive": {50: 0.253, 100: 0.253},
        "mii": {50: 0.416, 100: 0.405},
        "ape": {50: 0.218, 100: 0.288},
        "gepa": {50: 0.296, 100: 0.299},
    },
    "qwen257b": {
        "naive": {50: 0.303, 100: 0.303},
        "mii": {50: 0.432, 100: 0.424},
        "ape": {50: 0.358, 100: 0.356},
        "gepa": {50: 0.346, 100: 0.347},
    },
}
"""Macro-F1 on the paper's 90 held-out tasks (arXiv 2510.16932), by follower, method and n."""


def published_tables(by_scope: Sequence[Scores]) -> list[ReportTable]:
    """One table per follower that the paper used too, in the paper's mode."""
    tables = [_published(scores) for scores in by_scope if scores.scope.mode == MODE and not scores.scope.hidden]
    return [table for table in tables if table]


def _published(scores: Scores) -> ReportTable | None:
    follower = re.sub(r"[^a-z0-9]", "", scores.scope.follower.lower())
    published = next((numbers for model, numbers in PUBLISHED.items() if model in follower), {})
    rows = [
        {"method": mean.series.name, "n": n, "macro_f1": mean.mean, "published": by_n[n]}
        for method, by_n in published.items()
        for n in by_n
        if n in scores.ns
        for mean in means(scores, n)
        if mean.series.method == method
    ]
    if not rows:
        return None
    data = pd.DataFrame(rows)
    shown = data.assign(**{name: [number(float(x)) for x in data[name]] for name in ("macro_f1", "published")})
    note = "Macro-F1 of this run beside the paper's table. The paper has 90 held-out tasks of its own and one seed."
    shown = shown.rename(columns={"macro_f1": "this run"})
    return ReportTable.of(scores.scope, "published", "Beside the paper", note, data, shown)


def paper_scale_tables(run: Run, cells: pd.DataFrame, by_scope: Sequence[Scores]) -> list[ReportTable]:
    """One table per follower that generated its answers."""
    return [_paper_scale(run, cells, scores.scope) for scores in by_scope if scores.scope.mode == MODE]


def _paper_scale(run: Run, cells: pd.DataFrame, scope: Scope) -> ReportTable:
    done: Any = within(cells, scope).dropna(subset="macro_f1")
    authors = pd.DataFrame(
        [_authors_scores(run, key) for key in done["key"]], index=done.index, columns=["reward_f1", "analysis_f1"]
    )
    scored = done[["series", "n", "task", "macro_f1"]].join(authors)
    by_task = scored.groupby(["series", "n", "task"], sort=False)[list(SCORERS)].mean()
    point = ["series", "n"]
    data = by_task.groupby(point, sort=False).mean().reset_index()
    counts = scored.groupby(point, sort=False)["analysis_f1"].agg(cells="size", scored="count").reset_index()
    data["cells"], data["without_analysis_f1"] = counts["cells"], counts["cells"] - counts["scored"]
    shown = data.rename(columns=SCORERS | {"series": "method", "without_analysis_f1": "no number in their tables"})
    for name in SCORERS.values():
        shown[name] = [NOTHING if pd.isna(value) else number(value) for value in shown[name]]
    note = (
        "Macro-F1, mean over tasks, of the same answers under three scorers. The authors' reward counts anything but "
        "a label as the first label; their tables leave out empty answers and count every other distinct text as "
        "a class of its own. Use their scorers to read a published number, ours to compare methods."
    )
    return ReportTable.of(scope, "paper_scale", "On the authors' scale", note, data, shown)


def _authors_scores(run: Run, key: str) -> tuple[float, float | None]:
    """`reward_f1` and `analysis_f1` of one record."""
    record = run.records[key]
    gold, _ = record.scored(run.queries)
    texts = answer_texts(record.predictions)
    labels = record.instruction.labels if record.instruction else ()
    return released_f1(gold, texts, labels), analysis_f1(gold, texts)
