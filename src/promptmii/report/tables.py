"""The tables of a report, each as CSV for machines and as Markdown, LaTeX or HTML for readers.

Most tables cover one follower in one mode.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from promptmii.data.nameless import shown_name
from promptmii.files import write_text
from promptmii.markup import markdown_table
from promptmii.records import Record
from promptmii.report.scores import Scope, Scores
from promptmii.report.statistics import Mean, Paired, best_within, comparisons, means, points, ranked

BUDGETS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Prompt tokens per query."""
NOTHING = "–"
"""Shown in place of a missing number."""


@dataclass(frozen=True)
class ReportTable:
    """One table in two forms: `data` in full precision, one fact per row, and `shown` as formatted text."""

    name: str
    """File name without extension."""
    title: str
    note: str
    """Explains the numbers and their sample."""
    data: pd.DataFrame
    shown: pd.DataFrame

    @classmethod
    def of(cls, scope: Scope, name: str, title: str, note: str, data: Any, shown: Any, n: int | None = None) -> Self:
        """A table for one scope, and for a single n if `n` is set."""
        at_n = "" if n is None else f" at n={n}"
        name = f"{name}-{scope.slug}" + ("" if n is None else f"-n{n}")
        return cls(name, f"{title}{at_n}: {scope.title}", note, pd.DataFrame(data), pd.DataFrame(shown))

    @property
    def _texts(self) -> list[list[str]]:
        """The header row, then the body."""
        return [[str(value) for value in row] for row in (self.shown.columns, *self.shown.itertuples(index=False))]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """`data` as rows for JSON, with None for a missing number."""
        data: Any = self.data.astype(object)
        return data.where(data.notna(), None).to_dict("records")

    @property
    def markdown(self) -> str:
        """`shown` with its title and note."""
        header, *body = self._texts
        return f"## {self.title}\n\n{self.note}\n\n{markdown_table(header, body, numbers=True)}\n"

    @property
    def latex(self) -> str:
        """`shown` as a `table` environment that uses booktabs."""
        header, *body = [" & ".join(map(tex, row)) + r" \\" for row in self._texts]
        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{tex(self.title)}. {tex(self.note)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.shown.columns) - 1)}}}",
                *(r"\toprule", header, r"\midrule", *body, r"\bottomrule"),
                *(r"\end{tabular}", r"\end{table}", ""),
            )
        )


def shortened(text: str, length: int) -> str:
    """The text, cut after this number of characters."""
    return text if len(text) <= length else f"{text[:length].rstrip()} …"


_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\n": " ",
    "\r": " ",
    "−": "$-$",
    "–": "--",
    "†": r"\dag{}",
    "<": "$<$",
    ">": "$>$",
}


def tex(value: object) -> str:
    """The value as text, escaped for LaTeX."""
    return "".join(_TEX.get(character, character) for character in str(value))


def write(table: ReportTable, folder: Path) -> None:
    """Write a table as CSV, Markdown and LaTeX, replacing existing files. Raises `OutputError`."""
    data: Any = table.data.replace(r"\r\n?", "\n", regex=True)  # pandas quotes a line feed, but no carriage return
    csv = data.to_csv(index=False, lineterminator="\n")
    for extension, text in (("csv", csv), ("md", table.markdown), ("tex", table.latex)):
        write_text(folder / f"{table.name}.{extension}", text, force=True)


def number(value: float, digits: int = 3) -> str:
    """A number with thousands separators; a dash for NaN."""
    return NOTHING if np.isnan(value) else f"{value:,.{digits}f}"


def prompt_length(tokens: float) -> str:
    """A prompt length as part of a sentence."""
    return f"{'an unknown number of' if np.isnan(tokens) else number(tokens, 0)} prompt tokens per query"


def p_value(p: float, reason: str = "") -> str:
    """Three decimals, or `<0.001`; a dash, and the reason if known, for a missing p-value."""
    if reason:
        return f"{NOTHING} ({reason})"
    if np.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def span(texts: Sequence[str]) -> str:
    """The first and last texts joined by "to", or a single text if both are equal."""
    return " to ".join(dict.fromkeys((texts[0], texts[-1])))


def with_interval(mean: Mean) -> str:
    """A mean with its interval; a dash if no task has a score."""
    return f"{number(mean.mean)} [{number(mean.low)}, {number(mean.high)}]" if mean.tasks else NOTHING


MEAN_COLUMNS = {
    "macro_f1": "mean",
    "low": "low",
    "high": "high",
    "macro_f1_uncalibrated": "uncalibrated",
    "prompt_tokens_per_query": "tokens",
    "tasks": "tasks",
    "seeds": "seeds",
    "failed_cells": "failed",
}
"""Columns of the CSV and the fields of `Mean` that they hold."""


def _measured(mean: Mean) -> dict[str, Any]:
    return {column: getattr(mean, field) for column, field in MEAN_COLUMNS.items()}


