"""Macro-F1 against prompt length: the picture that tells the story, and the Pareto frontier."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from promptmii.curves import VALIDATION, Curves
from promptmii.errors import counted
from promptmii.report.drawing import (
    COLOURS,
    INK,
    LINES,
    Drawn,
    Look,
    blank_figure,
    draw_legend,
    line_style,
    looks,
    styled,
)
from promptmii.report.scores import Scores
from promptmii.report.statistics import Mean, comparable, frontier, means, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEADER = {"arrowstyle": "-", "linewidth": 0.6, "linestyle": ":", "shrinkB": 4, "relpos": (0, 0.5)}
"""From the end of a line to its name."""


@styled
def length_figure(scores: Scores) -> Drawn:
    """Macro-F1 against prompt length: a labelled line per series through its numbers of examples, with intervals."""
    figure, (axes,) = blank_figure(f"length-{scores.scope.slug}", 4.6)
    (plotted, flat), known = _by_prompt(points(scores)), looks(scores.series)
    _token_axis(axes, plotted)
    _draw_flat(axes, flat, known)
    ends: set[int] = set()
    for one in scores.series:
        own = [point for point in plotted if point.series == one]
        ends |= {point.n for point in own[:1] + own[-1:]}
        x, y = [p.tokens for p in own], [p.mean for p in own]
        bars = [[p.mean - p.low for p in own], [p.high - p.mean for p in own]]
        drawn = axes.errorbar(x, y, yerr=np.maximum(bars, 0), elinewidth=0.9, capsize=2, **line_style(known[one.name]))
        for artist in drawn.get_children():
            artist.set_gid(f"series:{one.name}")
    axes.set_ylabel("Macro-F1, mean over tasks")
    axes.set_title(f"Macro-F1 against prompt length: {scores.scope.title}")
    _label_lines(axes, [*plotted, *flat], known)
    figure.draw_without_rendering()
    _number_points(axes, plotted, sorted(plotted, key=lambda p: p.n not in ends), known)
    caption = (
        f"Mean macro-F1 over tasks against the mean number of prompt tokens that one query takes, {scores.scope.title} "
        f"({_points_sample(scores)}; numbers at points: examples given; bars: 95 % interval over tasks; dotted: "
        "methods that have no prompt)."
    )
    return Drawn(figure, caption)


def _by_prompt(plotted: Sequence[Mean]) -> tuple[list[Mean], list[Mean]]:
    """The points of methods with a prompt; of each other method, which has no place on a scale of tokens, the last.

    Where no method has a prompt, all of them are points.
    """
    prompted = [point for point in plotted if point.tokens > 0]
    last = {point.series: point for point in sorted(plotted, key=lambda point: point.n) if not point.tokens > 0}
    return (prompted, [*last.values()]) if prompted else (list(plotted), [])


def _draw_flat(axes: "Axes", flat: Sequence[Mean], known: dict[str, Look]) -> None:
    """A level line for each method without a prompt."""
    for point in flat:
        colour, across = known[point.series.name].colour, axes.get_yaxis_transform()
        drawn = axes.hlines(point.mean, 0, 1, transform=across, colors=colour)
        drawn.set(linestyle=":", linewidth=1.1, gid=f"series:{point.series.name}")


def _label_lines(axes: "Axes", plotted: Sequence[Mean], known: dict[str, Look]) -> None:
    """The name of each series at the right edge, beside the end of its line."""
    ends = {point.series.name: point for point in sorted(plotted, key=lambda point: point.tokens)}
    bottom, top = axes.get_ylim()
    gap = (top - bottom) / 19  # the height of a line of text
    heights = _spread([point.mean for point in ends.values()], gap)
    for point, height in zip(ends.values(), heights, strict=True):
        colour, name = known[point.series.name].colour, point.series.name
        flat = not point.tokens and axes.get_xscale() == "log"
        text = axes.annotate(
            f"{name}, n={point.n}" if flat else name,
            (1.0 if flat else point.tokens, point.mean),
            (1.03, height),
            xycoords=axes.get_yaxis_transform() if flat else "data",
            textcoords=axes.get_yaxis_transform(),
            arrowprops=LEADER | {"color": colour},
            va="center",
        )
        text.set(color=colour, fontweight="bold", gid=f"series:{name}")
        if text.arrow_patch:
            text.arrow_patch.set_gid(f"series:{name}")


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, moved apart until neighbours have a gap between them."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    # Down again by half of what the topmost was pushed up, so that the labels stay around their lines.
    shift = (moved[order[-1]] - heights[order[-1]]) / 2 if order else 0.0
    return [height - shift for height in moved]


def _token_axis(axes: "Axes", plotted: Sequence[Mean]) -> None:
    """Logarithmic where there is anything to show, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if any(point.tokens > 0 for point in plotted):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.16g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Prompt tokens per query (log scale)")


