"""Which writer's instructions suit which follower: the matrix, its table and its figure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptmii.report.drawing import Drawn, blank_figure, styled
from promptmii.report.methods import position, single_call
from promptmii.report.scores import Scores, short_names, slug
from promptmii.report.statistics import comparable, means
from promptmii.report.tables import ReportTable, number, span


class Transfer(NamedTuple):
    """Macro-F1 of each writer's instructions with each follower, at one n, for followers that answer in one way."""

    way: str
    """From `Scope.way`."""
    n: int
    macro_f1: pd.DataFrame
    """Mean over the tasks that a follower's methods share, NaN where there is none: a row per method and generator, a
    column per follower."""
    tasks: pd.DataFrame

    @property
    def name(self) -> str:
        """For files."""
        return f"transfer-{slug(self.way.removeprefix('mode '))}-n{self.n}"

    @property
    def names(self) -> dict[str, str]:
        """Short names of models."""
        return short_names([*self.macro_f1.columns, *(generator for _, generator in self.macro_f1.index)])


def transfers(by_scope: Sequence[Scores]) -> list[Transfer]:
    """One matrix per way of answering and n, where there are several generators or several followers.

    Each `mii` writer has a row, and each `zero` writer beside it.
    """
    rows = [
        (own.scope.way, n, position(mean.series.method), *mean.series[1:], own.scope.follower, mean.mean, mean.tasks)
        for own in by_scope
        for n in own.ns
        for mean in means(comparable(own), n)
        if mean.series.method in single_call() and mean.series.generator and mean.tasks
    ]
    columns = ["way", "n", "order", "method", "generator", "follower", "macro_f1", "tasks"]
    cells: Any = pd.DataFrame(rows, columns=columns)
    found: list[Transfer] = []
    for (way, n), part in cells.groupby(["way", "n"], sort=False):
        followers = [own.scope.follower for own in by_scope if own.scope.way == way and n in own.ns]
        if len(followers) > 1 or part["generator"].nunique() > 1:
            wide: Any = part.pivot(index=["order", "method", "generator"], columns="follower").droplevel("order")
            found.append(Transfer(way, n, wide["macro_f1"].reindex(columns=followers), wide["tasks"]))
    return found


def transfer_table(transfer: Transfer) -> ReportTable:
    """Which writer suits which follower."""
    scores: Any = transfer.macro_f1
    counts: Any = transfer.tasks
    names, wide = transfer.names, scores.reset_index()
    followers = {follower: names[follower] for follower in scores.columns}
    shown = wide.assign(
        generator=wide["generator"].map(names), **{f: [number(x) for x in wide[f]] for f in followers}
    ).rename(columns=followers)
    long = scores.stack(future_stack=True).rename("macro_f1").to_frame()
    data = long.join(counts.stack(future_stack=True).rename("tasks")).reset_index()
    data = data.assign(way=transfer.way, n=transfer.n, tasks=data["tasks"].fillna(0).astype(int))
    note = "Mean macro-F1 over tasks: a row per method and writer (zero is untrained), a column per follower."
    title = f"Transfer at n={transfer.n}: writer by follower, {transfer.way}"
    return ReportTable(transfer.name, title, note, data, shown)


@styled
def transfer_figure(transfer: Transfer) -> Drawn:
    """Macro-F1 of each writer's instructions with each follower, as a heat map with numbers."""
    from matplotlib import colormaps

    figure, (axes,) = blank_figure(transfer.name, 0.45 * len(transfer.macro_f1) + 1.6)
    values = transfer.macro_f1.to_numpy()
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=colormaps["cividis"], edgecolors="white", linewidth=2)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = axes.text(column + 0.5, row + 0.5, number(float(value)), ha="center", va="center", fontweight="bold")
            text.set_color("#ffffff" if value < middle else "#000000")
    axes.invert_yaxis()
    names, (rows, columns) = transfer.names, values.shape
    axes.set_xticks(np.arange(columns) + 0.5, [names[follower] for follower in transfer.macro_f1.columns])
    writers = [f"{method} · {names[generator]}" for method, generator in transfer.macro_f1.index]
    axes.set_yticks(np.arange(rows) + 0.5, writers)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("Follower (reads the instruction)")
    axes.set_ylabel("Writer")
    axes.set_title(f"Cross-model transfer at n={transfer.n}: macro-F1, mean over tasks")
    counts = [str(count) for count in sorted({int(count) for count in transfer.tasks.to_numpy().flat if count > 0})]
    caption = (
        f"Mean macro-F1 of instructions that the row's model wrote from n={transfer.n} examples (mii: the generator "
        f"under test, zero: an untrained one), read by the column's follower, {transfer.way} ({span(counts)} tasks, "
        "mean over seeds; intervals in the method tables)."
    )
    return Drawn(figure, caption)