def method_table(scores: Scores) -> ReportTable:
    """The main table: methods by number of examples."""
    n_tasks = len(scores.tasks)
    means_by_n = {n: means(scores, n) for n in scores.ns}
    has_uncalibrated = any(not np.isnan(mean.uncalibrated) for row in means_by_n.values() for mean in row)
    data: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for i, series in enumerate(scores.series):
        by_n = {n: row[i] for n, row in means_by_n.items()}
        text: dict[str, Any] = {"method": series.name}
        for n, mean in by_n.items():
            coverage = f" ({mean.tasks} of {n_tasks} tasks)" if 0 < mean.tasks < n_tasks else ""
            text[f"n={n}"] = with_interval(mean) + coverage
            key = {"method": series.name, "generator": series.generator, "n": n}
            data.append(key | _measured(mean) | {"missing_tasks": "; ".join(mean.missing)})
        if has_uncalibrated:
            text |= {f"n={n}, uncalibrated": number(mean.uncalibrated) for n, mean in by_n.items()}
        # A constant series repeats one score for every n, so its gaps are counted once.
        counted = [by_n[scores.ns[0]]] if scores.constant[i] else by_n.values()
        text["missing scores"] = sum(len(mean.missing) for mean in counted)
        text["failed cells"] = sum(mean.failed for mean in counted)
        shown.append(text)
    note = (
        f"Macro-F1, mean over {n_tasks} tasks [95 % t interval over tasks]. n is the number of examples given. A "
        "method that reads no example has one score, repeated for every n. Uncalibrated: from the same answers without "
        "the calibration."
    )
    return ReportTable.of(scores.scope, "methods", "Macro-F1 by method", note, data, shown)


def summary_table(scores: Scores, n: int) -> ReportTable:
    """The methods with a score at n, best first: what the command line shows."""
    scope, total = scores.scope, len(scores.tasks)
    subject = {"follower": scope.follower, "mode": scope.mode, "hidden": scope.hidden, "n": n}
    data = [
        subject | {"method": mean.series.name, "generator": mean.series.generator} | _measured(mean)
        for mean in ranked(scores, n)
    ]
    shown = [
        {"method": mean.series.name, "macro-F1 [95 % interval]": with_interval(mean)}
        | {"prompt tokens": number(mean.tokens, 0), "tasks": f"{mean.tasks} of {total}"}
        for mean in ranked(scores, n)
    ]
    note = "Macro-F1, mean over tasks [95 % t interval over tasks], and prompt tokens per query."
    return ReportTable.of(scope, "summary", "Macro-F1", note, data, shown, n)


def task_table(scores: Scores, only: int | None = None) -> ReportTable:
    """Macro-F1 by task, method and n, averaged over seeds. `only` limits the shown columns to that n."""
    shown: dict[str, list[str]] = {"task": [shown_name(task) for task in scores.tasks]}
    shown_ns = [n for n in scores.ns if only in (None, n)]
    for series, constant in zip(scores.series, scores.constant, strict=True):
        for n in scores.ns[:1] if constant else shown_ns:
            heading = series.name if constant or only is not None else f"{series.name}, n={n}"
            shown[heading] = [number(score) for score in scores.at(series.name, n)]
    columns = {
        "macro_f1": scores.macro_f1,
        "seeds": scores.seeds,
        "failed_cells": scores.failed,
        "macro_f1_uncalibrated": scores.uncalibrated,
        "prompt_tokens_per_query": scores.tokens,
    }
    data = [
        {"task": task, "method": series.name, "generator": series.generator, "n": n}
        | {column: values[i, j, t] for column, values in columns.items()}
        for i, series in enumerate(scores.series)
        for j, n in enumerate(scores.ns)
        for t, task in enumerate(scores.tasks)
    ]
    note = "Macro-F1, mean over seeds. A dash is a task without a score."
    return ReportTable.of(scores.scope, "tasks", "Every task", note, data, shown)


def win_table(scores: Scores, n: int) -> ReportTable:
    """Every pair of methods: on how many tasks one is better, equal or worse."""
    counts = {(pair.a, pair.b): (pair.wins, pair.ties, pair.losses) for pair, _ in comparisons(scores, n)}
    counts |= {(b, a): (losses, ties, wins) for (a, b), (wins, ties, losses) in counts.items()}
    texts = {methods: " / ".join(map(str, numbers)) for methods, numbers in counts.items()}
    matrix = [{"method": a} | {b: texts.get((a, b), NOTHING) for b in scores.names} for a in scores.names]
    data = [
        {"a": a, "b": b, "n": n} | dict(zip(("wins", "ties", "losses"), counts[a, b], strict=True))
        for a, b in permutations(scores.names, 2)
    ]
    note = "Tasks on which the row's method is better / equal / worse than the column's. Seeds are averaged."
    return ReportTable.of(scores.scope, "wins", "Win / tie / loss", note, data, matrix, n)


