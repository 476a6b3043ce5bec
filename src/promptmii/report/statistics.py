"""What can be said about methods from their scores on many tasks, at the same number of examples.

The unit is the task: a task's score is the mean over its seeds, and methods are compared on the tasks that both finished. A task
that a method lacks is named, never left out in silence. Nothing here picks the best n of a method; `best_within` alone picks
points, after the fact, and says so.

Intervals of a mean are 95 % percentile intervals of a two-level bootstrap with a fixed seed: tasks are drawn with replacement, then
each drawn task's score is moved by the noise of its rows, normal with the standard error that the cell's own bootstrap over rows gave
(`metrics.interval`, recorded with every cell), so no prediction is read again. Seeds share their rows, so their errors are averaged.
With many tasks this is a little wide, because the scores that are drawn hold row noise already. Intervals of a difference are drawn
from the paired differences of the tasks alone: there, pairing takes care of the rows.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from promptmii.report.grid import Grid
from promptmii.report.methods import position, single_call

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
RESAMPLES = 2_000
TIE = 1e-9
"""Scores closer than this are equal."""
FEWEST = 6
"""Tasks for a signed-rank test: with five, no outcome reaches p = 0.05."""
COORDINATES = ["task", "method", "n", "seed", "generator", "follower", "mode"]


class Scope(NamedTuple):
    """What one table or panel is about: one follower, answering in one way."""

    follower: str
    mode: str
    name: str
    """Of the follower, from `short_names`: headings and file names of two scopes have to differ."""

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.name} follower, mode {self.mode}"


class Series(NamedTuple):
    """A method as one line of a figure: with its generator where the scope has it with several."""

    name: str
    method: str
    generator: str | None


def short_name(reference: str) -> str:
    """A model reference without its engine, owner and address: `hf:milli19/promptmii-llama` is `promptmii-llama`."""
    model = re.sub(r"^\w+:", "", reference.partition("@http")[0])
    return model.rstrip("/").split("/")[-1]


def short_names(references: Iterable[str]) -> dict[str, str]:
    """The short name of each, or its whole reference where two would be alike, in file names too.

    Models may differ in their owner, folder or address alone.
    """
    short = {reference: short_name(reference) for reference in references}
    alike = Counter(map(_letters, short.values()))
    return {reference: name if alike[_letters(name)] == 1 else reference for reference, name in short.items()}


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def all_cells(grid: Grid) -> pd.DataFrame:
    """Every cell, failed ones too (their numbers are missing): the columns of `Grid.cells`, and `status`, `finished`, `series`, `stale`.

    A cell that was measured again under a changed template, model or data has two records. The later one counts; the earlier one is
    marked `stale`, for the table of failures, and enters no statistic. So is what was measured on other rows than the latest cell of its
    task, and what stands at n = 0 where the method was later measured at each n, or the other way round: scores are paired, and
    only what was asked alike makes a pair.
    """
    rows = [
        {"key": r.key, "status": r.status, "finished": r.finished, "query": r.query, **r.cell.model_dump()}
        for r in grid.records.values()
    ]
    known = pd.DataFrame(rows).set_index("key")
    cells = (
        known.join(grid.cells.set_index("key").drop(columns=COORDINATES))
        .reset_index()
        .sort_values("finished", kind="stable")
    )
    latest = cells.groupby("task")["query"].transform("last")  # failed cells have none, and count for nothing here
    other_rows = cells["query"].notna() & (cells["query"] != latest)
    alone = cells["n"] == 0
    other_kind = alone != alone.groupby(
        [cells[name].fillna("") for name in COORDINATES if name not in ("n", "seed")]
    ).transform("last")
    cells["stale"] = cells.duplicated(COORDINATES, keep="last") | other_rows | other_kind
    cells["series"] = _series_names(cells)
    return cells.reset_index(drop=True)


def _series_names(cells: pd.DataFrame) -> list[str]:
    """The method, and its generator where one scope has it with several of them."""
    writers: dict[tuple[str, str, str], set[str]] = {}
    rows = list(zip(cells["follower"], cells["mode"], cells["method"], cells["generator"].fillna(""), strict=True))
    for follower, mode, method, generator in rows:
        writers.setdefault((follower, mode, method), set()).add(generator)
    names = short_names(row[3] for row in rows)
    return [f"{m} · {names[g]}" if g and len(writers[f, mode, m]) > 1 else m for f, mode, m, g in rows]


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
    tokens: Floats
    """Prompt tokens per query, mean over seeds."""
    seeds: Counts
    """Cells that were finished."""
    failed: Counts
    """Cells that were not."""
    constant: tuple[bool, ...]
    """Per series: reads no examples, so its one score stands at every n."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the series."""
        return tuple(series.name for series in self.series)

    def at(self, name: str, n: int) -> Floats:
        """One macro-F1 per task, shape (T,)."""
        return self.macro_f1[self.names.index(name), self.ns.index(n)]

    def missing(self, name: str, n: int) -> tuple[str, ...]:
        """The tasks without a score."""
        return tuple(task for task, lacks in zip(self.tasks, np.isnan(self.at(name, n)), strict=True) if lacks)


