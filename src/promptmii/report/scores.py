"""The records of a run as one table of cells, and their scores by method, number of examples and task.

Statistics, tables, figures and page all start from here. A task's score is the mean over its seeds. A task that a
method lacks is named, never left out in silence.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from promptmii.data.nameless import is_nameless
from promptmii.records import Record, Run
from promptmii.report.methods import position
from promptmii.styles import split_style

COORDINATES = ["task", "method", "n", "seed", "generator", "follower", "mode"]
MEASURED = {
    "macro_f1": "instruction.measured.macro_f1",
    "low": "instruction.measured.low",
    "high": "instruction.measured.high",
    "uncalibrated_macro_f1": "instruction.measured.uncalibrated_macro_f1",
    "rows": "instruction.measured.n",
    "unparsed": "instruction.measured.n_unparsed",
    "truncated": "instruction.measured.n_truncated",
    "tokens": "instruction.measured.prompt_tokens_per_query",
    "one_off_calls": "instruction.cost.calls",
    "one_off_tokens": "instruction.cost.tokens",
    "one_off_seconds": "instruction.cost.seconds",
    "one_off_money": "instruction.cost.money",
    "calibration_calls": "instruction.calibration_cost.calls",
    "calibration_tokens": "instruction.calibration_cost.tokens",
    "query_calls": "spent.calls",
    "seconds": "spent.seconds",
    "money": "spent.money",
}
"""Numbers of a cell, and where its record has them; NaN where unknown. `tokens` are prompt tokens per query,
`one_off_*` what making the instruction took, and the last three what labelling all `rows` took."""


def all_cells(run: Run) -> pd.DataFrame:
    """A row per cell: `COORDINATES`, `MEASURED`, `labels` (how many), and what stands behind and beside them.

    A cell measured again under a changed template, model or data has two records. The later one counts; the earlier
    one is `stale`, enters no statistic, and is counted in the table of failures. Scores are paired, so these are stale
    too: cells on other rows than the latest cell of their task, and cells at n = 0 of a method that was later measured
    at each n, or the other way round.
    """
    cells = pd.DataFrame(map(_row, run.records.values())).sort_values("finished", kind="stable")
    cells[[*MEASURED]] = cells[[*MEASURED]].astype(float)
    latest = cells.groupby("task")["query"].transform("last")  # failed cells have none, and count for nothing here
    other_rows = cells["query"].notna() & (cells["query"] != latest)
    alone = cells["n"] == 0
    other_kind = alone != alone.groupby(
        [cells[name].fillna("") for name in COORDINATES if name not in ("n", "seed")]
    ).transform("last")
    cells["stale"] = cells.duplicated(COORDINATES, keep="last") | other_rows | other_kind
    cells["series"] = _series_names(cells)
    cells["hidden"] = [is_nameless(task) for task in cells["task"]]
    return cells.reset_index(drop=True)


def _row(record: Record) -> dict[str, Any]:
    made = record.instruction
    done = record.status == "done" and made is not None and made.measured is not None
    about = {name: getattr(record, name) for name in ("key", "status", "finished", "query")}
    numbers = {name: attrgetter(place)(record) if done else None for name, place in MEASURED.items()}
    return about | record.cell.model_dump() | numbers | {"labels": len(made.labels) if made else None}


def _series_names(cells: pd.DataFrame) -> list[str]:
    """The method, with its generator if one scope has it with several."""
    generators: Any = cells["generator"].fillna("")
    counts = generators.groupby([cells["follower"], cells["mode"], cells["method"]]).transform("nunique")
    names = short_names(generators)
    rows = zip(cells["method"], generators, counts, strict=True)
    return [f"{method} · {names[own]}" if own and count > 1 else method for method, own, count in rows]


def short_name(reference: str) -> str:
    """A model reference without its engine, owner and address: `hf:me/llama#ours` is `llama#ours`."""
    model, style = split_style(reference)
    model = re.sub(r"^\w+:", "", model.partition("@http")[0])
    return "#".join(filter(None, (model.rstrip("/").split("/")[-1], style)))


def short_names(references: Iterable[str]) -> dict[str, str]:
    """The short name of each, or its whole reference where two would be alike, in file names too.

    Models may differ in their owner, folder or address alone.
    """
    short = {reference: short_name(reference) for reference in references}
    alike = Counter(map(slug, short.values()))
    return {reference: name if alike[slug(name)] == 1 else reference for reference, name in short.items()}


def slug(*parts: object) -> str:
    """For file names."""
    return "-".join(re.sub(r"[^a-z0-9]+", "_", str(part).lower()).strip("_") for part in parts)


Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
POSTER_N = 20
"""The number of examples that the poster's headline is about."""


def chosen_n(ns: Iterable[int]) -> int:
    """The n at which the page opens: the poster's if it was run, else the middle one. Never chosen by score."""
    known = sorted(ns)
    return POSTER_N if POSTER_N in known else known[len(known) // 2]


def nearest_n(ns: Collection[int], n: int) -> int:
    """This n if it was run, else the chosen one."""
    return n if n in ns else chosen_n(ns)


class Scope(NamedTuple):
    """The subject of a table or panel: one follower in one mode, with label names kept or hidden."""

    follower: str
    mode: str
    name: str
    """The follower's short name, which differs between scopes, because headings and file names are made of it."""
    hidden: bool = False
    """Label names say nothing (A, 7, class 3)."""

    @property
    def way(self) -> str:
        """How it answers, and on what labels."""
        return f"mode {self.mode}{', names hidden' if self.hidden else ''}"

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.name} follower, {self.way}"

    @property
    def slug(self) -> str:
        """For file names."""
        return slug(self.name, self.mode, *(["hidden"] if self.hidden else []))