def pair_table(scores: Scores, n: int) -> ReportTable:
    """Every pair of methods with its paired test."""
    pairs = comparisons(scores, n)
    data = [
        pair_row(pair, adjusted) | {"missing_a": "; ".join(pair.missing_a), "missing_b": "; ".join(pair.missing_b)}
        for pair, adjusted in pairs
    ]
    shown = [
        {"a": pair.a, "b": pair.b, "a − b": f"{number(pair.mean)} [{number(pair.low)}, {number(pair.high)}]"}
        | {"matched tasks": len(pair.differences), "missing a": len(pair.missing_a), "missing b": len(pair.missing_b)}
        | {"wins / ties / losses": pair.record, "p": p_value(pair.p, pair.reason), "p, Holm": p_value(adjusted)}
        for pair, adjusted in pairs
    ]
    note = (
        "Mean paired difference in macro-F1 over matched tasks [95 % t interval]; two-sided Wilcoxon signed-rank test "
        "over tasks, and its p-value adjusted (Holm) for all pairs of this table."
    )
    return ReportTable.of(scores.scope, "tests", "Paired comparisons", note, data, shown, n)


def pair_row(pair: Paired, adjusted: float) -> dict[str, Any]:
    """A paired comparison as one row of data. `adjusted` is its Holm-adjusted p-value."""
    difference = {"a": pair.a, "b": pair.b, "n": pair.n, "difference": pair.mean, "low": pair.low, "high": pair.high}
    counts = {"matched_tasks": len(pair.differences), "wins": pair.wins, "ties": pair.ties, "losses": pair.losses}
    return difference | counts | {"p": pair.p, "p_holm": adjusted, "reason": pair.reason}


def budget_table(scores: Scores) -> ReportTable:
    """The best mean macro-F1 of each method at each prompt-length budget. Descriptive."""
    candidates = points(scores)
    by_method = {name: [point for point in candidates if point.series.name == name] for name in scores.names}
    data: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for name, own_points in (by_method | {"any method": candidates}).items():
        text: dict[str, Any] = {"method": name}
        for budget in BUDGETS:
            best = best_within(own_points, budget)
            text[f"{budget:,} tokens"] = NOTHING
            if best:
                method = f"{best.series.name}, " if name == "any method" else ""
                text[f"{budget:,} tokens"] = f"{number(best.mean)} ({method}n={best.n})"
                key = {"method": name, "budget": budget, "best": best.series.name, "n": best.n}
                data.append(key | _measured(best))
        shown.append(text)
    note = (
        "The highest mean macro-F1 of a method whose prompts have, on average over tasks, at most that many tokens "
        "per query. Descriptive: the point is chosen on the scores shown, which favours methods with many points."
    )
    return ReportTable.of(scores.scope, "budgets", "Best macro-F1 within a prompt length", note, data, shown)


def failure_table(cells: pd.DataFrame) -> ReportTable:
    """Counts of failed and stale cells, unparsed answers and truncated texts, by scope, series and n."""
    flagged: Any = cells.assign(cells=~cells["stale"], failed_cells=cells["macro_f1"].isna() & ~cells["stale"])
    headings = {"cells": "cells", "failed_cells": "failed", "stale": "set aside"}
    for count in ("rows", "unparsed", "truncated"):
        flagged[count] = flagged[count].fillna(0).where(flagged["cells"], 0)
        headings[count] = count
    groups = flagged.groupby(["series", "follower", "mode", "hidden", "n"], sort=False)
    data = groups[list(headings)].sum().astype(int).reset_index()
    shown = data.drop(columns="hidden").rename(columns=headings | {"series": "method"})
    shown["mode"] = data["mode"].where(~data["hidden"], data["mode"] + ", names hidden")
    for column in ("unparsed", "truncated"):
        shown[column] = [
            f"{count:,} ({count / rows:.1%})" if rows else NOTHING
            for count, rows in zip(shown[column], shown["rows"], strict=True)
        ]
    note = (
        "A failed cell has no score and is in no mean; rerun it with --retry-failed. An unparsed answer is a miss: "
        "it is not a label. A truncated text was cut to fit the context. Set aside: measured again later under changed "
        "settings, or on other rows than the latest cell of its task."
    )
    return ReportTable("failures", "Failures, unparsed answers, truncated texts", note, data, shown)


def failed_cell_table(failed: Iterable[Record], damaged: Iterable[str]) -> ReportTable:
    """Every failed cell with its error, and every unreadable record line."""
    rows = [{"cell": record.cell.name, "error": record.error or "no score was recorded"} for record in failed]
    rows += [{"cell": NOTHING, "error": line} for line in damaged]
    data = pd.DataFrame(rows, columns=["cell", "error"])
    note = "Every cell without a score, and every record line that cannot be read."
    return ReportTable("failed-cells", "Failed cells", note, data, data)
