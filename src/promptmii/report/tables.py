"""The tables of a report: numbers for machines (CSV), and the same for readers (Markdown, LaTeX, web page).

A table is about one follower in one mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from promptmii.data.nameless import shown_name
from promptmii.files import write_text
from promptmii.records import Run
from promptmii.report.scores import Scope, Scores
from promptmii.report.statistics import Mean, Paired, best_within, comparisons, means, points

BUDGETS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Prompt tokens per query."""
NOTHING = "–"
"""Shown in place of a missing number."""


@dataclass(frozen=True)
class ReportTable:
    """One table, twice: `data` in full precision, one fact per row; `shown` as text, laid out for reading."""

    name: str
    """File name without ending."""
    title: str
    note: str
    """What the numbers are and over what."""
    data: pd.DataFrame
    shown: pd.DataFrame

    @classmethod
    def of(cls, scope: Scope, name: str, title: str, note: str, data: Any, shown: Any, n: int | None = None) -> Self:
        """A table about one scope, and about one n if that is given."""
        at = "" if n is None else f" at n={n}"
        name = f"{name}-{scope.slug}" + ("" if n is None else f"-n{n}")
        return cls(name, f"{title}{at}: {scope.title}", note, pd.DataFrame(data), pd.DataFrame(shown))

    @property
    def _texts(self) -> list[list[str]]:
        """Heads, then rows."""
        return [[str(value) for value in row] for row in (self.shown.columns, *self.shown.itertuples(index=False))]

    @property
    def markdown(self) -> str:
        """`shown` under its title."""
        head, *rows = [[value.replace("|", "\\|").replace("\n", " ") for value in row] for row in self._texts]
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]
        return f"## {self.title}\n\n{self.note}\n\n" + "\n".join(lines) + "\n"

    @property
    def latex(self) -> str:
        """`shown` as a `table` of the package booktabs."""
        rows = [" & ".join(map(tex, row)) + r" \\" for row in self._texts]
        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{tex(self.title)}. {tex(self.note)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.shown.columns) - 1)}}}",
                *(r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"),
                *(r"\end{tabular}", r"\end{table}", ""),
            )
        )


_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\n": " ",
    "−": "$-$",
    "–": "--",
    "†": r"\dag{}",
    "<": "$<$",
    ">": "$>$",
}


def tex(value: object) -> str:
    """As text of LaTeX."""
    return "".join(_TEX.get(character, character) for character in str(value))


def write(table: ReportTable, folder: Path) -> None:
    """Write a table as CSV, Markdown and LaTeX into a folder, replacing what is there. Raises `OutputError`."""
    csv = table.data.to_csv(index=False, lineterminator="\n")
    for kind, text in (("csv", csv), ("md", table.markdown), ("tex", table.latex)):
        write_text(folder / f"{table.name}.{kind}", text, force=True)


def number(value: float, digits: int = 3) -> str:
    """For reading; a dash where there is none."""
    return NOTHING if np.isnan(value) else f"{value:,.{digits}f}"


def prompt_length(tokens: float) -> str:
    """For sentences."""
    return f"{'an unknown number of' if np.isnan(tokens) else number(tokens, 0)} prompt tokens per query"


def p_value(p: float, reason: str = "") -> str:
    """Three decimals, or `<0.001`; a dash and the reason where there is none."""
    if reason or np.isnan(p):
        return f"{NOTHING} ({reason})" if reason else NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def span(texts: Sequence[str]) -> str:
    """The first and last values, or the only one."""
    return " to ".join(dict.fromkeys((texts[0], texts[-1])))


def with_interval(mean: Mean) -> str:
    """For reading; a dash where there is no mean."""
    return f"{number(mean.mean)} [{number(mean.low)}, {number(mean.high)}]" if mean.tasks else NOTHING


MEAN = {
    "mean": "macro_f1",
    "low": "low",
    "high": "high",
    "common": "macro_f1_common_tasks",
    "uncalibrated": "macro_f1_uncalibrated",
    "tokens": "prompt_tokens_per_query",
    "tasks": "tasks",
    "seeds": "seeds",
    "failed": "failed_cells",
}
"""Columns for the fields of a `Mean`."""


