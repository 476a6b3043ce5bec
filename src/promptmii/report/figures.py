"""The figures of a report, one function each, drawn with matplotlib and readable at 700 pixels.

A method has the same colour and marker in every figure (Okabe and Ito's palette, safe for colour-blind readers); with several
generators it keeps the colour, and the fill of the marker and the line tell them apart. Every artist of a series has the id
`series:<name>`, so that a page can hide it. Ink and grid are the colours `INK` and `GRID` alone, for a page to replace.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

import numpy as np
import pandas as pd

from promptmii.errors import MissingDependencyError
from promptmii.report.curves import VALIDATION, Run
from promptmii.report.methods import position
from promptmii.report.statistics import Mean, Scores, Series, Transfer, frontier, points, short_names
from promptmii.report.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
INK = "#1f2328"
GRID = "#d0d7de"
WIDTH = 7.2
"""Inches; 700 pixels of an SVG are 7.3."""
COLOURS = ("#7f868f", INK, "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9", "#a39300")
"""Of the methods, in order. Okabe and Ito's yellow is darkened, because on white it cannot be seen."""
MARKERS = "X*s^oDvPh"
LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
SVG_STYLE = "stroke-linejoin: round; stroke-linecap: butt; font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    "text.parse_math": False,  # a model's name is no formula
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}


def _styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Give a figure function our style, and its reader the pip line where matplotlib is missing."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        try:
            import matplotlib
        except ImportError as error:
            raise MissingDependencyError("Drawing figures", "evaluate") from error
        with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
            return draw(*args, **kwargs)

    return styled


def svg(figure: "Figure") -> str:
    """The figure as an `<svg>` element: text stays text, the background is transparent, equal figures give equal text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(figure.get_label())}):
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    # Inside a page, numbered ids would clash and a rule for `*` would reach everything; the fonts are the page's.
    for pattern in (r' id="[A-Za-z0-9.]+_\d+"', r"<defs>\s*<style.*?</defs>", r"font-family: [^;]*; "):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text[text.index("<svg") :].replace("<svg ", f'<svg style="{SVG_STYLE}" ', 1)


def png(figure: "Figure") -> bytes:
    """The figure as a PNG of about 1,440 pixels' width, on white, because its ink is dark."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=200, facecolor="white")
    return out.getvalue()


class Look(NamedTuple):
    """How a series is drawn."""

    colour: str
    marker: str
    line: Any
    fill: str


def looks(series: Iterable[Series]) -> dict[str, Look]:
    """The look of each series, by name."""
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    others = [method for method in dict.fromkeys(s.method for s in series) if position(method) >= len(MARKERS)]
    for one in series:
        if one.name in found:
            continue  # the same method at another follower
        nth = seen.setdefault(one.method, 0)
        seen[one.method] += 1
        i = position(one.method)
        marker = MARKERS[i] if i < len(MARKERS) else "<>dp8"[others.index(one.method) % 5]
        colour = COLOURS[i % len(COLOURS)]
        found[one.name] = Look(colour, marker, LINES[nth % len(LINES)], "none" if nth % 2 else colour)
    return found


def _blank(name: str, height: float, columns: int = 1, rows: int = 1, **options: Any) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), label=name)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def _token_axis(axes: "Axes", found: Sequence[Mean]) -> None:
    """Logarithmic where there is anything to show, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if any(point.tokens > 0 for point in found):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.16g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Prompt tokens per query (log scale)")


def _legend(figure: "Figure", styles: dict[str, dict[str, Any]]) -> None:
    """Below the panels; the keywords of a line by the name of its series."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(5, len(handles) or 1),
        handlelength=2.2,
        columnspacing=1.4,
    )
    for handle, text, name in zip(legend.legend_handles, legend.get_texts(), styles, strict=True):
        text.set_gid(f"series:{name}")
        if handle is not None:
            handle.set_gid(f"series:{name}")


def _line(look: Look, *, lines: bool = True) -> dict[str, Any]:
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": 6 if look.marker not in "*" else 8.5,
        "markerfacecolor": look.fill,
        "linestyle": look.line if lines else "none",
        "linewidth": 1.6,
    }


@_styled
def length_figure(scores: Scores) -> "Figure":
    """Macro-F1 against prompt length: a line per series through its numbers of examples, with intervals."""
    figure, (axes,) = _blank(f"length {scores.scope}", 4.6)
    found, known = points(scores), looks(scores.series)
    _token_axis(axes, found)
    for one in scores.series:
        own = [point for point in found if point.series == one]
        x, y = [p.tokens for p in own], [p.mean for p in own]
        bars = [[p.mean - p.low for p in own], [p.high - p.mean for p in own]]
        drawn = axes.errorbar(x, y, yerr=np.maximum(bars, 0), elinewidth=0.9, capsize=2, **_line(known[one.name]))
        for artist in drawn.get_children():
            artist.set_gid(f"series:{one.name}")
    axes.set_ylabel("Macro-F1, mean over tasks")
    axes.set_title(f"Macro-F1 against prompt length: {scores.scope.title}")
    _legend(figure, {name: _line(look) for name, look in known.items()})
    figure.draw_without_rendering()
    ends = {
        n for one in scores.series for own in [[p.n for p in found if p.series == one]] for n in (own[:1] + own[-1:])
    }
    _number_points(axes, found, sorted(found, key=lambda p: p.n not in ends), known)
    return figure


