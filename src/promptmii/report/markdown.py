"""The results of runs as one page of Markdown for a repository or a site, with its figures in a folder beside it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from promptmii.curves import VALIDATION
from promptmii.data.nameless import shown_name
from promptmii.errors import OutputError, ScoreRefusedError, counted
from promptmii.files import write_text
from promptmii.metrics import holm
from promptmii.records import Record
from promptmii.report import figures, headline, tables
from promptmii.report.costs import costs
from promptmii.report.drawing import Drawn, svg
from promptmii.report.methods import baselines, summary
from promptmii.report.results import Results, outcome
from promptmii.report.scores import Scores, nearest_n, within
from promptmii.report.statistics import Paired, means, paired
from promptmii.report.tables import NOTHING, ReportTable, number, p_value, with_interval
from promptmii.report.transfer import transfer_figure, transfer_table, transfers

MADE_BY = "<!-- Made by: "
TEXT = 100
"""Characters of an example that are shown."""
FAILED = 5
"""Reasons for failed cells that are listed."""
AGAINST = (
    "Macro-F1, mean over tasks [95 % t interval], best first, and from the same answers without the calibration; then "
    "the mean paired difference to each baseline with its interval, and p of Wilcoxon's signed-rank test over tasks, "
    "adjusted (Holm) for all differences of this table. Prompt tokens are those of one query; calls are those that "
    "make a task's instruction, without calibrating it."
)


def write_markdown(folders: Sequence[Path], path: Path) -> Path:
    """Write the page, and its figures into a folder of the same name, in place of those of the page before it.

    Folders are runs of `promptmii evaluate`, finished or not, and training runs for their curves. Raises
    `ArtefactError` if there is no cell, `ScoreRefusedError` if none has a score, `OutputError` if the page cannot
    be written or was made by something else.
    """
    known = path.read_text("utf-8", "replace") if path.exists() else MADE_BY
    if MADE_BY not in known:
        raise OutputError(f"{path} exists and was not made by promptmii report. Name another file.")
    results = Results.read(folders)
    if len(results.run.failed) == len(results.run.records):
        raise ScoreRefusedError(f"All cells failed, so there is nothing to show; first: {results.run.failed[0].error}.")
    page = _Page(results, path)
    text = page.text()
    try:
        page.folder.mkdir(parents=True, exist_ok=True)
        for name, drawing in page.drawings.items():
            write_text(page.folder / f"{name}.svg", drawing, force=True)
        write_text(path, text.encode("utf-8", "replace").decode(), force=True)
        for name in _figures(known, page.folder.name) - _figures(text, page.folder.name):
            (path.parent / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _figures(page: str, folder: str) -> set[str]:
    return set(re.findall(rf"!\[[^\]]*\]\(({re.escape(folder)}/[\w-]+\.svg)\)", page))


class _Page:
    """The sections, and the figures that they show."""

    def __init__(self, results: Results, path: Path) -> None:
        self.folder = path.with_suffix("")
        self.drawings: dict[str, str] = {}
        self._results = results
        self._command = f"promptmii report {' '.join(map(str, results.folders))} --markdown {path}"
        self._scopes = [(own, nearest_n(own.ns, results.n)) for own in results.by_scope]
        """With the n of tables that are about one."""

    def text(self) -> str:
        by_scope = self._results.by_scope
        pictures = [*map(figures.length_figure, by_scope), figures.pareto_figure(by_scope)]
        sections = {
            "What was run": self._run(),
            "Score against prompt length": [*map(self._figure, pictures)],
            "Methods": self._methods(),
            "Label names kept and hidden": self._names(),
            "Every task": [_plain(tables.task_table(own, n)) for own, n in self._scopes],
            "Two instructions side by side": self._outcome(),
            "Other followers": self._transfer(),
            "Training": self._training(),
            "What did not work": self._against(),
        }
        parts = self._head()
        for title, shown in sections.items():
            parts += [f"## {title}", *shown] if shown else []
        return "\n\n".join(parts) + "\n"

    def _figure(self, drawn: Drawn) -> str:
        # Ink on a page that may be dark needs paper of its own.
        drawing = svg(drawn.figure).replace('<svg style="', '<svg style="background: #ffffff; ', 1) + "\n"
        self.drawings[drawn.name] = drawing
        return f"![{drawn.name}]({self.folder.name}/{drawn.name}.svg)\n\n*{drawn.caption}*"

    def _head(self) -> list[str]:
        n, claims = self._results.n, self._results.claims
        findings: list[str] = []
        for own in self._results.by_scope:
            told = (headline.winner(own, n), headline.finding(own, n, claims), headline.unbeaten(own, n))
            sentences = filter(None, (*told, headline.long_prompts(own, n)))
            findings.append(f"**{own.scope.title}.** {' '.join(sentences)}")
        made = f"{MADE_BY}{self._command} -->"
        return ["# Results", made, headline.title(self._results.cells) + ".", _listed(findings)]

    def _run(self) -> list[str]:
        facts = headline.facts(self._results.run, self._results.cells, self._results.folders)
        methods = dict.fromkeys(series.method for series in self._results.series)
        return [
            _listed(f"**{name}**: {value}" for name, value in facts.items()),
            _listed(f"`{method}`: {summary(method)}" for method in methods),
        ]

    def _methods(self) -> list[str]:
        results = self._results
        shown = [_plain(headline.claim_table(results.claims))] if results.claims else []
        for own, n in self._scopes:
            shown.append(_plain(_against_table(own, results.cells, n)))
            shown += [_plain(tables.method_table(own))] if len(own.ns) > 1 else []
        return shown

    def _names(self) -> list[str]:
        """Kept and hidden, where a follower has both."""
        hidden = {own.scope[:2]: own for own, _ in self._scopes if own.scope.hidden}
        both = [(own, hidden.get(own.scope[:2]), n) for own, n in self._scopes if not own.scope.hidden]
        return [_plain(_names_table(kept, other, n)) for kept, other, n in both if other]

    def _outcome(self) -> list[str]:
        results, chosen = self._results, outcome(self._results)
        if chosen is None:
            return []
        (own, n), task = self._scopes[chosen["scope"]], results.tasks[chosen["task"]]
        live = within(results.cells, own.scope).dropna(subset="macro_f1").sort_values("seed")
        cells = live[(live["task"] == task) & live["n"].isin((0, n))]
        both = [results.series[chosen[side]].name for side in ("left", "right")]
        first = dict(reversed([*zip(cells["series"], cells["key"], strict=True)]))
        records = [results.run.records[first[name]] for name in both if name in first]
        if len(records) < 2:
            return []
        lead = (
            f"What {both[0]} and {both[1]} wrote for `{shown_name(task)}` from the same {n} examples, "
            f"{own.scope.title}. The task is that of the median difference in score, no best case and no worst."
        )
        return [lead, _labels(results, records[0]), *map(_written, both, records)]

    def _transfer(self) -> list[str]:
        found = [one for one in transfers(self._results.by_scope) if len(one.macro_f1.columns) > 1]
        parts: list[str] = []
        for way in dict.fromkeys(one.way for one in found):
            by_n = {one.n: one for one in found if one.way == way}
            one = by_n[nearest_n(by_n, self._results.n)]
            parts += [_plain(transfer_table(one)), self._figure(transfer_figure(one))]
        return parts

    def _training(self) -> list[str]:
        runs = self._results.curves
        parts: list[str] = []
        if rewarded := [run for run in runs if VALIDATION in run.metrics]:
            parts += [_listed(map(headline.progress, rewarded)), self._figure(figures.validation_figure(rewarded))]
        others = dict.fromkeys(name for run in runs for name in run.metrics if name.startswith("validation/"))
        if losses := [name for name in others if name.endswith("loss")]:
            caption = figures.training_caption(runs)
            parts.append(self._figure(figures.training_figure(runs, losses, "training-loss", caption)))
        return parts

    def _against(self) -> list[str]:
        lines = [line for own, n in self._scopes for line in _losses(own, n)]
        failed = self._results.run.failed
        if failed:
            reasons = dict.fromkeys(f"{record.cell.method}: {record.error}" for record in failed)
            lines.append(f"{counted(len(failed), 'cell')} failed and have no score: {'; '.join([*reasons][:FAILED])}")
        return [_listed(map(_line, lines))] if lines else []


def _losses(own: Scores, n: int) -> Iterator[str]:
    """The methods that are better than the one under test on some task."""
    tested = headline.tested(own.series)
    for other in own.series:
        if tested is None or other == tested:
            continue
        pair = paired(own, other.name, tested.name, n)
        if pair.wins:
            worse = [shown_name(task) for task, difference in pair.differences.items() if difference > 0]
            yield (
                f"{own.scope.title}, n={n}: {other.name} beats {tested.name} on {pair.wins} of "
                f"{counted(len(pair.differences), 'task')} ({', '.join(worse)})."
            )


def _against_table(scores: Scores, cells: pd.DataFrame, n: int) -> ReportTable:
    """A row per method with a score at n."""
    rivals = [series.name for method in baselines() for series in scores.series if series.method == method]
    ranked = sorted((mean for mean in means(scores, n) if mean.tasks), key=lambda mean: -mean.mean)
    pairs: dict[tuple[str, str], Paired] = {}
    for name in (mean.series.name for mean in ranked):
        for rival in rivals:
            if name != rival and (rival, name) not in pairs and not np.isnan(scores.at(rival, n)).all():
                pairs[name, rival] = paired(scores, name, rival, n)
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    spent: Any = costs(cells, scores.scope).set_index(["series", "n"])
    rows: list[dict[str, Any]] = []
    for mean in ranked:
        name, calls = mean.series.name, float(spent["calls"][mean.series.name, mean.n])
        row = {"method": name, "macro-F1": with_interval(mean)}
        row["uncalibrated"] = number(mean.uncalibrated)
        for rival in rivals:
            pair = pairs.get((name, rival))
            row[f"− {rival}"] = _difference(pair, adjusted[name, rival]) if pair else NOTHING
        told = {"prompt tokens": number(mean.tokens, 0), "calls": number(calls, 0), "tasks": mean.tasks}
        rows.append(row | told)
    return ReportTable.of(scores.scope, "against", "All methods", AGAINST, rows, rows, n)


def _difference(pair: Paired, p: float) -> str:
    interval = "" if np.isnan(pair.low) else f" [{pair.low:+.3f}, {pair.high:+.3f}]"
    return f"{pair.mean:+.3f}{interval}, p {p_value(p)}".replace("-", "−")


def _names_table(kept: Scores, hidden: Scores, n: int) -> ReportTable:
    sides = {
        way: {mean.series.name: mean for mean in means(own) if mean.n in (0, n) and mean.tasks}
        for way, own in (("kept", kept), ("hidden", hidden))
    }
    rows = [
        {"method": name} | {way: with_interval(side[name]) if name in side else NOTHING for way, side in sides.items()}
        for name in dict.fromkeys(chain(*sides.values()))
    ]
    shown = pd.DataFrame(rows, columns=["method", *sides])
    note = "Macro-F1, mean over tasks [95 % t interval]. Hidden: the labels are called A, 7 or class 3."
    return ReportTable.of(kept.scope, "names", "Names kept and hidden", note, shown, shown, n)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(table: ReportTable) -> str:
    """A table one heading below its section."""
    return f"#{table.markdown}".rstrip()


def _labels(results: Results, record: Record) -> str:
    """A row of each label, so that a reader knows what a number stands for."""
    rows = results.run.queries[str(record.query)].examples
    first = {row.label: row.text for row in reversed(rows)}
    labels = record.instruction.labels if record.instruction else ()
    lines = [f"| {_inline(label)} | {_inline(first[label])} |" for label in labels if label in first]
    return "\n".join(("| label | one of its texts |", "| --- | --- |", *lines))


def _written(name: str, record: Record) -> str:
    made = record.instruction
    if made is None or made.measured is None:
        return ""
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", made.text) or [""]))
    writer = f", written by `{made.generator}`" if made.generator else ""
    return f"**{name}**{writer}: {made.measured}.\n\n{fence}text\n{made.text or '(empty)'}\n{fence}"


def _inline(text: str) -> str:
    return _line(text if len(text) <= TEXT else f"{text[:TEXT].rstrip()} …").replace("|", "\\|")


def _line(text: str) -> str:
    """The text on one line, without HTML."""
    return " ".join(text.split()).replace("<", "&lt;")