def method_table(scores: Scores) -> ReportTable:
    """The table of the paper: methods by number of examples."""
    given, by_n = len(scores.tasks), {n: means(scores, n) for n in scores.ns}
    plain = any(not np.isnan(mean.uncalibrated) for found in by_n.values() for mean in found)
    data: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for i, series in enumerate(scores.series):
        row = {n: found[i] for n, found in by_n.items()}
        text: dict[str, Any] = {"method": series.name}
        for n, mean in row.items():
            short = f" ({mean.tasks} of {given} tasks)" if 0 < mean.tasks < given else ""
            text[f"n={n}"] = with_interval(mean) + short
            fields = {name: getattr(mean, field) for field, name in MEAN.items()}
            about = {"method": series.name, "generator": series.generator, "n": n}
            data.append(about | fields | {"missing_tasks": "; ".join(mean.missing)})
        text |= {f"n={n}, uncalibrated": number(mean.uncalibrated) for n, mean in row.items() if plain}
        own = [row[scores.ns[0]]] if scores.constant[i] else row.values()
        missing, failed = sum(len(mean.missing) for mean in own), sum(mean.failed for mean in own)
        shown.append(text | {"missing scores": missing, "failed cells": failed})
    note = (
        f"Macro-F1, mean over {given} tasks [95 % t interval over tasks]. n is the number of examples given. A method "
        "that reads no example has one score, repeated for every n. Uncalibrated: from the same answers without the "
        "calibration."
    )
    return ReportTable.of(scores.scope, "methods", "Macro-F1 by method", note, data, shown)


def task_table(scores: Scores, only: int | None = None) -> ReportTable:
    """Macro-F1 of every task, method and n: mean over seeds. `only`: what is shown is about this n."""
    shown = {"task": [shown_name(task) for task in scores.tasks]} | {
        s.name if fixed or n == only else f"{s.name}, n={n}": [number(x) for x in scores.at(s.name, n)]
        for s, fixed in zip(scores.series, scores.constant, strict=True)
        for n in (scores.ns[:1] if fixed else scores.ns)
        if fixed or only in (None, n)
    }
    arrays = {
        "macro_f1": scores.macro_f1,
        "seeds": scores.seeds,
        "failed_cells": scores.failed,
        "macro_f1_uncalibrated": scores.uncalibrated,
        "prompt_tokens_per_query": scores.tokens,
    }
    data = [
        {"task": task, "method": s.name, "generator": s.generator, "n": n}
        | {name: values[i, j, t] for name, values in arrays.items()}
        for i, s in enumerate(scores.series)
        for j, n in enumerate(scores.ns)
        for t, task in enumerate(scores.tasks)
    ]
    note = "Macro-F1, mean over seeds. A dash is a task without a score."
    return ReportTable.of(scores.scope, "tasks", "Every task", note, data, shown)


def pair_tables(scores: Scores, n: int) -> tuple[ReportTable, ReportTable]:
    """Every pair of methods: wins, ties and losses as a matrix; difference, interval and signed-rank test as a list."""
    found, names = comparisons(scores, n), scores.names
    counts = {(p.a, p.b): (p.wins, p.ties, p.losses) for p, _ in found}
    counts |= {(b, a): numbers[::-1] for (a, b), numbers in counts.items()}
    texts = {pair: " / ".join(map(str, numbers)) for pair, numbers in counts.items()}
    matrix = [{"method": a} | {b: texts.get((a, b), NOTHING) for b in names} for a in names]
    listed = [
        {"a": a, "b": b, "n": n} | dict(zip(("wins", "ties", "losses"), counts[a, b], strict=True))
        for a, b in permutations(names, 2)
    ]
    note = "Tasks on which the row's method is better / equal / worse than the column's. Seeds are averaged."
    wins = ReportTable.of(scores.scope, "wins", "Win / tie / loss", note, listed, matrix, n)
    rows = [
        pair_row(p, adjusted) | {"missing_a": "; ".join(p.missing_a), "missing_b": "; ".join(p.missing_b)}
        for p, adjusted in found
    ]
    shown = [
        {"a": p.a, "b": p.b, "a − b": f"{number(p.mean)} [{number(p.low)}, {number(p.high)}]"}
        | {"matched tasks": len(p.differences), "missing a": len(p.missing_a), "missing b": len(p.missing_b)}
        | {"wins / ties / losses": p.record, "p": p_value(p.p, p.reason), "p, Holm": p_value(adjusted)}
        for p, adjusted in found
    ]
    note = (
        "Mean paired difference in macro-F1 over matched tasks [95 % t interval]; two-sided Wilcoxon signed-rank test "
        "over tasks, and its p-value adjusted (Holm) for all pairs of this table."
    )
    return wins, ReportTable.of(scores.scope, "tests", "Paired comparisons", note, rows, shown, n)


