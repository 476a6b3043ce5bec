"""The results of runs as a Markdown page for a repository or a site, with its figures in a folder beside it."""

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from promptmii.data.nameless import shown_name
from promptmii.errors import OutputError, ScoreRefusedError
from promptmii.files import write_text
from promptmii.markup import markdown_line, markdown_table
from promptmii.messages import counted
from promptmii.metrics import holm
from promptmii.records import Record
from promptmii.report import figures, headline, tables
from promptmii.report.costs import mean_costs
from promptmii.report.drawing import Drawn, svg
from promptmii.report.methods import baselines, summary
from promptmii.report.output import make_folder, replace_page
from promptmii.report.results import Results
from promptmii.report.scores import Scores, nearest_n, within
from promptmii.report.statistics import Paired, means, paired, ranked
from promptmii.report.tables import NOTHING, ReportTable, number, p_value, shortened, with_interval
from promptmii.report.transfer import transfer_figure, transfer_table, transfers
from promptmii.schema import storable
from promptmii.train.run_folder import VALIDATION

MADE_BY = "<!-- Made by: "
EXAMPLE_LENGTH = 100
"""Characters shown of an example."""
LISTED_ERRORS = 5
"""Errors of failed cells that are listed."""
BASELINES_NOTE = (
    "Macro-F1, mean over tasks [95 % t interval], best first. Uncalibrated: from the same answers without the "
    "calibration. − baseline: the mean paired difference with its interval, and p of Wilcoxon's signed-rank test over "
    "tasks, adjusted (Holm) for all differences of this table. Prompt tokens are per query. Calls are those that make "
    "a task's instruction, without those that calibrate it."
)


def write_markdown(results: Results, path: Path) -> Path:
    """Write the page, and its figures into a folder of the same name. Both replace those of an earlier report.

    Raises `ArtefactError` if there is no cell, `ScoreRefusedError` if none has a score, `OutputError` if the page
    cannot be written or was made by something else.
    """
    if path.is_dir() or not path.suffix:
        raise OutputError(
            f"{path} is a folder, or has no ending; expected the name of a Markdown page, such as results.md."
        )
    try:
        old_text = path.read_text("utf-8", "replace") if path.exists() else MADE_BY
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}. Name another file.") from error
    if MADE_BY not in old_text:
        raise OutputError(f"{path} exists and was not made by promptmii report. Name another file.")
    results.require_cells()
    if results.nothing_scored:
        raise ScoreRefusedError(f"All cells failed, so there is nothing to show; first: {results.run.failed[0].error}.")
    page = _Page(results, path)
    text = storable(page.text())
    make_folder(page.folder)
    for name, drawing in page.drawings.items():
        write_text(page.folder / f"{name}.svg", drawing, force=True)
    figure_link = rf"!\[[^\]]*\]\(({re.escape(quote(page.folder.name))}/[\w-]+\.svg)\)"
    return replace_page(path, text, figure_link)


