"""The tables of a report: numbers for machines (CSV), and the same for readers (Markdown, LaTeX, web page).

A table is about one follower in one mode.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from promptmii.data.nameless import shown_name
from promptmii.files import write_text
from promptmii.report.grid import Grid
from promptmii.report.scores import Scope, Scores
from promptmii.report.statistics import Mean, best_within, comparisons, means, points, win_matrix

BUDGETS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Prompt tokens per query."""
NOTHING = "–"
"""Where there is no number."""


@dataclass(frozen=True)
class Table:
    """One table, twice: `data` in full precision, one fact per row; `shown` as text, laid out for reading."""

    name: str
    """File name without ending."""
    title: str
    note: str
    """What the numbers are and over what."""
    data: pd.DataFrame
    shown: pd.DataFrame

    @property
    def markdown(self) -> str:
        """`shown` under its title."""
        head = [str(column) for column in self.shown.columns]
        rows = [
            [str(value).replace("|", "\\|").replace("\n", " ") for value in row]
            for row in self.shown.itertuples(index=False)
        ]
        marks = ["---"] + ["---:"] * (len(head) - 1)
        lines = [f"| {' | '.join(row)} |" for row in (head, marks, *rows)]
        return f"## {self.title}\n\n{self.note}\n\n" + "\n".join(lines) + "\n"

    @property
    def latex(self) -> str:
        """`shown` as a `table` of the package booktabs."""
        head = [str(column) for column in self.shown.columns]
        rows = [" & ".join(map(tex, row)) + r" \\" for row in (head, *self.shown.itertuples(index=False))]
        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{tex(self.title)}. {tex(self.note)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
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


def write(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write each table as CSV, Markdown and LaTeX into a folder, replacing what is there. Raises `OutputError`."""
    written: list[Path] = []
    for table in tables:
        csv = table.data.to_csv(index=False, lineterminator="\n")
        for kind, text in (("csv", csv), ("md", table.markdown), ("tex", table.latex)):
            written.append(write_text(folder / f"{table.name}.{kind}", text, force=True))
    return written


def slug(*parts: object) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "_", str(part).lower()).strip("_") for part in parts)


def scoped(scope: Scope) -> str:
    """For file names."""
    return slug(scope.name, scope.mode, *(["hidden"] if scope.hidden else []))


def number(value: float, digits: int = 3) -> str:
    """For reading; a dash where there is none."""
    return NOTHING if np.isnan(value) else f"{value:,.{digits}f}"


def prompt_length(tokens: float) -> str:
    """For sentences."""
    return f"{'an unknown number of' if np.isnan(tokens) else number(tokens, 0)} prompt tokens per query"


def p_value(p: float) -> str:
    """Three decimals, or `<0.001`."""
    return NOTHING if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _with_interval(mean: Mean, given: int) -> str:
    if not mean.tasks:
        return NOTHING
    short = f" ({mean.tasks} of {given} tasks)" if mean.tasks < given else ""
    return f"{number(mean.mean)} [{number(mean.low)}, {number(mean.high)}]{short}"


def method_table(scores: Scores) -> Table:
    """The table of the paper: methods by number of examples."""
    found, given = means(scores), len(scores.tasks)
    per_series = [found[i : i + len(scores.ns)] for i in range(0, len(found), len(scores.ns))]
    plain = scores.ns if any(not np.isnan(mean.uncalibrated) for mean in found) else ()
    shown = pd.DataFrame(
        [
            {"method": row[0].series.name}
            | {f"n={n}": _with_interval(mean, given) for n, mean in zip(scores.ns, row, strict=True)}
            | {f"n={n}, uncalibrated": number(mean.uncalibrated) for n, mean in zip(plain, row, strict=False)}
            | {
                "missing scores": sum(len(mean.missing) for mean in own),
                "failed cells": sum(mean.failed for mean in own),
            }
            for row in per_series
            for own in [row if row[0].n else row[:1]]
        ]
    )
    data = pd.DataFrame(
        [
            {
                "method": mean.series.name,
                "generator": mean.series.generator,
                "n": n,
                "macro_f1": mean.mean,
                "low": mean.low,
            }
            | {
                "high": mean.high,
                "macro_f1_common_tasks": mean.common,
                "macro_f1_uncalibrated": mean.uncalibrated,
                "prompt_tokens_per_query": mean.tokens,
                "tasks": mean.tasks,
            }
            | {"seeds": mean.seeds, "failed_cells": mean.failed, "missing_tasks": "; ".join(mean.missing)}
            for row in per_series
            for n, mean in zip(scores.ns, row, strict=True)
        ]
    )
    note = (
        f"Macro-F1, mean over {given} tasks [95 % t interval over tasks]. n is the number of examples given. A method "
        "that reads no example has one score, repeated for every n. Uncalibrated: from the same answers without the "
        "calibration."
    )
    return Table(f"methods-{scoped(scores.scope)}", f"Macro-F1 by method: {scores.scope.title}", note, data, shown)


def task_table(scores: Scores, only: int | None = None) -> Table:
    """Macro-F1 of every task, method and n: mean over seeds. `only`: what is shown is about this n."""
    shown = pd.DataFrame(
        {"task": [shown_name(task) for task in scores.tasks]}
        | {
            s.name if fixed or n == only else f"{s.name}, n={n}": [number(x) for x in scores.at(s.name, n)]
            for s, fixed in zip(scores.series, scores.constant, strict=True)
            for n in (scores.ns[:1] if fixed else scores.ns)
            if fixed or only in (None, n)
        }
    )
    data = pd.DataFrame(
        [
            {"task": task, "method": s.name, "generator": s.generator, "n": n, "macro_f1": scores.macro_f1[i, j, t]}
            | {
                "seeds": scores.seeds[i, j, t],
                "failed_cells": scores.failed[i, j, t],
                "macro_f1_uncalibrated": scores.uncalibrated[i, j, t],
                "prompt_tokens_per_query": scores.tokens[i, j, t],
            }
            for i, s in enumerate(scores.series)
            for j, n in enumerate(scores.ns)
            for t, task in enumerate(scores.tasks)
        ]
    )
    note = "Macro-F1, mean over seeds. A dash is a task without a score."
    return Table(f"tasks-{scoped(scores.scope)}", f"Every task: {scores.scope.title}", note, data, shown)


def win_table(scores: Scores, n: int) -> Table:
    """Wins, ties and losses of each method against each other one."""
    counts = win_matrix(scores, n)
    names, wins, ties = counts.names, counts.wins, counts.ties
    cells = [
        [NOTHING if a == b else f"{wins[a, b]} / {ties[a, b]} / {wins[b, a]}" for b in range(len(names))]
        for a in range(len(names))
    ]
    shown = pd.DataFrame(
        [{"method": name} | dict(zip(names, row, strict=True)) for name, row in zip(names, cells, strict=True)]
    )
    data = pd.DataFrame(
        [
            {"a": names[a], "b": names[b], "n": n, "wins": wins[a, b], "ties": ties[a, b], "losses": wins[b, a]}
            for a in range(len(names))
            for b in range(len(names))
            if a != b
        ]
    )
    note = "Tasks on which the row's method is better / equal / worse than the column's. Seeds are averaged."
    return Table(
        f"wins-{scoped(scores.scope)}-n{n}", f"Win / tie / loss at n={n}: {scores.scope.title}", note, data, shown
    )


def pair_table(scores: Scores, n: int) -> Table:
    """Every pair of methods: difference, interval and signed-rank test."""
    rows: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for pair, adjusted in comparisons(scores, n):
        given: dict[str, Any] = {"a": pair.a, "b": pair.b}
        rows.append(
            {
                **given,
                "n": n,
                "difference": pair.mean,
                "low": pair.low,
                "high": pair.high,
                "matched_tasks": len(pair.differences),
            }
            | {
                "wins": pair.wins,
                "ties": pair.ties,
                "losses": pair.losses,
                "p": pair.p,
                "p_holm": adjusted,
                "reason": pair.reason,
            }
            | {"missing_a": "; ".join(pair.missing_a), "missing_b": "; ".join(pair.missing_b)}
        )
        texts.append(
            {
                **given,
                "a − b": f"{number(pair.mean)} [{number(pair.low)}, {number(pair.high)}]",
                "matched tasks": len(pair.differences),
            }
            | {
                "missing a": len(pair.missing_a),
                "missing b": len(pair.missing_b),
                "wins / ties / losses": pair.record,
            }
            | {"p": p_value(pair.p) if not pair.reason else f"{NOTHING} ({pair.reason})", "p, Holm": p_value(adjusted)}
        )
    note = (
        "Mean paired difference in macro-F1 over matched tasks [95 % t interval]; two-sided Wilcoxon signed-rank test "
        "over tasks, and its p-value adjusted (Holm) for all pairs of this table."
    )
    title = f"Paired comparisons at n={n}: {scores.scope.title}"
    return Table(f"tests-{scoped(scores.scope)}-n{n}", title, note, pd.DataFrame(rows), pd.DataFrame(texts))


def budget_table(scores: Scores) -> Table:
    """The best mean macro-F1 of each method at each prompt-length budget. Descriptive."""
    found = points(scores)
    rows: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for name in (*scores.names, "any method"):
        own = [point for point in found if name in (point.series.name, "any method")]
        text: dict[str, Any] = {"method": name}
        for budget in BUDGETS:
            best = best_within(own, budget)
            text[f"{budget:,} tokens"] = _best(best, name) if best else NOTHING
            if best:
                rows.append(
                    {"method": name, "budget": budget, "best": best.series.name, "n": best.n, "macro_f1": best.mean}
                    | {"low": best.low, "high": best.high, "prompt_tokens_per_query": best.tokens, "tasks": best.tasks}
                )
        texts.append(text)
    note = (
        "The highest mean macro-F1 of a method whose prompts have, on average over tasks, at most that many tokens "
        "per query. Descriptive: the point is chosen on the scores shown, which favours methods with many points."
    )
    title = f"Best macro-F1 within a prompt length: {scores.scope.title}"
    return Table(f"budgets-{scoped(scores.scope)}", title, note, pd.DataFrame(rows), pd.DataFrame(texts))


def _best(best: Mean, row: str) -> str:
    who = f"{best.series.name}, " if row == "any method" else ""
    return f"{number(best.mean)} ({who}n={best.n})"


def failure_table(cells: pd.DataFrame) -> Table:
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
        shown[share] = [_share(count, rows) for count, rows in zip(shown[share], shown["rows"], strict=True)]
    note = (
        "A failed cell has no score and enters no mean; rerun it with --retry-failed. An unparsed answer is no label: "
        "a miss. A truncated text was cut to fit the context. Set aside: measured again later under changed settings, "
        "or on other rows than the latest cell of its task."
    )
    return Table("failures", "Failures, unparsed answers, truncated texts", note, data, shown)


def _share(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})" if rows else NOTHING


def failed_cell_table(grid: Grid) -> Table:
    """Every failed cell with its error, and every record line that could not be read."""
    rows = [{"cell": record.cell.name, "error": record.error or "no score was recorded"} for record in grid.failed]
    rows += [{"cell": NOTHING, "error": line} for line in grid.damaged]
    data = pd.DataFrame(rows, columns=["cell", "error"])
    return Table(
        "failed-cells",
        "Failed cells",
        "Every cell without a score, and every record line that cannot be read.",
        data,
        data,
    )