class _Box(NamedTuple):
    """A rectangle on the canvas by its centre and half its size, in pixels of 1/100 inch."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "_Box") -> bool:
        return abs(self.x - other.x) < self.width + other.width and abs(self.y - other.y) < self.height + other.height


def _number_points(axes: "Axes", found: Sequence[Mean], wanted: Sequence[Mean], known: dict[str, Look]) -> None:
    """Write n beside the wanted points, in that order, wherever there is room; what would cover a point or another label is left out.

    The layout must have been made, because room is counted in pixels.
    """
    places = {(p.series, p.n): axes.transData.transform((p.tokens, p.mean)) for p in found}
    taken = [_Box(x, y, 4, 4) for x, y in places.values()]
    for point in wanted:
        x, y = places[point.series, point.n]
        width = 3.1 * len(str(point.n))
        for right, up in ((-1, 1), (1, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)):
            box = _Box(x + right * (width + 5), y + up * 7, width, 5)
            if point.n and not any(box.meets(other) for other in taken):
                taken.append(box)
                offset = ((box.x - x) * 0.72, (box.y - y) * 0.72)
                text = axes.annotate(
                    str(point.n),
                    (point.tokens, point.mean),
                    offset,
                    textcoords="offset points",
                    ha="center",
                    va="center",
                )
                text.set(fontsize=7.5, color=known[point.series.name].colour, gid=f"series:{point.series.name}")
                break


@_styled
def pareto_figure(by_scope: Sequence[Scores]) -> "Figure":
    """Every series at every n, and the points that no other beats in both score and length: a panel per scope."""
    columns = min(2, len(by_scope))
    rows = -(-len(by_scope) // columns)
    figure, panels = _blank("pareto", 3.7 * rows + 0.7, columns, rows, sharey=True)
    series = list(dict.fromkeys(one for scores in by_scope for one in scores.series))
    known = looks(series)
    for axes in panels[len(by_scope) :]:
        axes.set_visible(False)
    for axes, scores in zip(panels, by_scope, strict=False):
        _draw_frontier(axes, points(scores), known)
        axes.set_title(scores.scope.title, fontweight="normal")
    for axes in panels[::columns]:
        axes.set_ylabel("Macro-F1, mean over tasks")
    figure.suptitle(
        "Pareto frontier: no other point is both better and shorter",
        fontsize=10.5,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    _legend(figure, {name: _line(look, lines=False) for name, look in known.items()})
    figure.draw_without_rendering()
    for axes, scores in zip(panels, by_scope, strict=False):
        found = points(scores)
        _number_points(axes, found, frontier(found), known)
    return figure


def _draw_frontier(axes: "Axes", found: Sequence[Mean], known: dict[str, Look]) -> None:
    _token_axis(axes, found)
    for one in dict.fromkeys(point.series for point in found):
        own = [point for point in found if point.series == one]
        drawn = axes.plot([p.tokens for p in own], [p.mean for p in own], **_line(known[one.name], lines=False))
        drawn[0].set_gid(f"series:{one.name}")
    # The last step goes on to the longest prompt.
    best = [(p.tokens, p.mean) for p in frontier(found)]
    best += [(max(point.tokens for point in found), best[-1][1])] if best else []
    line = axes.step([x for x, _ in best], [y for _, y in best], where="post")
    line[0].set(color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1, gid="frontier")


@_styled
def validation_figure(runs: Sequence[Run]) -> "Figure":
    """Validation reward against training steps: a line per training run."""
    figure, (axes,) = _blank("validation", 3.6)
    _draw_curves(axes, runs, VALIDATION)
    axes.set_xlabel("Training steps")
    axes.set_ylabel("Validation reward (macro-F1)")
    axes.set_title("Training curves: reward on validation tasks against training steps")
    _legend(figure, _run_lines(runs))
    return figure


@_styled
def training_figure(runs: Sequence[Run]) -> "Figure":
    """Every other quantity that training runs recorded: a small panel each."""
    from matplotlib.ticker import StrMethodFormatter

    names = [name for name in dict.fromkeys(name for run in runs for name in run.metrics) if name != VALIDATION]
    rows = max(1, -(-len(names) // 3))
    figure, panels = _blank("training", 1.9 * rows + 0.5, 3, rows)
    for axes, name in zip(panels, names, strict=False):
        _draw_curves(axes, runs, name)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_title(name, fontsize=9.5, fontweight="normal")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - 3) : len(names)]:
        axes.set_xlabel("Training steps")
    _legend(figure, _run_lines(runs))
    return figure


def _run_lines(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    return {
        run.name: {"color": COLOURS[2 + i % 7], "linestyle": LINES[i // 7 % 4], "linewidth": 1.6}
        for i, run in enumerate(runs)
    }


def _draw_curves(axes: "Axes", runs: Sequence[Run], name: str) -> None:
    styles = _run_lines(runs)
    for run in runs:
        curve = run.metrics.get(name, {})
        style: dict[str, Any] = styles[run.name] | {"marker": "o" if len(curve) < 40 else "", "markersize": 3.5}
        axes.plot([*curve], [*curve.values()], gid=f"series:{run.name}", **style)


@_styled
def cost_figure(costs: pd.DataFrame, n: int, title: str) -> "Figure":
    """What a task costs with each method at one n (from `tables.costs`): calls, tokens, seconds."""
    from matplotlib.ticker import EngFormatter, NullLocator

    own = costs.loc[costs["n"].isin([0, n]), :].iloc[::-1]
    series = [Series(name, method, None) for name, method in zip(own["series"], own["method"], strict=True)]
    known = looks(series)
    figure, panels = _blank(f"costs {title} {n}", 0.3 * len(own) + 1.3, 3, sharey=True)
    totals = {
        "LLM calls per task,\nto make the instruction": own["calls"],
        "Tokens per task,\nto make it and to label": own["tokens"] + own["tokens_per_query"] * own["rows"],
        "Seconds per task,\nto make it and to label": own["seconds"] + own["label_seconds"],
    }
    for axes, (label, values) in zip(panels, totals.items(), strict=True):
        least = float(values[values > 0].min()) if (values > 0).any() else 1.0
        axes.set(xscale="log", xlim=(least / 2, max([least, *values]) * 12))
        axes.grid(axis="y", visible=False)
        for place, (one, value) in enumerate(zip(series, values, strict=True)):
            axes.barh(place, value, height=0.62, color=known[one.name].colour, gid=f"series:{one.name}")
            text = axes.annotate(
                _rounded(value), (max(value, least / 2), place), (3, 0), textcoords="offset points", va="center"
            )
            text.set(fontsize=8, gid=f"series:{one.name}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label, fontsize=8.5)
    panels[0].set_yticks(range(len(series)), [one.name for one in series])
    figure.suptitle(f"Cost per task at n={n}: {title}", fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


@_styled
def transfer_figure(transfer: Transfer) -> "Figure":
    """Macro-F1 of each writer's instructions with each follower, as a heat map with numbers."""
    from matplotlib import colormaps

    figure, (axes,) = _blank(f"transfer {transfer.mode} {transfer.n}", 0.45 * len(transfer.writers) + 1.6)
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