class _Page:
    """The sections of the page and the figures in them."""

    def __init__(self, results: Results, path: Path) -> None:
        self.folder = path.with_suffix("")
        self.drawings: dict[str, str] = {}
        self._results = results
        self._command = shlex.join(["promptmii", "report", *map(str, results.folders), "--markdown", str(path)])

    def text(self) -> str:
        by_scope = self._results.by_scope
        length_figures = [*map(figures.length_figure, by_scope), figures.pareto_figure(by_scope)]
        sections = {
            "What was run": self._run(),
            "Score against prompt length": [*map(self._figure, length_figures)],
            "Methods": self._methods(),
            "Label names kept and hidden": self._names(),
            "Every task": [_subsection(tables.task_table(scores, n)) for scores, n in self._results.at_n],
            "Two instructions side by side": self._outcome(),
            "Other followers": self._transfer(),
            "Training": self._training(),
            "What did not work": self._negative(),
        }
        parts = self._head()
        for title, blocks in sections.items():
            if blocks:
                parts += [f"## {title}", *blocks]
        return "\n\n".join(parts) + "\n"

    def _figure(self, drawn: Drawn) -> str:
        # The page may be dark, and the ink of figures is dark too.
        drawing = svg(drawn.figure).replace('<svg style="', '<svg style="background: #ffffff; ', 1) + "\n"
        self.drawings[drawn.name] = drawing
        return f"![{drawn.name}]({quote(self.folder.name)}/{drawn.name}.svg)\n\n*{drawn.caption}*"

    def _head(self) -> list[str]:
        claims = self._results.claims
        findings: list[str] = []
        for scores, n in self._results.at_n:
            sentences = [
                headline.winner(scores, n),
                headline.finding(scores, n, claims),
                headline.unbeaten(scores, n),
                headline.long_prompts(scores, n),
            ]
            findings.append(f"**{scores.scope.title}.** {' '.join(filter(None, sentences))}")
        made_by = f"{MADE_BY}{self._command} -->"
        return ["# Results", made_by, headline.title(self._results.cells) + ".", _bullets(findings)]

    def _run(self) -> list[str]:
        facts = headline.facts(self._results.run, self._results.cells, self._results.folders)
        methods = dict.fromkeys(series.method for series in self._results.series)
        return [
            _bullets(f"**{name}**: {value}" for name, value in facts.items()),
            _bullets(f"`{method}`: {summary(method)}" for method in methods),
        ]

    def _methods(self) -> list[str]:
        results = self._results
        parts = [_subsection(headline.claim_table(results.claims))] if results.claims else []
        for scores, n in self._results.at_n:
            parts.append(_subsection(_baseline_table(scores, results.cells, n)))
            if len(scores.ns) > 1:
                parts.append(_subsection(tables.method_table(scores)))
        return parts

    def _names(self) -> list[str]:
        """A table for each follower and mode that was run with label names both kept and hidden."""
        hidden = {scores.scope[:2]: scores for scores in self._results.by_scope if scores.scope.hidden}
        return [
            _subsection(_names_table(scores, hidden[scores.scope[:2]], n))
            for scores, n in self._results.at_n
            if not scores.scope.hidden and scores.scope[:2] in hidden
        ]

    def _outcome(self) -> list[str]:
        results, chosen = self._results, self._results.side_by_side
        if chosen is None:
            return []
        scores, task, *both_series = chosen
        n, names = nearest_n(scores.ns, results.n), [series.name for series in both_series]
        done = within(results.cells, scores.scope).dropna(subset="macro_f1")
        cells = done[(done["task"] == task) & done["n"].isin((0, n))]
        left, right = (
            dict(zip(own["seed"], own["key"], strict=True))
            for own in (cells[cells["series"] == name] for name in names)
        )
        if not (left and right):
            return []
        both = left.keys() & right.keys()  # with the same seed, they read the same examples
        records = [results.run.records[keys[min(both or keys)]] for keys in (left, right)]
        drawn = f" from the same {n} examples" if both and all(record.cell.n for record in records) else ""
        intro = (
            f"The instructions by {names[0]} and {names[1]} for `{shown_name(task)}`{drawn}, "
            f"{scores.scope.title}. The task has the median difference in score: neither the best case nor the worst."
        )
        return [intro, _labels(results, records[0]), *map(_instruction, names, records)]

    def _transfer(self) -> list[str]:
        parts: list[str] = []
        for matrices in transfers(self._results.by_scope).values():
            by_n = {n: matrix for n, matrix in matrices.items() if len(matrix.macro_f1.columns) > 1}
            if by_n:
                matrix = by_n[nearest_n(by_n, self._results.n)]
                parts += [_subsection(transfer_table(matrix)), self._figure(transfer_figure(matrix))]
        return parts

    def _training(self) -> list[str]:
        runs = self._results.curves
        parts: list[str] = []
        rewarded = [run for run in runs if VALIDATION in run.metrics]
        if rewarded:
            parts += [_bullets(map(headline.progress, rewarded)), self._figure(figures.validation_figure(rewarded))]
        names = dict.fromkeys(name for run in runs for name in run.metrics)
        losses = [name for name in names if name.startswith("validation/") and name.endswith("loss")]
        if losses:
            caption = figures.training_caption(runs)
            parts.append(self._figure(figures.training_figure(runs, losses, "training-loss", caption)))
        return parts

    def _negative(self) -> list[str]:
        lines = [line for scores, n in self._results.at_n for line in _losses(scores, n)]
        failed = self._results.run.failed
        if failed:
            errors = [*dict.fromkeys(f"{record.cell.method}: {record.error}" for record in failed)]
            lines.append(f"{counted(len(failed), 'cell')} failed, without a score: {'; '.join(errors[:LISTED_ERRORS])}")
        return [_bullets(map(markdown_line, lines))] if lines else []


