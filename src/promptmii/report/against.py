"""Every method beside the baselines: how much better it is, how sure that is, and what it costs."""

from typing import Any

import numpy as np
import pandas as pd

from promptmii.metrics import holm
from promptmii.report.costs import costs
from promptmii.report.methods import baselines
from promptmii.report.scores import Scores
from promptmii.report.statistics import Paired, means, paired
from promptmii.report.tables import NOTHING, ReportTable, number, p_value, with_interval

NOTE = (
    "Macro-F1, mean over tasks [95 % t interval], best first, and from the same answers without the calibration; then "
    "the mean paired difference to each baseline with its interval, and p of Wilcoxon's signed-rank test over tasks, "
    "adjusted (Holm) for all differences of this table. Prompt tokens are those of one query; calls are those that "
    "make a task's instruction, without calibrating it."
)


def against_table(scores: Scores, cells: pd.DataFrame, n: int) -> ReportTable:
    """A row per method with a score at n. `cells` are those of `all_cells`."""
    rivals = [series.name for method in baselines() for series in scores.series if series.method == method]
    at_n = [mean for mean, size in zip(means(scores), scores.ns * len(scores.series), strict=True) if size == n]
    ranked = sorted((mean for mean in at_n if mean.tasks), key=lambda mean: -mean.mean)
    pairs: dict[tuple[str, str], Paired] = {}
    for name in (mean.series.name for mean in ranked):
        for rival in rivals:
            if name != rival and (rival, name) not in pairs and not np.isnan(scores.at(rival, n)).all():
                pairs[name, rival] = paired(scores, name, rival, n)
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    spent: Any = costs(cells, scores.scope).set_index(["series", "n"])
    rows: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for mean in ranked:
        name, calls = mean.series.name, float(spent["calls"][mean.series.name, mean.n])
        row = {"method": name, "n": mean.n, "tasks": mean.tasks, "macro_f1": mean.mean, "low": mean.low}
        text = {"method": name, "macro-F1": with_interval(mean.mean, mean.low, mean.high)}
        text["uncalibrated"] = number(mean.uncalibrated)
        for rival in rivals:
            pair, p = pairs.get((name, rival)), adjusted.get((name, rival), np.nan)
            text[f"− {rival}"] = _difference(pair, p) if pair else NOTHING
            row |= {f"{fact}_{rival}": value for fact, value in _facts(pair, p).items()} if pair else {}
        rows.append(row | {"high": mean.high, "prompt_tokens_per_query": mean.tokens, "calls": calls})
        told = {"prompt tokens": number(mean.tokens, 0), "calls": number(calls, 0), "tasks": mean.tasks}
        texts.append(text | told)
    title = f"All methods at n={n}: {scores.scope.title}"
    return ReportTable(f"against-{scores.scope.slug}-n{n}", title, NOTE, pd.DataFrame(rows), pd.DataFrame(texts))


def _facts(pair: Paired, p: float) -> dict[str, float]:
    return {"minus": pair.mean, "minus_low": pair.low, "minus_high": pair.high, "p_holm": p}


def _difference(pair: Paired, p: float) -> str:
    interval = "" if np.isnan(pair.low) else f" [{pair.low:+.3f}, {pair.high:+.3f}]"
    return f"{pair.mean:+.3f}{interval}, p {p_value(p)}".replace("-", "−")
