"""The folder of a report: the page, and every figure and table of it as files beside it.

Inside the page the colours of a figure follow the theme, and its values show under the pointer.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
SHORT = 40
"""Characters up to which a name does not wrap."""
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


class ShownFigure(NamedTuple):
    """A figure as the page shows it."""

    name: str
    caption: str
    svg: Markup


class ShownTable(NamedTuple):
    """A table as the page shows it: heads with the class of their column, and cells with what stands below them."""

    name: str
    title: str
    note: str
    head: list[tuple[str, str]]
    rows: list[list[tuple[str, list[str]]]]


@dataclass(frozen=True)
class Files:
    """The folders beside the page, where everything that it shows is also a file."""

    out: Path

    @classmethod
    def at(cls, out: Path) -> "Files":
        """Make the folders. Raises `OutputError` if that fails."""
        try:
            for name in ("figures", "tables"):
                (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The report folder {out} cannot be made: {error.strerror}. Give another one with -o."
            ) from error
        return cls(out)

    def page(self, text: str) -> Path:
        """Write the page, and remove files that only the page before it linked to. Raises `OutputError`."""
        path = self.out / "index.html"
        try:
            earlier = _linked(path.read_text("utf-8", "replace")) if path.exists() else set[str]()
            write_text(path, text, force=True)
            for name in earlier - _linked(text):
                (self.out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be replaced: {error.strerror}.") from error
        return path

    def figure(self, drawn: Drawn, tip: Tip = no_tip, *, method: bool = True) -> ShownFigure:
        """Write a figure as SVG, PNG, PDF, and LaTeX that shows the PDF. For `method` see `_inline`."""
        name, figure, caption = drawn.name, drawn.figure, drawn.caption
        plain = svg(figure)
        themed = _inline(plain, drawn, tip, method)  # before other kinds, which move the layout by a hair
        latex = (
            *(r"\begin{figure}", r"\centering", rf"\includegraphics[width=\linewidth]{{{name}.pdf}}"),
            *(rf"\caption{{{tex(caption)}}}", rf"\label{{fig:{name}}}", r"\end{figure}", ""),
        )
        contents = {"svg": plain.encode(), "tex": "\n".join(latex).encode()}
        contents |= {"png": image(figure, "png"), "pdf": image(figure, "pdf")}
        for kind, content in contents.items():
            with atomic_file(self.out / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
        return ShownFigure(name, caption, Markup(themed))

    def table(self, table: ReportTable, *, most: int | None = None) -> ShownTable:
        """Write a table as CSV, Markdown and LaTeX. With `most`, the page shows only so many rows, and says so."""
        write(table, self.out / "tables")
        shown, note = table.shown.head(most) if most else table.shown, table.note
        if len(shown) < len(table.shown):
            note += f" The first {most:,} of {len(table.shown):,}; the CSV has all."
        columns = [[str(value) for value in shown.iloc[:, i]] for i in range(len(shown.columns))]
        kinds = [_kind(column) for column in columns]
        cells = [[_cell(value, kind) for value in column] for column, kind in zip(columns, kinds, strict=True)]
        head = [*zip(map(str, shown.columns), kinds, strict=True)]
        return ShownTable(table.name, table.title, note, head, [[*row] for row in zip(*cells, strict=True)])


def _kind(values: Sequence[str]) -> str:
    """Columns in which no value begins with a letter are aligned to the right. Short names do not wrap."""
    if not any(re.match(r"[^\W\d]", value) for value in values):
        return "number"
    return "name" if max(map(len, values)) < SHORT else ""


def _cell(value: str, kind: str) -> tuple[str, list[str]]:
    """Brackets behind a number (its interval, its n) stand below it, in smaller type."""
    number, *asides = re.split(r" (?=[\[(])", value) if kind == "number" else [value]
    return number, asides


def _linked(page: str) -> set[str]:
    kinds = "|".join((*FIGURES, *TABLES))
    return set(re.findall(rf'<a href="((?:figures|tables)/[\w-]+\.(?:{kinds}))">', page))


def _inline(plain: str, drawn: Drawn, tip: Tip, method: bool) -> str:
    """A file's SVG as that of a page: themed, with a spot on every value that says what it is.

    Series become classes of the page by `data-series`, so that their check box hides them; those of training runs
    (`method` false) are no methods and stay.
    """
    series = "data-series" if method else "data-run"
    text = plain.replace(f'id="{SERIES}', f'{series}="').replace('id="frontier"', "")
    text = re.sub(r"stroke: #ffffff\b", "stroke: var(--paper)", text)
    text = re.sub(r"#[0-9a-f]{6}\b", _themed, text)
    # The size is the page's affair; the view box stays.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(drawn.caption)}" ', 1)
    spots = (
        f'<{shape} {series}="{escape(name)}" data-tip="{escape(told)}"/>'
        for shape, name, told in _spots(drawn.figure, tip)
    )
    return text.rsplit("</svg>", 1)[0] + f'<g class="spots">{"".join(spots)}</g></svg>'


def _themed(match: re.Match[str]) -> str:
    colour = match.group()
    names = {INK: "--ink", GRID: "--grid"} | {own: f"--c-{own[1:]}" for own in COLOURS if own != INK}
    return f"var({names[colour]}, {colour})" if colour in names else colour


def _spots(figure: "Figure", tip: Tip) -> Iterator[tuple[str, str, str]]:
    """Shape, series and text of each value, on a canvas of 72 points an inch whose y points down."""
    from matplotlib.patches import Rectangle

    scale, height = 72 / figure.dpi, figure.get_figheight() * 72
    for panel, axes in enumerate(figure.axes):
        for line in axes.lines:
            series = _series(line)
            for x, y in np.asarray(line.get_xydata()) if series and line.get_marker() not in CAPS else ():
                px, py = axes.transData.transform((x, y)) * scale
                shape = f'circle cx="{px:.1f}" cy="{height - py:.1f}" r="{POINT}"'
                yield shape, series, tip(panel, series, float(x), float(y))
        for bar in axes.patches:
            series = _series(bar)
            if series and isinstance(bar, Rectangle):
                bottom, top = bar.get_y(), bar.get_y() + bar.get_height()
                (_, low), (_, high) = axes.transData.transform([(1, bottom), (1, top)]) * scale
                (left, _), (right, _) = axes.bbox.get_points() * scale
                size = f'width="{right - left:.1f}" height="{high - low:.1f}"'
                told = tip(panel, series, bar.get_width(), (bottom + top) / 2)
                yield f'rect x="{left:.1f}" y="{height - high:.1f}" {size}', series, told


def _series(artist: "Artist") -> str:
    """Its name; nothing for an artist that belongs to none."""
    return str(artist.get_gid()).partition(SERIES)[2]
