"""Which writer's instructions suit which follower: the matrix, its table and its figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from promptmii.report.drawing import blank_figure, styled
from promptmii.report.methods import position, single_call
from promptmii.report.scores import Counts, Floats, Scores, short_names
from promptmii.report.tables import Table, number, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Transfer(NamedTuple):
    """Macro-F1 of each writer's instructions with each follower, at one n in one mode. Arrays: (writers, followers)."""

    way: str
    """How the followers answer, from `Scope.way`."""
    n: int
    writers: tuple[tuple[str, str], ...]
    """Method and generator: each `mii` writer, and each `zero` writer beside it."""
    followers: tuple[str, ...]
    macro_f1: Floats
    """Mean over tasks; NaN where the pair was not run."""
    tasks: Counts

    @property
    def name(self) -> str:
        """For files."""
        return f"transfer-{slug(self.way.removeprefix('mode '))}-n{self.n}"


def transfers(by_scope: Sequence[Scores]) -> list[Transfer]:
    """One matrix per way of answering and n, where there are several generators or several followers."""
    found: list[Transfer] = []
    for way, n in dict.fromkeys((scores.scope.way, n) for scores in by_scope for n in scores.ns):
        columns = [scores for scores in by_scope if scores.scope.way == way and n in scores.ns]
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
                    if has.any():
                        row = writers.index((series.method, str(series.generator)))
                        values[row, column] = own[has].mean(), has.sum()
        if not np.isnan(values).all():
            followers = tuple(scores.scope.follower for scores in columns)
            found.append(
                Transfer(
                    way, n, tuple(writers), followers, values[..., 0], np.nan_to_num(values[..., 1]).astype(np.int64)
                )
            )
    return found


def transfer_table(transfer: Transfer) -> Table:
    """Which writer suits which follower."""
    names = short_names([*transfer.followers, *(generator for _, generator in transfer.writers)])
    shown = pd.DataFrame(
        [
            {"method": method, "generator": names[generator]}
            | {names[f]: number(x) for f, x in zip(transfer.followers, row, strict=True)}
            for (method, generator), row in zip(transfer.writers, transfer.macro_f1, strict=True)
        ]
    )
    data = pd.DataFrame(
        [
            {"method": method, "generator": generator, "follower": follower, "way": transfer.way, "n": transfer.n}
            | {"macro_f1": transfer.macro_f1[i, j], "tasks": transfer.tasks[i, j]}
            for i, (method, generator) in enumerate(transfer.writers)
            for j, follower in enumerate(transfer.followers)
        ]
    )
    note = "Mean macro-F1 over tasks: a row per method and writer (zero is untrained), a column per follower."
    title = f"Transfer at n={transfer.n}: writer by follower, {transfer.way}"
    return Table(transfer.name, title, note, data, shown)


@styled
def transfer_figure(transfer: Transfer) -> "Figure":
    """Macro-F1 of each writer's instructions with each follower, as a heat map with numbers."""
    from matplotlib import colormaps

    figure, (axes,) = blank_figure(transfer.name, 0.45 * len(transfer.writers) + 1.6)
    axes.pcolormesh(np.ma.masked_invalid(transfer.macro_f1), cmap=colormaps["cividis"], edgecolors="white", linewidth=2)
    middle = (np.nanmin(transfer.macro_f1) + np.nanmax(transfer.macro_f1)) / 2
    for (row, column), value in np.ndenumerate(transfer.macro_f1):
        if not np.isnan(value):
            text = axes.text(column + 0.5, row + 0.5, number(float(value)), ha="center", va="center", fontweight="bold")
            text.set_color("#ffffff" if value < middle else "#000000")
    axes.invert_yaxis()
    names = short_names([*transfer.followers, *(generator for _, generator in transfer.writers)])
    axes.set_xticks(np.arange(len(transfer.followers)) + 0.5, [names[follower] for follower in transfer.followers])
    axes.set_yticks(
        np.arange(len(transfer.writers)) + 0.5,
        [f"{method} · {names[generator]}" for method, generator in transfer.writers],
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("Follower (reads the instruction)")
    axes.set_ylabel("Writer")
    axes.set_title(f"Cross-model transfer at n={transfer.n}: macro-F1, mean over tasks")
    return figure


def transfer_caption(transfer: Transfer) -> str:
    """One sentence below `transfer_figure`."""
    counts = sorted({int(count) for count in transfer.tasks.flat if count})
    tasks = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
    return (
        f"Mean macro-F1 of instructions that the row's model wrote from n={transfer.n} examples (mii: the generator "
        f"under test, zero: an untrained one), read by the column's follower, {transfer.way} ({tasks} tasks, "
        "mean over seeds; intervals in the method tables)."
    )
