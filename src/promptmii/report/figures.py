"""The main figures: macro-F1 against prompt length, the Pareto frontier, and training curves."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from promptmii.messages import counted
from promptmii.report.drawing import (
    COLOURS,
    INK,
    LINES,
    Drawn,
    Look,
    blank_figure,
    draw_legend,
    label,
    legend_height,
    line_style,
    looks,
    scope_title,
    styled,
)
from promptmii.report.scores import Scores
from promptmii.report.statistics import Mean, comparable, frontier, means, points
from promptmii.train.run_folder import VALIDATION, Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEADER = {"arrowstyle": "-", "linewidth": 0.6, "linestyle": ":", "shrinkB": 4, "relpos": (0, 0.5)}
"""The thin line between the end of a series and its name."""


LABEL_LINES = 19
"""Names of series that fit at the edge of `length_figure`; with more, it is higher."""


@styled
def length_figure(scores: Scores) -> Drawn:
    """Macro-F1 against prompt length: a labelled line per series with a point and an interval for each n."""
    lines = max(LABEL_LINES, len(scores.series))
    figure, (axes,) = blank_figure(f"length-{scores.scope.slug}", 4.6 * lines / LABEL_LINES)
    plotted, flat = _by_prompt(points(scores))
    styles = looks(scores.series)
    _token_axis(axes, plotted)
    _draw_flat(axes, flat, styles)
    end_ns: set[int] = set()
    for series in scores.series:
        line = [point for point in plotted if point.series == series]
        end_ns |= {point.n for point in line[:1] + line[-1:]}
        x, y = [p.tokens for p in line], [p.mean for p in line]
        errors = np.maximum([[p.mean - p.low for p in line], [p.high - p.mean for p in line]], 0)
        style = line_style(styles[series.name])
        for artist in axes.errorbar(x, y, yerr=errors, elinewidth=0.9, capsize=2, **style).get_children():
            artist.set_gid(f"series:{series.name}")
    axes.set_ylabel("Macro-F1, mean over tasks")
    axes.set_title(f"Macro-F1 against prompt length: {scope_title(scores.scope)}")
    _label_lines(axes, [*plotted, *flat], styles, lines)
    figure.draw_without_rendering()
    _number_points(axes, plotted, sorted(plotted, key=lambda p: p.n not in end_ns), styles)
    caption = (
        f"Mean macro-F1 over tasks against the mean number of prompt tokens per query, {scores.scope.title} "
        f"({_points_sample(scores)}; numbers at points: examples given; bars: 95 % interval over tasks; dotted: "
        "methods without a prompt)."
    )
    return Drawn(figure, caption)


def _by_prompt(all_points: Sequence[Mean]) -> tuple[list[Mean], list[Mean]]:
    """The points of methods with a prompt, and the point with the largest n of each other method.

    A point without prompt tokens has no place on a logarithmic axis. If no method has a prompt, all points are returned
    as the first list.
    """
    prompted = [point for point in all_points if point.tokens > 0]
    if not prompted:
        return list(all_points), []
    unprompted = sorted((point for point in all_points if not point.tokens > 0), key=lambda point: point.n)
    return prompted, [*{point.series: point for point in unprompted}.values()]


def _draw_flat(axes: "Axes", flat: Sequence[Mean], styles: dict[str, Look]) -> None:
    """Draw a horizontal line for each method without a prompt."""
    for point in flat:
        colour = styles[point.series.name].colour
        line = axes.hlines(point.mean, 0, 1, transform=axes.get_yaxis_transform(), colors=colour)
        line.set(linestyle=":", linewidth=1.1, gid=f"series:{point.series.name}")


def _label_lines(axes: "Axes", plotted: Sequence[Mean], styles: dict[str, Look], lines: int) -> None:
    """Write the name of each series at the right edge, beside the end of its line. There is room for `lines`."""
    ends = {point.series.name: point for point in sorted(plotted, key=lambda point: point.tokens)}
    bottom, top = axes.get_ylim()
    gap = (top - bottom) / lines  # the height of a line of text
    heights = _spread([point.mean for point in ends.values()], gap)
    for (name, point), height in zip(ends.items(), heights, strict=True):
        colour = styles[name].colour
        flat = not point.tokens and axes.get_xscale() == "log"
        text = axes.annotate(
            f"{label(name)}, n={point.n}" if flat else label(name),
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
    """The heights, moved apart until neighbours are at least `gap` apart."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    # Move all down by half of the topmost shift, so that the labels stay around their lines.
    shift = (moved[order[-1]] - heights[order[-1]]) / 2 if order else 0.0
    return [height - shift for height in moved]


