"""The records of a run as one table of cells, and as scores by method, number of examples and task.

Statistics, tables, figures and the page are all computed from these. A task's score is the mean over its seeds. Tasks
that a method lacks are always named.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from promptmii.data.nameless import is_nameless
from promptmii.records import Record, Run
from promptmii.report.methods import position
from promptmii.styles import split_style

MEASURED = {
    "macro_f1": "instruction.measured.macro_f1",
    "low": "instruction.measured.low",
    "high": "instruction.measured.high",
    "uncalibrated_macro_f1": "instruction.measured.uncalibrated_macro_f1",
    "rows": "instruction.measured.n",
    "unparsed": "instruction.measured.n_unparsed",
    "truncated": "instruction.measured.n_truncated",
    "tokens_per_query": "instruction.measured.prompt_tokens_per_query",
    "calls": "instruction.cost.calls",
    "tokens": "instruction.cost.tokens",
    "seconds": "instruction.cost.seconds",
    "money": "instruction.cost.money",
    "calibration_calls": "instruction.calibration_cost.calls",
    "calibration_tokens": "instruction.calibration_cost.tokens",
    "label_calls": "spent.calls",
    "label_seconds": "spent.seconds",
    "label_money": "spent.money",
}
"""Measured columns of a cell and their attribute paths in `Record`; NaN if unknown. `tokens_per_query` counts prompt
tokens. `calls`, `tokens`, `seconds` and `money` are the cost of making the instruction, `calibration_*` of calibrating
it, and `label_*` of labelling all `rows`."""


def all_cells(run: Run) -> pd.DataFrame:
    """One row per cell: its record, its `series`, and the flags `stale` and `hidden` (label names are hidden).

    Cells that are superseded (`Run.superseded`), or whose rows are not those of the latest cell of their task, are
    `stale`: they enter no statistic, since scores are paired, and the table of failures counts them.
    """
    cells = pd.DataFrame(map(_row, run.records.values())).sort_values("finished", kind="stable")
    cells[[*MEASURED]] = cells[[*MEASURED]].astype(float)
    latest_query = cells.groupby("task")["query"].transform("last")  # skips failed cells, which have no query
    on_other_rows = cells["query"].notna() & (cells["query"] != latest_query)
    cells["stale"] = cells["key"].isin([*run.superseded]) | on_other_rows
    cells["series"] = _series_names(cells)
    cells["hidden"] = [is_nameless(task) for task in cells["task"]]
    return cells.reset_index(drop=True)


def _row(record: Record) -> dict[str, Any]:
    """The fields of the cell, `MEASURED`, the number of `labels`, and the record's key, status, time and query."""
    instruction = record.instruction
    done = record.status == "done" and instruction is not None and instruction.measured is not None
    row: dict[str, Any] = {name: getattr(record, name) for name in ("key", "status", "finished", "query")}
    row |= record.cell.model_dump()
    row |= {name: attrgetter(path)(record) if done else None for name, path in MEASURED.items()}
    return row | {"labels": len(instruction.labels) if instruction else None}


def _series_names(cells: pd.DataFrame) -> list[str]:
    """Method names, with the generator added if a scope has several for the method."""
    generators: Any = cells["generator"].fillna("")
    counts = generators.groupby([cells["follower"], cells["mode"], cells["method"]]).transform("nunique")
    names = short_names(generators)
    rows = zip(cells["method"], generators, counts, strict=True)
    return [
        f"{method} · {names[generator]}" if generator and count > 1 else method for method, generator, count in rows
    ]


def short_name(reference: str) -> str:
    """A model reference without engine, owner or folder, and address: `hf:me/llama#ours` becomes `llama#ours`."""
    model, style = split_style(reference)
    model = re.sub(r"^\w+:", "", model.partition("@http")[0])
    return "#".join(filter(None, (re.split(r"[/\\]", model.rstrip("/\\"))[-1], style)))


def short_names(references: Iterable[str]) -> dict[str, str]:
    """A name with a unique `slug` for each reference: short, or in full if several share the short name's slug.

    Models may differ only in owner, folder or address. If they differ only in case, or in letters that are not Latin,
    not even the full references have different slugs, so they are numbered.
    """
    short = {reference: short_name(reference) for reference in references}
    counts = Counter(map(slug, short.values()))
    names = {reference: name if counts[slug(name)] == 1 else reference for reference, name in short.items()}
    seen: Counter[str] = Counter()
    for reference, name in names.items():
        seen[slug(name)] += 1
        if seen[slug(name)] > 1:
            names[reference] = f"{name} ({seen[slug(name)]})"
    return names


def slug(*parts: object) -> str:
    """The parts as a file name: lower case, joined by hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "_", str(part).lower()).strip("_") for part in parts)


Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
HEADLINE_N = 20
"""The number of examples that the page opens with if it was run; the default of `induce`."""


def chosen_n(ns: Iterable[int]) -> int:
    """The n that the page opens with: `HEADLINE_N`, or else the middle one. It ignores the scores."""
    ordered = sorted(ns)
    return HEADLINE_N if HEADLINE_N in ordered else ordered[len(ordered) // 2]


def nearest_n(ns: Collection[int], n: int) -> int:
    """`n` if it was run, else `chosen_n`."""
    return n if n in ns else chosen_n(ns)


class Scope(NamedTuple):
    """The subject of a table or panel: one follower in one mode, with label names shown or hidden."""

    follower: str
    mode: str
    name: str
    """The follower's short name, unique in a report because headings and file names contain it."""
    hidden: bool = False
    """Label names are replaced by letters or numbers (A, 7, class 3)."""

    @property
    def way(self) -> str:
        """The mode, and a note if label names are hidden."""
        return f"mode {self.mode}{', names hidden' if self.hidden else ''}"

    @property
    def title(self) -> str:
        """The scope in a heading."""
        return f"{self.name} follower, {self.way}"

    @property
    def slug(self) -> str:
        """The scope in a file name."""
        return slug(self.name, self.mode, *(["hidden"] if self.hidden else []))