def scopes(cells: pd.DataFrame) -> list[Scope]:
    """Every follower and mode, in order of appearance. Modes are never put into one table."""
    names = short_names(cells["follower"])
    return [
        Scope(follower, mode, names[follower])
        for follower, mode in dict.fromkeys(zip(cells["follower"], cells["mode"], strict=True))
    ]


def scores(cells: pd.DataFrame, scope: Scope) -> Scores:
    """The scores of a scope, from `all_cells`."""
    own = cells.loc[(cells["follower"] == scope.follower) & (cells["mode"] == scope.mode) & ~cells["stale"], :]
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
        tokens=mean(own["tokens"].to_numpy()),
        seeds=seeds.astype(np.int64),
        failed=failed.astype(np.int64),
        constant=constant,
    )


def in_order(series: Series) -> tuple[int, str, str]:
    """Sort key: methods as in the registry, unknown ones last."""
    return position(series.method), series.name, series.generator or ""


class Mean(NamedTuple):
    """How a series fares over tasks at one n."""

    series: Series
    n: int
    """0 where it reads no examples."""
    mean: float
    """Macro-F1 over the tasks that it has; NaN without any."""
    low: float
    high: float
    """95 % interval over tasks and rows."""
    common: float
    """Macro-F1 over the tasks that every series of the scope has at this n."""
    tokens: float
    """Prompt tokens per query."""
    tasks: int
    missing: tuple[str, ...]
    """Tasks that others of the scope have and this one lacks."""
    seeds: int
    """Finished cells of the task that has most of them."""
    failed: int
    """Cells, all seeds."""


def means(scores: Scores) -> list[Mean]:
    """Every series at every n; a series that reads no examples is repeated for each n of the others, with n = 0."""
    found: list[Mean] = []
    for i, series in enumerate(scores.series):
        for j, n in enumerate(scores.ns):
            values = scores.macro_f1[i, j]
            has = ~np.isnan(values)
            common = ~np.isnan(scores.macro_f1[:, j]).any(axis=0)
            low, high = interval_of_mean(values[has], scores.error[i, j][has])
            found.append(
                Mean(
                    series,
                    0 if scores.constant[i] else n,
                    _mean(values[has]),
                    low,
                    high,
                    _mean(values[common]),
                    _mean(scores.tokens[i, j][has]),
                    int(has.sum()),
                    scores.missing(series.name, n),
                    int(scores.seeds[i, j].max(initial=0)),
                    int(scores.failed[i, j].sum()),
                )
            )
    return found