def _losses(scores: Scores, n: int) -> Iterator[str]:
    """A sentence on each method that beats the one under test on some task."""
    tested = headline.series_under_test(scores.series)
    if tested is None:
        return
    for other in scores.series:
        if other == tested:
            continue
        pair = paired(scores, other.name, tested.name, n)
        if pair.wins:
            lost = [shown_name(task) for task, difference in pair.differences.items() if difference > 0]
            yield (
                f"{scores.scope.title}, n={n}: {other.name} beats {tested.name} on {pair.wins} of "
                f"{counted(len(pair.differences), 'task')} ({', '.join(lost)})."
            )


def _baseline_table(scores: Scores, cells: pd.DataFrame, n: int) -> ReportTable:
    """All methods with a score at n, compared with each baseline."""
    rivals = [series.name for method in baselines() for series in scores.series if series.method == method]
    best_first = ranked(scores, n)
    pairs: dict[tuple[str, str], Paired] = {}
    for mean in best_first:
        name = mean.series.name
        for rival in rivals:
            if name != rival and (rival, name) not in pairs and not np.isnan(scores.at(rival, n)).all():
                pairs[name, rival] = paired(scores, name, rival, n)
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    calls: Any = mean_costs(cells, scores.scope).set_index(["series", "n"])["calls"]
    rows: list[dict[str, Any]] = []
    for mean in best_first:
        name = mean.series.name
        row: dict[str, Any] = {"method": name, "macro-F1": with_interval(mean)}
        row["uncalibrated"] = number(mean.uncalibrated)
        for rival in rivals:
            pair = pairs.get((name, rival))
            row[f"− {rival}"] = _difference(pair, adjusted[name, rival]) if pair else NOTHING
        row["prompt tokens"] = number(mean.tokens, 0)
        row["calls"] = number(float(calls[name, mean.n]), 0)
        row["tasks"] = mean.tasks
        rows.append(row)
    return ReportTable.of(scores.scope, "against", "All methods", BASELINES_NOTE, rows, rows, n)


def _difference(pair: Paired, p: float) -> str:
    interval = "" if np.isnan(pair.low) else f" [{pair.low:+.3f}, {pair.high:+.3f}]"
    return f"{pair.mean:+.3f}{interval}, p {p_value(p)}".replace("-", "−")


def _names_table(kept: Scores, hidden: Scores, n: int) -> ReportTable:
    """Each method's score at n with label names kept, and with names hidden."""
    columns = {
        heading: {mean.series.name: with_interval(mean) for mean in means(scores) if mean.n in (0, n) and mean.tasks}
        for heading, scores in (("kept", kept), ("hidden", hidden))
    }
    rows = [
        {"method": name} | {heading: texts.get(name, NOTHING) for heading, texts in columns.items()}
        for name in dict.fromkeys(chain(*columns.values()))
    ]
    shown = pd.DataFrame(rows, columns=["method", *columns])
    note = "Macro-F1, mean over tasks [95 % t interval]. Hidden: names such as A, 7 or class 3 replace the labels."
    return ReportTable.of(kept.scope, "names", "Names kept and hidden", note, shown, shown, n)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _subsection(table: ReportTable) -> str:
    """A table with its heading one level below that of a section."""
    return f"#{table.markdown}".rstrip()


def _labels(results: Results, record: Record) -> str:
    """A table of the labels, each with the first row that has it, so that hidden names can be understood."""
    examples = results.run.queries[str(record.query)].examples
    texts = {example.label: example.text for example in reversed(examples)}
    labels = record.instruction.labels if record.instruction else ()
    rows = [
        (shortened(name, EXAMPLE_LENGTH), shortened(texts[name], EXAMPLE_LENGTH)) for name in labels if name in texts
    ]
    return markdown_table(("label", "one of its texts"), rows)


def _instruction(name: str, record: Record) -> str:
    """An instruction with its writer and score, in a fence longer than any in its text."""
    instruction = record.instruction
    if instruction is None or instruction.measured is None:
        return ""
    text = instruction.text or "(empty)"
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    writer = f", written by `{instruction.generator}`" if instruction.generator else ""
    return f"**{name}**{writer}: {instruction.measured}.\n\n{fence}text\n{text}\n{fence}"