def _sample(scores: Scores) -> str:
    seeds = sorted(
        {int(count) for count in scores.seeds[~np.array(scores.constant)].max(axis=2, initial=0).flat if count}
    )
    drawn = f"{' or '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}" if seeds else "no seed"
    return f"{len(scores.tasks)} tasks, {drawn}"


def length_caption(scores: Scores) -> str:
    """One sentence below `length_figure`."""
    return (
        f"Mean macro-F1 over tasks against the mean number of prompt tokens that one query takes, {scores.scope.title} "
        f"({_sample(scores)}; numbers at points: examples given; bars: 95 % bootstrap interval over tasks and rows)."
    )


def pareto_caption(by_scope: Sequence[Scores]) -> str:
    """One sentence below `pareto_figure`."""
    parts = "; ".join(f"{scores.scope.title}: {_sample(scores)}" for scores in by_scope)
    return (
        "Every method at every number of examples; the dashed line joins the points that no other beats in both macro-F1 and prompt "
        f"length, with their number of examples ({parts}; means over tasks, intervals in the figure before and in the tables)."
    )


def training_caption(runs: Sequence[Run]) -> str:
    """One sentence below `validation_figure` and `training_figure`."""
    lengths = ", ".join(
        f"{run.name}: {max((max(curve) for curve in run.metrics.values() if curve), default=0):,} steps" for run in runs
    )
    return f"What each training run recorded, as recorded, without smoothing; one seed per run and no interval ({lengths})."


def cost_caption(scores: Scores, n: int) -> str:
    """One sentence below `cost_figure`."""
    return (
        f"What one task costs at n={n} with each method: calls to make the instruction, and tokens and seconds to make it and to label the "
        f"task's query rows ({_sample(scores)}; means, logarithmic axes, no interval; no bar: zero)."
    )


def transfer_caption(transfer: Transfer) -> str:
    """One sentence below `transfer_figure`."""
    counts = sorted({int(count) for count in transfer.tasks.flat if count})
    tasks = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
    return (
        f"Mean macro-F1 of instructions that the row's model wrote from n={transfer.n} examples (mii: the generator under test, zero: an "
        f"untrained one) and that the column's follower reads in mode {transfer.mode} ({tasks} tasks, mean over seeds; intervals in the "
        "method tables)."
    )
