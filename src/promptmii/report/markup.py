"""Figures inside the page: colours that follow the theme, values under the pointer."""

import re
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from promptmii.report.drawing import COLOURS, GRID, INK, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

POINT = 8
"""Radius of the circle around a point that shows its values, in points of the figure."""
CAPS = ("_", "|")
"""Markers that end an error bar, and are no points."""
SERIES = "series:"
Tip = Callable[[int, str, float, float], str]
"""The text for a point: from the panel's number, the series' name, and the point's data."""


def no_tip(*_: object) -> str:
    """For figures whose numbers stand in them."""
    return ""


class _Spot(NamedTuple):
    """Where a value is, on a canvas of 72 points an inch whose y points down."""

    series: str
    tip: str
    x: float
    y: float
    width: float = 0.0
    """Of a bar; a point has none."""
    height: float = 0.0


def inline_svg(figure: "Figure", tip: Tip, caption: str, *, method: bool = True) -> tuple[str, str]:
    """The figure as a file's SVG, and as the SVG of a page: themed, with a spot on every value that says what it is.

    Series become classes of the page by `data-series`, so that their check box hides them; those of training runs
    (`method` false) are no methods and stay.
    """
    plain = svg(figure)
    name = "data-series" if method else "data-run"
    text = plain.replace(f'id="{SERIES}', f'{name}="').replace('id="frontier"', "")
    text = re.sub(r"stroke: #ffffff\b", "stroke: var(--paper)", text)
    text = re.sub(r"#[0-9a-f]{6}\b", _themed, text)
    # The size is the page's affair; the view box stays.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" ', 1)
    marks = "".join(_mark(spot, name) for spot in _spots(figure, tip))
    return plain, text.rsplit("</svg>", 1)[0] + f'<g class="spots">{marks}</g></svg>'


def _themed(match: re.Match[str]) -> str:
    colour = match.group()
    names = {INK: "--ink", GRID: "--grid"} | {own: f"--c-{own[1:]}" for own in COLOURS if own != INK}
    return f"var({names[colour]}, {colour})" if colour in names else colour


def _spots(figure: "Figure", tip: Tip) -> Iterator[_Spot]:
    from matplotlib.patches import Rectangle

    scale, height = 72 / figure.dpi, figure.get_figheight() * 72
    for panel, axes in enumerate(figure.axes):
        for line in axes.lines:
            if _is_series(line):
                series = str(line.get_gid()).removeprefix(SERIES)
                for x, y in np.asarray(line.get_xydata()):
                    px, py = axes.transData.transform((x, y)) * scale
                    yield _Spot(series, tip(panel, series, float(x), float(y)), px, height - py)
        for patch in axes.patches:
            if isinstance(patch, Rectangle) and str(patch.get_gid()).startswith(SERIES):
                series = str(patch.get_gid()).removeprefix(SERIES)
                (_, low), (_, high) = (
                    axes.transData.transform([(1, patch.get_y()), (1, patch.get_y() + patch.get_height())]) * scale
                )
                (left, _), (right, _) = axes.bbox.get_points() * scale
                shown = tip(panel, series, patch.get_width(), patch.get_y() + patch.get_height() / 2)
                yield _Spot(series, shown, left, height - high, right - left, high - low)


def _is_series(line: "Line2D") -> bool:
    return str(line.get_gid()).startswith(SERIES) and line.get_marker() not in CAPS


def _mark(spot: _Spot, name: str) -> str:
    shape = (
        f'rect x="{spot.x:.1f}" y="{spot.y:.1f}" width="{spot.width:.1f}" height="{spot.height:.1f}"'
        if spot.width
        else f'circle cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="{POINT}"'
    )
    return f'<{shape} {name}="{escape(spot.series)}" data-tip="{escape(spot.tip)}"/>'