class _Box(NamedTuple):
    """A rectangle on the canvas by its centre and half its size, in pixels of 1/100 inch."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "_Box") -> bool:
        return abs(self.x - other.x) < self.width + other.width and abs(self.y - other.y) < self.height + other.height


def _number_points(axes: "Axes", plotted: Sequence[Mean], wanted: Sequence[Mean], known: dict[str, Look]) -> None:
    """Write n beside the wanted points, in that order. A label that would cover a point or another label is left out.

    The layout must be final, because room is counted in pixels.
    """
    places = {(p.series, p.n): axes.transData.transform((p.tokens, p.mean)) for p in plotted}
    taken = [_Box(x, y, 4, 4) for x, y in places.values()]
    for point in wanted:
        x, y = places[point.series, point.n]
        width = 3.1 * len(str(point.n))
        for right, up in ((-1, 1), (1, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)):
            box = _Box(x + right * (width + 5), y + up * 7, width, 5)
            if point.n and not any(box.meets(other) for other in taken):
                taken.append(box)
                offset = ((box.x - x) * 0.72, (box.y - y) * 0.72)
                text = axes.annotate(str(point.n), (point.tokens, point.mean), offset, textcoords="offset points")
                text.set(fontsize=7.5, color=known[point.series.name].colour, gid=f"series:{point.series.name}")
                text.set(horizontalalignment="center", verticalalignment="center")
                break


@styled
def pareto_figure(by_scope: Sequence[Scores]) -> Drawn:
    """Every series at every n, and the points that no other beats in both score and length: a panel per scope."""
    columns = min(2, len(by_scope))
    figure, panels = blank_figure("pareto", 3.7, len(by_scope), columns, margin=0.7, sharey=True)
    series = list(dict.fromkeys(one for scores in by_scope for one in scores.series))
    known = looks(series)
    for axes, scores in zip(panels, by_scope, strict=True):
        _draw_frontier(axes, points(scores), known)
        axes.set_title(scores.scope.title, fontweight="normal")
    for axes in panels[::columns]:
        axes.set_ylabel("Macro-F1, mean over tasks")
    figure.suptitle("Pareto frontier: no other point is both better and shorter", x=0.01, ha="left")
    flat = {point.series.name for scores in by_scope for point in _by_prompt(points(scores))[1]}
    styles = {name: line_style(look, lines=False) for name, look in known.items()}
    draw_legend(figure, styles | {name: {"color": known[name].colour, "linestyle": ":"} for name in flat})
    figure.draw_without_rendering()
    for axes, scores in zip(panels, by_scope, strict=True):
        plotted, _ = _by_prompt(points(scores))
        _number_points(axes, plotted, frontier(plotted), known)
    parts = "; ".join(f"{scores.scope.title}: {_points_sample(scores)}" for scores in by_scope)
    caption = (
        "Every method at every number of examples. The dashed line joins the points that no other beats in both "
        f"macro-F1 and prompt length, with their number of examples ({parts}; means over tasks, intervals in the "
        "tables; dotted: methods that have no prompt)."
    )
    return Drawn(figure, caption)


def _draw_frontier(axes: "Axes", given: Sequence[Mean], known: dict[str, Look]) -> None:
    plotted, flat = _by_prompt(given)
    _token_axis(axes, plotted)
    _draw_flat(axes, flat, known)
    for one in dict.fromkeys(point.series for point in plotted):
        own = [point for point in plotted if point.series == one]
        drawn = axes.plot([p.tokens for p in own], [p.mean for p in own], **line_style(known[one.name], lines=False))
        drawn[0].set_gid(f"series:{one.name}")
    # The last step goes on to the longest prompt.
    best = [(p.tokens, p.mean) for p in frontier(plotted)]
    best += [(max(point.tokens for point in plotted), best[-1][1])] if best else []
    line = axes.step([x for x, _ in best], [y for _, y in best], where="post")
    line[0].set(color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1, gid="frontier")


def sample_size(scores: Scores) -> str:
    """How many tasks and seeds, for captions."""
    seeds = sorted(
        {int(count) for count in scores.seeds[~np.array(scores.constant)].max(axis=2, initial=0).flat if count}
    )
    drawn = f"{' or '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}" if seeds else "no seed"
    return f"{counted(len(scores.tasks), 'task')}, {drawn}"


def _points_sample(scores: Scores) -> str:
    """The same of the points, which are over the tasks that they share, and what lacks some of these."""
    own = comparable(scores)
    whole = {(mean.series, mean.n) for mean in means(own) if mean.tasks}
    lost = [mean for mean in means(scores) if mean.tasks and (mean.series, mean.n) not in whole]
    lacking = dict.fromkeys(f"{mean.series.name}{f' at n={mean.n}' if mean.n else ''}" for mean in lost)
    some = f": those of {len(scores.tasks)} that most points share" if len(own.tasks) < len(scores.tasks) else ""
    return f"{sample_size(own)}{some}" + (f"; left out for want of scores: {', '.join(lacking)}" if lacking else "")


IMPORTANT = ("train/reward", "length", "zero_variance", "entropy", "kl", "train/loss")
"""The first signs of a healthy run."""


def important(names: Sequence[str]) -> list[str]:
    """Six curves: those that matter most, then other validations, then the first of the rest."""
    order = {name: place for place, name in enumerate(IMPORTANT)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), not name.startswith("validation/")))[:6]


@styled
def validation_figure(runs: Sequence[Curves]) -> Drawn:
    """Validation reward against training steps: a line per training run."""
    figure, (axes,) = blank_figure("training-reward", 3.6)
    _draw_curves(axes, runs, VALIDATION)
    axes.set_xlabel("Training steps")
    axes.set_ylabel("Validation reward (macro-F1)")
    axes.set_title("Training curves: reward on validation tasks against training steps")
    draw_legend(figure, _run_lines(runs))
    return Drawn(figure, training_caption(runs))


@styled
def training_figure(runs: Sequence[Curves], shown: Sequence[str], name: str, caption: str) -> Drawn:
    """These quantities of training runs: a small panel each."""
    from matplotlib.ticker import StrMethodFormatter

    figure, panels = blank_figure(name, 1.9, len(shown), 3, margin=0.5)
    for axes, quantity in zip(panels, shown, strict=True):
        _draw_curves(axes, runs, quantity)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_title(quantity, fontsize=9.5, fontweight="normal")
    for axes in panels[-3:]:
        axes.set_xlabel("Training steps")
    draw_legend(figure, _run_lines(runs))
    return Drawn(figure, caption)


def _run_lines(runs: Sequence[Curves]) -> dict[str, dict[str, Any]]:
    return {
        run.name: {"color": COLOURS[2 + i % 7], "linestyle": LINES[i // 7 % 4], "linewidth": 1.6}
        for i, run in enumerate(runs)
    }


def _draw_curves(axes: "Axes", runs: Sequence[Curves], name: str) -> None:
    styles = _run_lines(runs)
    for run in runs:
        curve = run.metrics.get(name, {})
        style: dict[str, Any] = styles[run.name] | {"marker": "o" if len(curve) < 40 else "", "markersize": 3.5}
        axes.plot([*curve], [*curve.values()], gid=f"series:{run.name}", **style)


def training_caption(runs: Sequence[Curves]) -> str:
    """Below curves of training runs."""
    lengths = ", ".join(
        f"{run.name}: {max((max(curve) for curve in run.metrics.values() if curve), default=0):,} steps" for run in runs
    )
    return f"What each training run recorded, without smoothing; one seed per run, so no interval ({lengths})."
