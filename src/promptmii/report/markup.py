"""Figures and tables as HTML: everything escaped, colours that follow the theme, values under the pointer."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from promptmii.report.drawing import COLOURS, GRID, INK, WIDTH, svg
from promptmii.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

POINT = 8
"""Radius of the circle around a point that shows its values, in points of the figure."""
CAPS = ("_", "|")
"""Markers that end an error bar, and are no points."""
SHORT = 40
"""Characters of a name."""
SERIES = "series:"
FIGURES = ("svg", "png", "pdf", "tex")
TABLES = ("csv", "md", "tex")
"""Files that lie beside the page."""
Tip = Callable[[int, str, float, float], str]
"""The text for a point: from the panel's number, the series' name, and the point's data."""


class _Spot(NamedTuple):
    """Where a value is, on a canvas of 72 points an inch whose y points down."""

    series: str
    tip: str
    x: float
    y: float
    width: float = 0.0
    """Of a bar; a point has none."""
    height: float = 0.0


def inline_svg(figure: "Figure", tip: Tip, *, method: bool = True) -> tuple[str, str]:
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


def figure_html(drawing: str, name: str, caption: str) -> str:
    """A `<figure>` with its caption and links to the files of that name."""
    label = escape(caption)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="Figure {name}" '
        f'style="--wide: {WIDTH * 80:.0f}px">'
        f"{drawing}</div><figcaption>{label} {file_links('figures', name, FIGURES)}</figcaption></figure>"
    )


def file_links(folder: str, name: str, kinds: Iterable[str]) -> str:
    """Links to the files of one name, in one of the folders beside the page."""
    links = " · ".join(f'<a href="{folder}/{name}.{kind}">{kind.upper()}</a>' for kind in kinds)
    return f'<span class="files">{links}</span>'


def table_html(table: Table, *, sortable: bool = True, rows: int | None = None) -> str:
    """A table under its title with its note. With `rows`, only so many are shown, and the note says so."""
    shown = table.shown if rows is None else table.shown.head(rows)
    note = table.note
    if len(shown) < len(table.shown):
        note += f" The first {rows:,} of {len(table.shown):,}; the CSV has all."
    kinds = [_kind([str(value) for value in shown.iloc[:, i]]) for i in range(len(shown.columns))]
    rows_html = "".join(_row(map(str, row), kinds) for row in shown.itertuples(index=False, name=None))
    return (
        f'<h3 class="caption" id="table-{table.name}">{escape(table.title)}</h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="table-{table.name}">'
        f'<table{" data-sortable" if sortable else ""} aria-labelledby="table-{table.name}">'
        f"<thead><tr>{_head(map(str, shown.columns), kinds, sortable)}</tr></thead>"
        f"<tbody>{rows_html}</tbody></table></div>"
        f'<p class="note">{escape(note)} {file_links("tables", table.name, TABLES)}</p>'
    )


def _kind(values: Sequence[str]) -> str:
    """Numbers stand to the right: a column where nothing begins with a letter. Short names keep to one line."""
    if not any(re.match(r"[^\W\d]", value) for value in values):
        return ' class="number"'
    return ' class="name"' if max(map(len, values)) < SHORT else ""


def _head(names: Iterable[str], kinds: Sequence[str], sortable: bool) -> str:
    texts = (f'<button type="button">{escape(name)}</button>' if sortable else escape(name) for name in names)
    return "".join(f'<th scope="col"{kind}>{text}</th>' for text, kind in zip(texts, kinds, strict=True))


def _row(values: Iterable[str], kinds: Sequence[str]) -> str:
    first, *rest = values
    return f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_cell, rest, kinds[1:]))}</tr>'


def _cell(value: str, kind: str) -> str:
    """What stands in brackets behind a number (its interval, its n) is set smaller, below it."""
    number, *asides = re.split(r" (?=[\[(])", value) if "number" in kind else [value]
    return f"<td{kind}>{escape(number)}{''.join(f' <span class=aside>{escape(aside)}</span>' for aside in asides)}</td>"