def pair_row(pair: Paired, adjusted: float) -> dict[str, Any]:
    """A paired comparison in full."""
    given = {"a": pair.a, "b": pair.b, "n": pair.n, "difference": pair.mean, "low": pair.low, "high": pair.high}
    counts = {"matched_tasks": len(pair.differences), "wins": pair.wins, "ties": pair.ties, "losses": pair.losses}
    return given | counts | {"p": pair.p, "p_holm": adjusted, "reason": pair.reason}


def budget_table(scores: Scores) -> ReportTable:
    """The best mean macro-F1 of each method at each prompt-length budget. Descriptive."""
    found = points(scores)
    rows: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for name in (*scores.names, "any method"):
        own = [point for point in found if name in (point.series.name, "any method")]
        text: dict[str, Any] = {"method": name}
        for budget in BUDGETS:
            best = best_within(own, budget)
            text[f"{budget:,} tokens"] = NOTHING
            if best:
                who = f"{best.series.name}, " if name == "any method" else ""
                text[f"{budget:,} tokens"] = f"{number(best.mean)} ({who}n={best.n})"
                fields = {column: getattr(best, field) for field, column in MEAN.items()}
                rows.append({"method": name, "budget": budget, "best": best.series.name, "n": best.n} | fields)
        texts.append(text)
    note = (
        "The highest mean macro-F1 of a method whose prompts have, on average over tasks, at most that many tokens "
        "per query. Descriptive: the point is chosen on the scores shown, which favours methods with many points."
    )
    return ReportTable.of(scores.scope, "budgets", "Best macro-F1 within a prompt length", note, rows, texts)


def failure_table(cells: pd.DataFrame) -> ReportTable:
    """Counts of what went wrong, by scope, series and n."""
    live: Any = cells.assign(cells=~cells["stale"], failed_cells=cells["macro_f1"].isna() & ~cells["stale"])
    counts = {"cells": "cells", "failed_cells": "failed", "stale": "set aside"}
    for count in ("rows", "unparsed", "truncated"):
        live[count] = live[count].fillna(0).where(live["cells"], 0)
        counts[count] = count
    by = ["series", "follower", "mode", "n"]
    data = live.groupby(by, sort=False)[list(counts)].sum().astype(int).reset_index()
    shown = data.rename(columns=counts | {"series": "method"})
    for share in ("unparsed", "truncated"):
        shown[share] = [
            f"{count:,} ({count / rows:.1%})" if rows else NOTHING
            for count, rows in zip(shown[share], shown["rows"], strict=True)
        ]
    note = (
        "A failed cell has no score and enters no mean; rerun it with --retry-failed. An unparsed answer is no label: "
        "a miss. A truncated text was cut to fit the context. Set aside: measured again later under changed settings, "
        "or on other rows than the latest cell of its task."
    )
    return ReportTable("failures", "Failures, unparsed answers, truncated texts", note, data, shown)


def failed_cell_table(run: Run) -> ReportTable:
    """Every failed cell with its error, and every record line that could not be read."""
    rows = [{"cell": record.cell.name, "error": record.error or "no score was recorded"} for record in run.failed]
    rows += [{"cell": NOTHING, "error": line} for line in run.damaged]
    data = pd.DataFrame(rows, columns=["cell", "error"])
    note = "Every cell without a score, and every record line that cannot be read."
    return ReportTable("failed-cells", "Failed cells", note, data, data)