def interval_of_mean(values: Floats, errors: Floats, *, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of `values` (one per task, with their standard errors over rows): tasks drawn, then rows. NaN without values."""
    if not len(values):
        return np.nan, np.nan
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(values), size=(RESAMPLES, len(values)))  # (B, T)
    # The mean of independent normal errors is one normal error.
    spread = np.sqrt((errors**2)[drawn].sum(axis=1)) / len(values)
    draws = values[drawn].mean(axis=1) + spread * random.standard_normal(RESAMPLES)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Paired(NamedTuple):
    """Two series on the tasks that both finished, at one n: `a` minus `b`."""

    a: str
    b: str
    n: int
    differences: Mapping[str, float]
    """Macro-F1 by task."""
    mean: float
    low: float
    high: float
    """95 % interval over tasks; NaN for fewer than two."""
    wins: int
    """Tasks on which `a` is better."""
    ties: int
    losses: int
    missing_a: tuple[str, ...]
    missing_b: tuple[str, ...]
    """Tasks that are left out because this side lacks them."""
    p: float
    """Two-sided Wilcoxon signed-rank test over tasks, ties left out; NaN with a reason."""
    reason: str = ""


def paired(scores: Scores, a: str, b: str, n: int) -> Paired:
    """Compare two series at equal n. Raises `ValueError` for a name or an n that the scores lack."""
    left, right = scores.at(a, n), scores.at(b, n)
    has = ~(np.isnan(left) | np.isnan(right))
    differences = left[has] - right[has]
    differences[np.abs(differences) < TIE] = 0.0
    tasks = [task for task, matched in zip(scores.tasks, has, strict=True) if matched]
    low, high = interval_of_mean(differences, np.zeros_like(differences)) if len(differences) > 1 else (np.nan, np.nan)
    p, reason = signed_rank(differences)
    return Paired(
        a,
        b,
        n,
        dict(zip(tasks, differences.tolist(), strict=True)),
        _mean(differences),
        low,
        high,
        int((differences > 0).sum()),
        int((differences == 0).sum()),
        int((differences < 0).sum()),
        scores.missing(a, n),
        scores.missing(b, n),
        p,
        reason,
    )


def signed_rank(differences: Floats) -> tuple[float, str]:
    """Two-sided p of Wilcoxon's signed-rank test (scipy; zeros left out), or NaN and why there is none."""
    if len(differences) < FEWEST:
        return float("nan"), f"fewer than {FEWEST} tasks"
    if not differences.any():
        return float("nan"), "equal on every task"
    from scipy.stats import wilcoxon

    # Rounded, so that differences which are equal but for the last bit share their rank.
    result: Any = wilcoxon(np.round(differences[differences != 0], 9))
    return float(result.pvalue), ""


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): never smaller, in the same order. NaN stays NaN and is not counted."""
    finite = sorted((i for i in range(len(p)) if not np.isnan(p[i])), key=lambda i: p[i])
    adjusted, highest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(finite):
        highest = max(highest, min(1.0, p[i] * (len(finite) - rank)))
        adjusted[i] = highest
    return adjusted


def comparisons(scores: Scores, n: int) -> list[tuple[Paired, float]]:
    """Every pair of series at one n with its p-value adjusted over all pairs that were tested there."""
    names = scores.names
    pairs = [paired(scores, a, b, n) for i, a in enumerate(names) for b in names[i + 1 :]]
    return list(zip(pairs, holm([pair.p for pair in pairs]), strict=True))


class Wins(NamedTuple):
    """On how many tasks each series beats each other one at one n: shape (S, S), row against column. Losses are `wins` transposed."""

    names: tuple[str, ...]
    n: int
    wins: Counts
    ties: Counts


def win_matrix(scores: Scores, n: int) -> Wins:
    """Counts over matched tasks; a series against itself counts as nothing."""
    values = scores.macro_f1[:, scores.ns.index(n)]  # (S, T)
    difference = values[:, None] - values[None]  # NaN where either lacks the task, and NaN compares as false
    apart = ~np.eye(len(values), dtype=bool)
    return Wins(scores.names, n, (difference > TIE).sum(axis=2), (np.abs(difference) <= TIE).sum(axis=2) * apart)


def points(scores: Scores) -> list[Mean]:
    """Every series at every n of its own, once: the points of the figures."""
    return list({(mean.series, mean.n): mean for mean in means(scores) if mean.tasks}.values())


def frontier(points: Sequence[Mean]) -> list[Mean]:
    """The points that no other beats in both macro-F1 and tokens, by rising tokens."""
    best: list[Mean] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.mean)):
        if not best or point.mean > best[-1].mean:
            best.append(point)
    return best


def best_within(points: Sequence[Mean], budget: float) -> Mean | None:
    """The point of highest macro-F1 among those of at most `budget` prompt tokens per query.

    Descriptive: it is chosen on the scores that it is reported with, so it flatters whoever has many points.
    """
    return max((p for p in points if p.tokens <= budget), key=lambda p: p.mean, default=None)


class Transfer(NamedTuple):
    """Which writer's instructions suit which follower: macro-F1 at one n in one mode. Arrays have the shape (writers, followers)."""

    mode: str
    n: int
    writers: tuple[tuple[str, str], ...]
    """Method and generator: each `mii` writer, and each `zero` writer beside it."""
    followers: tuple[str, ...]
    macro_f1: Floats
    """Mean over tasks; NaN where the pair was not run."""
    tasks: Counts


def transfers(by_scope: Sequence[Scores]) -> list[Transfer]:
    """One matrix per mode and n, where there are several generators or several followers."""
    found: list[Transfer] = []
    for mode, n in dict.fromkeys((scores.scope.mode, n) for scores in by_scope for n in scores.ns):
        columns = [scores for scores in by_scope if scores.scope.mode == mode and n in scores.ns]
        written = {
            (s.method, s.generator)
            for scores in columns
            for s in scores.series
            if s.method in single_call() and s.generator
        }
        writers = sorted(written, key=lambda w: (position(w[0]), w[1]))
        if not writers or (len(columns) < 2 and len({generator for _, generator in writers}) < 2):
            continue
        values = np.full((len(writers), len(columns), 2), np.nan)
        for column, scores in enumerate(columns):
            for i, series in enumerate(scores.series):
                if (series.method, series.generator) in written:
                    own = scores.macro_f1[i, scores.ns.index(n)]
                    has = ~np.isnan(own)
                    values[writers.index((series.method, str(series.generator))), column] = (
                        _mean(own[has]),
                        has.sum() or np.nan,
                    )
        if not np.isnan(values).all():
            followers = tuple(scores.scope.follower for scores in columns)
            found.append(
                Transfer(
                    mode, n, tuple(writers), followers, values[..., 0], np.nan_to_num(values[..., 1]).astype(np.int64)
                )
            )
    return found


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