def _token_axis(axes: "Axes", plotted: Sequence[Mean]) -> None:
    """Make the token axis logarithmic if any point has tokens, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if any(point.tokens > 0 for point in plotted):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.16g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Prompt tokens per query (log scale)")


def _number_points(axes: "Axes", plotted: Sequence[Mean], numbered: Sequence[Mean], styles: dict[str, Look]) -> None:
    """Write n beside the `numbered` points, in that order, unless it would cover a point or another label.

    The layout must be final, because room is measured in pixels.
    """
    from matplotlib.transforms import Bbox

    places = {(p.series, p.n): axes.transData.transform((p.tokens, p.mean)) for p in plotted}
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in places.values()]
    for point in numbered:
        x, y = places[point.series, point.n]
        width = 3.1 * len(str(point.n))  # half of that of its text, in pixels of 1/100 inch
        for right, up in ((-1, 1), (1, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)):
            dx, dy = right * (width + 5), up * 7
            box = Bbox.from_extents(x + dx - width, y + dy - 5, x + dx + width, y + dy + 5)
            if point.n and not box.count_overlaps(taken):
                taken.append(box)
                offset = (dx * 0.72, dy * 0.72)
                text = axes.annotate(str(point.n), (point.tokens, point.mean), offset, textcoords="offset points")
                text.set(fontsize=7.5, color=styles[point.series.name].colour, gid=f"series:{point.series.name}")
                text.set(horizontalalignment="center", verticalalignment="center")
                break


@styled
def pareto_figure(by_scope: Sequence[Scores]) -> Drawn:
    """Every series at every n, with the Pareto frontier of score and prompt length: a panel per scope."""
    columns = min(2, len(by_scope))
    styles = looks(list(dict.fromkeys(series for scores in by_scope for series in scores.series)))
    margin = max(0.7, legend_height(styles))
    figure, panels = blank_figure("pareto", 3.7, len(by_scope), columns, margin=margin, sharey=True)
    for axes, scores in zip(panels, by_scope, strict=True):
        _draw_frontier(axes, points(scores), styles)
        axes.set_title(scope_title(scores.scope), fontweight="normal")
    for axes in panels[::columns]:
        axes.set_ylabel("Macro-F1, mean over tasks")
    figure.suptitle("Pareto frontier: no other point is both better and shorter", x=0.01, ha="left")
    flat = {point.series.name for scores in by_scope for point in _by_prompt(points(scores))[1]}
    markers = {name: line_style(look, lines=False) for name, look in styles.items()}
    draw_legend(figure, markers | {name: {"color": styles[name].colour, "linestyle": ":"} for name in flat})
    figure.draw_without_rendering()
    for axes, scores in zip(panels, by_scope, strict=True):
        plotted, _ = _by_prompt(points(scores))
        _number_points(axes, plotted, frontier(plotted), styles)
    parts = "; ".join(f"{scores.scope.title}: {_points_sample(scores)}" for scores in by_scope)
    caption = (
        "Every method at every number of examples. The dashed line joins the points that no other beats in both "
        f"macro-F1 and prompt length, with their number of examples ({parts}; means over tasks, intervals in the "
        "tables; dotted: methods without a prompt)."
    )
    return Drawn(figure, caption)


def _draw_frontier(axes: "Axes", all_points: Sequence[Mean], styles: dict[str, Look]) -> None:
    plotted, flat = _by_prompt(all_points)
    _token_axis(axes, plotted)
    _draw_flat(axes, flat, styles)
    for name in dict.fromkeys(point.series.name for point in plotted):
        line = [point for point in plotted if point.series.name == name]
        style = line_style(styles[name], lines=False)
        (markers,) = axes.plot([p.tokens for p in line], [p.mean for p in line], **style)
        markers.set_gid(f"series:{name}")
    corners = [(point.tokens, point.mean) for point in frontier(plotted)]
    if corners:  # continue the last step to the longest prompt
        corners.append((max(point.tokens for point in plotted), corners[-1][1]))
    (steps,) = axes.step([x for x, _ in corners], [y for _, y in corners], where="post")
    steps.set(color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1, gid="frontier")


def sample_size(scores: Scores) -> str:
    """The numbers of tasks and seeds, for captions."""
    return f"{counted(len(scores.tasks), 'task')}, {_seed_count(scores)}"


def _seed_count(scores: Scores) -> str:
    most = scores.seeds[~np.array(scores.constant)].max(axis=2, initial=0)  # by series and n
    counts = sorted({int(count) for count in most.flat if count})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}" if counts else "no seed"


def _points_sample(scores: Scores) -> str:
    """The sample size of `points(scores)`, which share their tasks, and the points left out."""
    shared = comparable(scores)
    with_score = [mean for mean in means(shared) if mean.tasks]
    shown = {(mean.series, mean.n) for mean in with_score}
    names = _names(mean for mean in means(scores) if mean.tasks and (mean.series, mean.n) not in shown)
    unknown = _names(mean for mean in with_score if np.isnan(mean.tokens))
    text = sample_size(shared)
    if len(shared.tasks) < len(scores.tasks):
        tasks = counted(len(scores.tasks), "task")
        text = f"{len(shared.tasks)} of {tasks}, those that most points share; {_seed_count(shared)}"
    text += f"; left out for lack of scores: {names}" if names else ""
    return f"{text}; left out because their prompt tokens are unknown: {unknown}" if unknown else text


def _names(points: Iterable[Mean]) -> str:
    return ", ".join(dict.fromkeys(f"{p.series.name}{f' at n={p.n}' if p.n else ''}" for p in points))


IMPORTANT = ("train/reward", "length", "zero_variance", "entropy", "kl", "train/loss")
"""The curves that show first whether a run is healthy."""


def important(names: Sequence[str]) -> list[str]:
    """Six curves: those of `IMPORTANT`, then other validation curves, then the first of the rest."""
    order = {name: rank for rank, name in enumerate(IMPORTANT)}
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
def training_figure(runs: Sequence[Curves], quantities: Sequence[str], name: str, caption: str) -> Drawn:
    """Quantities of training runs, each in a small panel."""
    from matplotlib.ticker import StrMethodFormatter

    figure, panels = blank_figure(name, 1.9, len(quantities), 3, margin=0.5)
    for axes, quantity in zip(panels, quantities, strict=True):
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
    """The caption of curves of training runs."""
    lengths = ", ".join(
        f"{run.name}: {max((max(curve) for curve in run.metrics.values() if curve), default=0):,} steps" for run in runs
    )
    return f"The values that each training run recorded, unsmoothed; one seed per run, so no intervals ({lengths})."