class Series(NamedTuple):
    """A method as one line of a figure, with its generator if the scope has it with several."""

    name: str
    method: str
    generator: str | None


def in_order(series: Series) -> tuple[int, str, str]:
    """Sort key: methods as in the registry, unknown ones last."""
    return position(series.method), series.name, series.generator or ""


@dataclass(frozen=True)
class Scores:
    """Scores of one scope as arrays of shape (S, N, T): series, numbers of examples, tasks. Missing scores are NaN."""

    scope: Scope
    series: tuple[Series, ...]
    ns: tuple[int, ...]
    tasks: tuple[str, ...]
    """Every task that any method of the scope was given."""
    macro_f1: Floats
    """Mean over seeds."""
    error: Floats
    """Standard error of that, over the query rows."""
    uncalibrated: Floats
    """`macro_f1` from the same answers without the calibration; NaN without likelihoods."""
    tokens: Floats
    """Prompt tokens per query, mean over seeds; NaN where unknown."""
    seeds: Counts
    """Cells that were finished."""
    failed: Counts
    """Cells that were not."""
    constant: tuple[bool, ...]
    """Per series: true if it reads no examples, so that its one score stands at every n."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the series."""
        return tuple(series.name for series in self.series)

    def at(self, name: str, n: int) -> Floats:
        """One macro-F1 per task, shape (T,)."""
        return self.macro_f1[self.names.index(name), self.ns.index(n)]

    def missing(self, name: str, n: int) -> tuple[str, ...]:
        """The tasks without a score; none at an n that nobody asked of it."""
        place = self.names.index(name), self.ns.index(n)
        if not (self.seeds[place].any() or self.failed[place].any()):
            return ()
        return tuple(task for task, lacks in zip(self.tasks, np.isnan(self.at(name, n)), strict=True) if lacks)


def scopes(cells: pd.DataFrame) -> list[Scope]:
    """Every follower and mode, in order of appearance, with names kept before hidden ones.

    Modes are never put into one table.
    """
    names = short_names(cells["follower"])
    found = dict.fromkeys(zip(cells["follower"], cells["mode"], cells["hidden"], strict=True))
    listed = [Scope(follower, mode, names[follower], bool(hidden)) for follower, mode, hidden in found]
    order = {scope[:2]: place for place, scope in reversed([*enumerate(listed)])}
    return sorted(listed, key=lambda scope: (order[scope[:2]], scope.hidden))


def within(cells: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The live cells of a scope, from `all_cells`."""
    same = (cells["follower"] == scope.follower) & (cells["mode"] == scope.mode) & (cells["hidden"] == scope.hidden)
    return cells.loc[same & ~cells["stale"], :]


def scores(cells: pd.DataFrame, scope: Scope) -> Scores:
    """The scores of a scope, from `all_cells`."""
    own = within(cells, scope)
    columns = zip(own["series"], own["method"], own["generator"].fillna(""), strict=True)
    series = sorted({Series(name, method, generator or None) for name, method, generator in columns}, key=in_order)
    names, tasks = [s.name for s in series], sorted(set(own["task"]))
    sizes: dict[str, set[int]] = {name: set(own.loc[own["series"] == name, "n"].tolist()) for name in names}
    constant = tuple(sizes[name] == {0} for name in names)
    ns = sorted({n for name, fixed in zip(names, constant, strict=True) if not fixed for n in sizes[name]}) or [0]
    shape = (len(names), len(ns), len(tasks))
    done = own["macro_f1"].notna().to_numpy()
    where = [
        np.array([names.index(s) for s in own["series"]]),
        np.array([ns.index(n) if n in ns else 0 for n in own["n"]]),
        pd.Categorical(own["task"], categories=tasks).codes.astype(np.int64),
    ]

    def total(values: NDArray[np.generic] | float, chosen: NDArray[np.bool_]) -> Floats:
        sums = np.zeros(shape)
        np.add.at(sums, tuple(axis[chosen] for axis in where), np.broadcast_to(values, chosen.shape)[chosen])
        sums[np.array(constant)] = sums[np.array(constant), :1]
        return sums

    seeds, failed = total(1.0, done), total(1.0, ~done)
    error = ((own["high"] - own["low"]) / (2 * 1.96)).to_numpy()

    def mean(values: NDArray[np.generic]) -> Floats:
        return np.divide(total(values, done), seeds, out=np.full(shape, np.nan), where=seeds > 0)

    return Scores(
        scope,
        tuple(series),
        tuple(ns),
        tuple(tasks),
        macro_f1=mean(own["macro_f1"].to_numpy()),
        error=mean(error),
        uncalibrated=mean(own["uncalibrated_macro_f1"].to_numpy()),
        tokens=mean(own["tokens"].to_numpy()),
        seeds=seeds.astype(np.int64),
        failed=failed.astype(np.int64),
        constant=constant,
    )
