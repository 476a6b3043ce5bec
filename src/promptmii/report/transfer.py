"""Cross-model transfer, the scores of each writer's instructions with each follower: matrix, table and figure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptmii.report.drawing import Drawn, blank_figure, label, styled
from promptmii.report.methods import position, single_call
from promptmii.report.scores import Scores, short_names, slug
from promptmii.report.statistics import shared_means
from promptmii.report.tables import ReportTable, number, span


class Transfer(NamedTuple):
    """Macro-F1 of each writer's instructions with each follower, at one n and one way of answering."""

    way: str
    """`Scope.way` of the followers."""
    n: int
    macro_f1: pd.DataFrame
    """One row per method and generator, one column per follower. Means over the tasks that a follower's methods share;
    NaN if missing."""
    tasks: pd.DataFrame
    """Number of tasks behind each mean."""

    @property
    def name(self) -> str:
        """File name without extension."""
        return f"transfer-{slug(self.way.removeprefix('mode '))}-n{self.n}"

    @property
    def names(self) -> dict[str, str]:
        """Short names of followers and generators."""
        return short_names([*self.macro_f1.columns, *(generator for _, generator in self.macro_f1.index)])


def transfers(by_scope: Sequence[Scores]) -> dict[str, dict[int, Transfer]]:
    """A matrix by way of answering and n, if it has several generators or followers.

    Its rows are the writers of every single-call method: `mii`, and untrained `zero` for comparison.
    """
    rows = [
        {
            "way": scores.scope.way,
            "n": n,
            "order": position(mean.series.method),
            "method": mean.series.method,
            "generator": mean.series.generator,
            "follower": scores.scope.follower,
            "macro_f1": mean.mean,
            "tasks": mean.tasks,
        }
        for scores in by_scope
        for n in scores.ns
        for mean in shared_means(scores, n)
        if mean.series.method in single_call() and mean.series.generator
    ]
    matrices: dict[str, dict[int, Transfer]] = {}
    if not rows:
        return matrices
    all_means: Any = pd.DataFrame(rows)
    for (way, n), group in all_means.groupby(["way", "n"], sort=False):
        followers = [scores.scope.follower for scores in by_scope if scores.scope.way == way and n in scores.ns]
        if len(followers) > 1 or group["generator"].nunique() > 1:
            wide: Any = group.pivot(index=["order", "method", "generator"], columns="follower").droplevel("order")
            macro_f1 = wide["macro_f1"].reindex(columns=followers)
            matrices.setdefault(way, {})[n] = Transfer(way, n, macro_f1, wide["tasks"])
    return matrices


def transfer_table(transfer: Transfer) -> ReportTable:
    """The matrix as a table."""
    macro_f1: Any = transfer.macro_f1
    counts: Any = transfer.tasks
    names, wide = transfer.names, macro_f1.reset_index()
    shown = pd.DataFrame({"method": wide["method"], "generator": wide["generator"].map(names)})
    for follower in macro_f1.columns:
        shown[names[follower]] = [number(score) for score in wide[follower]]
    long = macro_f1.stack(future_stack=True).rename("macro_f1").to_frame()
    data = long.join(counts.stack(future_stack=True).rename("tasks")).reset_index()
    data = data.assign(way=transfer.way, n=transfer.n, tasks=data["tasks"].fillna(0).astype(int))
    note = "Mean macro-F1 over tasks: a row per method and writer (zero is untrained), a column per follower."
    title = f"Transfer at n={transfer.n}: writer by follower, {transfer.way}"
    return ReportTable(transfer.name, title, note, data, shown)


@styled
def transfer_figure(transfer: Transfer) -> Drawn:
    """The matrix as a heat map with numbers."""
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
    axes.set_xticks(np.arange(columns) + 0.5, [label(names[follower]) for follower in transfer.macro_f1.columns])
    writers = [label(f"{method} · {names[generator]}") for method, generator in transfer.macro_f1.index]
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
