"""The folder of a report: the page, and its figures and tables as files beside it.

In the page, the colours of a figure follow the theme, and its values show under the pointer.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import numpy as np
from markupsafe import Markup

from promptmii.errors import OutputError
from promptmii.files import atomic_file, write_text
from promptmii.report.drawing import COLOURS, GRID, INK, Drawn, image, svg
from promptmii.report.tables import ReportTable, tex, write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FIGURES = ("svg", "png", "pdf", "tex")
TABLES = ("csv", "md", "tex")
LINK = rf'<a href="((?:figures|tables)/[\w-]+\.(?:{"|".join((*FIGURES, *TABLES))}))">'
"""A link of the page to a figure or table."""
NAME_LENGTH = 40
"""A column of names shorter than this does not wrap."""
SPOT_RADIUS = 8
"""Of the circle around a point that shows its values, in points (1/72 inch)."""
CAPS = ("_", "|")
"""Markers at the ends of error bars, which are not data points."""
SERIES = "series:"
Tip = Callable[[int, str, float, float], str]
"""Makes the text of a tooltip from panel number, series name, x and y."""


def no_tip(*_: object) -> str:
    """For figures that already show their numbers."""
    return ""


class ShownFigure(NamedTuple):
    """A figure for the page."""

    name: str
    caption: str
    svg: Markup


class ShownTable(NamedTuple):
    """A table for the page.

    `head` holds each heading with the CSS class of its column, and `rows` each cell as its value and the smaller lines
    below it.
    """

    name: str
    title: str
    note: str
    head: list[tuple[str, str]]
    rows: list[list[tuple[str, list[str]]]]


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists. Raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror}. Name another place.") from error


def replace_page(path: Path, text: str, link: str) -> Path:
    """Write a page, and remove the files that only the earlier one links to. Raises `OutputError`.

    `link` is a pattern whose group is the address of a file.
    """
    try:
        old_text = path.read_text("utf-8", "replace") if path.exists() else ""
        write_text(path, text, force=True)
        for address in set(re.findall(link, old_text)) - set(re.findall(link, text)):
            (path.parent / unquote(address)).unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be replaced: {error.strerror}.") from error
    return path


@dataclass(frozen=True)
class Files:
    """The folder of a report, into which the page, its figures and its tables are written."""

    out: Path

    @classmethod
    def at(cls, out: Path) -> "Files":
        """Make the folders. Raises `OutputError` if that fails."""
        for name in ("figures", "tables"):
            make_folder(out / name)
        return cls(out)

    def page(self, text: str) -> Path:
        """Write `index.html`: see `replace_page`."""
        return replace_page(self.out / "index.html", text, LINK)

    def figure(self, drawn: Drawn, tip: Tip = no_tip, *, method: bool = True) -> ShownFigure:
        """Write a figure as SVG, PNG, PDF, and LaTeX that includes the PDF.

        With `method` false, the series are not methods, and the legend of the page does not hide them.
        """
        name, figure, caption = drawn.name, drawn.figure, drawn.caption
        plain_svg = svg(figure)
        page_svg = _inline(plain_svg, drawn, tip, method)  # before other formats, whose layout differs slightly
        latex = [
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[width=\linewidth]{{{name}.pdf}}",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{fig:{name}}}",
            r"\end{figure}",
            "",
        ]
        contents = {"svg": plain_svg.encode(), "tex": "\n".join(latex).encode()}
        contents |= {"png": image(figure, "png"), "pdf": image(figure, "pdf")}
        for kind, content in contents.items():
            with atomic_file(self.out / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
        return ShownFigure(name, caption, Markup(page_svg))

    def table(self, table: ReportTable, *, max_rows: int | None = None) -> ShownTable:
        """Write a table as CSV, Markdown and LaTeX. The page shows at most `max_rows` rows and says so."""
        write(table, self.out / "tables")
        shown, note = table.shown.head(max_rows) if max_rows else table.shown, table.note
        if len(shown) < len(table.shown):
            note += f" The first {max_rows:,} of {len(table.shown):,}; the CSV has all."
        columns = [[str(value) for value in shown.iloc[:, i]] for i in range(len(shown.columns))]
        kinds = [_kind(column) for column in columns]
        cells = [[_cell(value, kind) for value in column] for column, kind in zip(columns, kinds, strict=True)]
        head = [*zip(map(str, shown.columns), kinds, strict=True)]
        return ShownTable(table.name, table.title, note, head, [[*row] for row in zip(*cells, strict=True)])


def _kind(values: Sequence[str]) -> str:
    """The CSS class of a column: `number` if no value begins with a letter, `name` if all are short, else none."""
    if not any(re.match(r"[^\W\d]", value) for value in values):
        return "number"
    return "name" if max(map(len, values)) < NAME_LENGTH else ""


def _cell(value: str, kind: str) -> tuple[str, list[str]]:
    """The value of a cell, and the brackets after a number (interval, n), which the page shows below it."""
    if kind != "number":
        return value, []
    number, *asides = re.split(r" (?=[\[(])", value)
    return number, asides


def _inline(plain_svg: str, drawn: Drawn, tip: Tip, method: bool) -> str:
    """The SVG for the page: in the theme's colours, with an invisible spot on every value that has its tooltip.

    Methods are marked by `data-series`, so that their check box hides them, and training runs by `data-run`.
    """
    series = "data-series" if method else "data-run"
    text = plain_svg.replace(f'id="{SERIES}', f'{series}="').replace('id="frontier"', "")
    text = re.sub(r"stroke: #ffffff\b", "stroke: var(--paper)", text)
    text = re.sub(r"#[0-9a-f]{6}\b", _themed, text)
    # The page sets the size; the view box stays.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(drawn.caption)}" ', 1)
    spots = (
        f'<{shape} {series}="{escape(name)}" data-tip="{escape(tip_text)}"/>'
        for shape, name, tip_text in _spots(drawn.figure, tip)
    )
    return text.rsplit("</svg>", 1)[0] + f'<g class="spots">{"".join(spots)}</g></svg>'


def _themed(match: re.Match[str]) -> str:
    """The CSS variable of a colour, or the colour itself if the theme has none."""
    colour = match.group()
    variables = {name: f"--c-{name[1:]}" for name in COLOURS} | {INK: "--ink", GRID: "--grid"}
    return f"var({variables[colour]}, {colour})" if colour in variables else colour


def _spots(figure: "Figure", tip: Tip) -> Iterator[tuple[str, str, str]]:
    """SVG shape, series and tooltip of each value, in points (1/72 inch) from the top left corner."""
    from matplotlib.patches import Rectangle

    scale, height = 72 / figure.dpi, figure.get_figheight() * 72
    for panel, axes in enumerate(figure.axes):
        for line in axes.lines:
            series = _series(line)
            if not series or line.get_marker() in CAPS:
                continue
            for x, y in np.asarray(line.get_xydata()):
                px, py = axes.transData.transform((x, y)) * scale
                shape = f'circle cx="{px:.1f}" cy="{height - py:.1f}" r="{SPOT_RADIUS}"'
                yield shape, series, tip(panel, series, float(x), float(y))
        for bar in axes.patches:
            series = _series(bar)
            if series and isinstance(bar, Rectangle):
                bottom, top = bar.get_y(), bar.get_y() + bar.get_height()
                (_, low), (_, high) = axes.transData.transform([(1, bottom), (1, top)]) * scale
                (left, _), (right, _) = axes.bbox.get_points() * scale
                size = f'width="{right - left:.1f}" height="{high - low:.1f}"'
                tip_text = tip(panel, series, bar.get_width(), (bottom + top) / 2)
                yield f'rect x="{left:.1f}" y="{height - high:.1f}" {size}', series, tip_text


def _series(artist: "Artist") -> str:
    """The series that an artist belongs to, or `""`."""
    return str(artist.get_gid()).partition(SERIES)[2]