class Series(NamedTuple):
    """A method as one line of a figure."""

    name: str
    """The method, with its generator if the scope has several for it."""
    method: str
    generator: str | None


def in_order(series: Series) -> tuple[int, str, str]:
    """Sort key: registry order, unknown methods last."""
    return position(series.method), series.name, series.generator or ""


ARRAYS = ("macro_f1", "error", "uncalibrated", "tokens", "seeds", "failed")
"""The fields of `Scores` of shape (S, N, T)."""


@dataclass(frozen=True)
class Scores:
    """Scores of one scope as arrays of shape (S, N, T): series, numbers of examples, tasks. Missing scores are NaN."""

    scope: Scope
    series: tuple[Series, ...]
    ns: tuple[int, ...]
    tasks: tuple[str, ...]
    """All tasks of the scope, including those that some methods lack."""
    macro_f1: Floats
    """Mean over seeds."""
    error: Floats
    """Standard error over query rows, mean over seeds."""
    uncalibrated: Floats
    """`macro_f1` from the same answers without the calibration; NaN without likelihoods."""
    tokens: Floats
    """Prompt tokens per query, mean over seeds; NaN if unknown."""
    seeds: Counts
    """Finished cells."""
    failed: Counts
    """Failed cells."""
    constant: tuple[bool, ...]
    """Per series: it reads no examples, so its one score is repeated for every n."""

    @classmethod
    def of(cls, cells: pd.DataFrame, scope: Scope) -> Self:
        """The scores of a scope. `cells` comes from `all_cells`."""
        live = within(cells, scope)
        columns = zip(live["series"], live["method"], live["generator"].fillna(""), strict=True)
        series = sorted({Series(name, method, generator or None) for name, method, generator in columns}, key=in_order)
        names, tasks = [s.name for s in series], sorted(set(live["task"]))
        most: Any = live.groupby("series")["n"].max()
        constant = tuple(bool(most[name] == 0) for name in names)
        reads_none = live["series"].isin([name for name in names if most[name] == 0])
        ns = sorted(set(live.loc[~reads_none, "n"].tolist())) or [0]
        # A series that reads no examples has its one score at every n.
        repeated: Any = pd.concat([live.loc[~reads_none, :], *(live.loc[reads_none, :].assign(n=n) for n in ns)])
        repeated["error"] = (repeated["high"] - repeated["low"]) / (2 * 1.96)
        point = ["series", "n", "task"]
        done, failed = (repeated.loc[repeated["status"] == status, :].groupby(point) for status in ("done", "failed"))
        means = known_means(done, ["macro_f1", "error", "uncalibrated_macro_f1", "tokens_per_query"])
        every_point = pd.MultiIndex.from_product([names, ns, tasks])

        def array(values: Any, missing: float) -> NDArray[Any]:
            by_point = values.reindex(every_point, fill_value=missing)
            return by_point.to_numpy().reshape(len(names), len(ns), len(tasks))

        return cls(
            scope,
            tuple(series),
            tuple(ns),
            tuple(tasks),
            macro_f1=array(means["macro_f1"], np.nan),
            error=array(means["error"], np.nan),
            uncalibrated=array(means["uncalibrated_macro_f1"], np.nan),
            tokens=array(means["tokens_per_query"], np.nan),
            seeds=array(done.size(), 0),
            failed=array(failed.size(), 0),
            constant=constant,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the series, in order."""
        return tuple(series.name for series in self.series)

    def at(self, name: str, n: int) -> Floats:
        """Macro-F1 of one series at one n by task, shape (T,)."""
        return self.macro_f1[self.names.index(name), self.ns.index(n)]

    def only(self, n: int) -> "Scores":
        """The scores at one n."""
        j = self.ns.index(n)
        return replace(self, ns=(n,), **{name: getattr(self, name)[:, j : j + 1] for name in ARRAYS})

    def missing(self, name: str, n: int) -> tuple[str, ...]:
        """Tasks without a score; empty if the series was not run at this n."""
        index = self.names.index(name), self.ns.index(n)
        if not (self.seeds[index].any() or self.failed[index].any()):
            return ()
        return tuple(task for task, score in zip(self.tasks, self.at(name, n), strict=True) if np.isnan(score))


def scopes(cells: pd.DataFrame) -> list[Scope]:
    """Every follower and mode in order of appearance, with hidden label names after shown ones.

    No table mixes modes. A scope whose cells are all stale has nothing to show and is left out.
    """
    cells = cells.loc[~cells["stale"], :]
    names = short_names(cells["follower"])
    columns = zip(cells["follower"], cells["mode"], cells["hidden"], strict=True)
    unique = dict.fromkeys(Scope(follower, mode, names[follower], bool(hidden)) for follower, mode, hidden in columns)
    order = list(dict.fromkeys((scope.follower, scope.mode) for scope in unique))
    return sorted(unique, key=lambda scope: (order.index((scope.follower, scope.mode)), scope.hidden))


def within(cells: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The cells of a scope that are not stale. `cells` comes from `all_cells`."""
    same = (cells["follower"] == scope.follower) & (cells["mode"] == scope.mode) & (cells["hidden"] == scope.hidden)
    return cells.loc[same & ~cells["stale"], :]


def known_means(groups: Any, columns: Sequence[str]) -> Any:
    """The means of groups of rows; NaN if a value is unknown, where pandas would take the mean of the others."""
    values = groups[list(columns)]
    return values.mean().where(values.count().eq(groups.size(), axis=0))
