"""The style of all figures, drawn with matplotlib and readable at 700 pixels.

A method has the same colour and marker in every figure (Okabe and Ito's palette, safe for colour-blind readers). If it
was run with several generators, marker fill and line style tell them apart. Every artist of a series has the id
`series:<name>`, so that a page can hide it. A page replaces these colours by its theme's.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec

from promptmii.report.methods import position
from promptmii.report.scores import Scope, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
INK = "#1f2328"
GRID = "#d0d7de"
WIDTH = 7.2
"""Of every figure, in inches; 700 pixels of an SVG are 7.3."""
LONGEST_LABEL = 36
"""Characters of a name in a figure."""
COLOURS = ("#7f868f", INK, "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9", "#a39300")
"""Colours of the methods, in order. Okabe and Ito's yellow is darkened, because on white it cannot be seen."""
MARKERS = "X*s^oDvPh"
LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
FONTS = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
SVG_STYLE = f"stroke-linejoin: round; stroke-linecap: butt; font-family: {FONTS}"
STYLE = {
    "font.size": 9.5,
    **dict.fromkeys(("axes.titlesize", "figure.titlesize"), 10.5),
    **dict.fromkeys(("axes.titleweight", "figure.titleweight"), "bold"),
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    "text.parse_math": False,  # a model's name is not a formula
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}


class Drawn(NamedTuple):
    """A figure and its caption."""

    figure: "Figure"
    caption: str

    @property
    def name(self) -> str:
        """The file name without its suffix, unique in a report."""
        return str(self.figure.get_label())


def styled(draw: "Callable[P, Drawn]") -> "Callable[P, Drawn]":
    """Decorate a drawing function so that it uses `STYLE`."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        import matplotlib

        with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
            return draw(*args, **kwargs)

    return wrapper


def svg(figure: "Figure") -> str:
    """The figure as an `<svg>` element with real text and no background. The same figure gives the same bytes."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(figure.get_label())}):
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    # In a page, numbered ids would clash, a rule for `*` would match everything, and the page sets the fonts.
    for pattern in (r' id="[A-Za-z0-9.]+_\d+"', r"<defs>\s*<style.*?</defs>", r"font-family: [^;]*; "):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text[text.index("<svg") :].replace("<svg ", f'<svg style="{SVG_STYLE}" ', 1)


def image(figure: "Figure", kind: Literal["png", "pdf"]) -> bytes:
    """The figure as a PNG, about 1,440 pixels wide, or as a PDF; on white, because the ink is dark."""
    out = io.BytesIO()
    undated: dict[str, Any] = {"CreationDate": None} if kind == "pdf" else {}
    figure.savefig(out, format=kind, dpi=200, facecolor="white", metadata=undated)
    return out.getvalue()


class Look(NamedTuple):
    """Colour, marker, line style and marker fill of a series."""

    colour: str
    marker: str
    line: Any
    fill: str


def looks(series: Sequence[Series]) -> dict[str, Look]:
    """The look of each series, by name."""
    styles: dict[str, Look] = {}
    drawn: Counter[str] = Counter()
    others = [method for method in dict.fromkeys(s.method for s in series) if position(method) >= len(MARKERS)]
    for name, method, _ in series:
        if name in styles:
            continue  # the same method with another follower
        i, nth = position(method), drawn[method]
        drawn[method] += 1
        marker = MARKERS[i] if i < len(MARKERS) else "<>dp8"[others.index(method) % 5]
        colour = COLOURS[i % len(COLOURS)]
        styles[name] = Look(colour, marker, LINES[nth % len(LINES)], "none" if nth % 2 else colour)
    return styles


def line_style(look: Look, *, lines: bool = True) -> dict[str, Any]:
    """Matplotlib's keywords for a line with this look, or for its markers alone if `lines` is false."""
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": 6 if look.marker not in "*" else 8.5,
        "markerfacecolor": look.fill,
        "linestyle": look.line if lines else "none",
        "linewidth": 1.6,
    }


def blank_figure(
    name: str, height: float, count: int = 1, columns: int = 1, *, margin: float = 0.0, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """A figure with `count` panels. In inches: `height` of each row of panels, `margin` for the legend."""
    from matplotlib.figure import Figure

    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(WIDTH, height * rows + margin), label=name)
    panels = [*figure.subplots(rows, columns, squeeze=False, **options).flat]
    for spare in panels[count:]:
        spare.set_visible(False)
    return figure, panels[:count]


def label(name: str) -> str:
    """A name as text of a figure: what is too long to leave room for the figure itself loses its middle."""
    half = LONGEST_LABEL // 2
    return name if len(name) <= LONGEST_LABEL else f"{name[:half]}…{name[-half:]}"


def scope_title(scope: Scope) -> str:
    """The scope in a heading of a figure."""
    return scope._replace(name=label(scope.name)).title


def _legend_columns(names: Collection[str]) -> int:
    longest = max((len(label(name)) for name in names), default=0)
    return max(1, min(5, len(names), int(WIDTH / (0.5 + 0.07 * longest))))


def legend_height(names: Collection[str]) -> float:
    """The height of a legend of these names, in inches."""
    return 0.1 + 0.2 * -(-len(names) // _legend_columns(names))


def draw_legend(figure: "Figure", styles: dict[str, dict[str, Any]]) -> None:
    """Draw a legend below the panels. `styles` holds the line keywords of each series."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label(name), **style) for name, style in styles.items()]
    layout = {"ncols": _legend_columns(styles), "handlelength": 2.2, "columnspacing": 1.4}
    legend = figure.legend(handles=handles, loc="outside lower center", **layout)
    for handle, text, name in zip(legend.legend_handles, legend.get_texts(), styles, strict=True):
        text.set_gid(f"series:{name}")
        if handle is not None:
            handle.set_gid(f"series:{name}")
