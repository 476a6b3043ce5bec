"""The folder of a report: the page, and every figure and table of it as files beside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from promptmii.errors import OutputError
from promptmii.files import atomic_file, write_text
from promptmii.report.drawing import pdf, png
from promptmii.report.markup import Tip, inline_svg, no_tip
from promptmii.report.tables import ReportTable, tex, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("svg", "png", "pdf", "tex")
TABLES = ("csv", "md", "tex")
SHORT = 40
"""Characters of a name that keeps to one line."""


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
    """The folders beside the page: everything that is shown is also written there, in the same step."""

    out: Path

    @classmethod
    def at(cls, out: Path) -> "Files":
        """Make the folders. Raises `OutputError` where that cannot be done."""
        try:
            for name in ("figures", "tables"):
                (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The report folder {out} cannot be made: {error.strerror}. Give another one with -o."
            ) from error
        return cls(out)

    def page(self, text: str) -> Path:
        """Write the page, and remove what an earlier one had beside it and this one has not. Raises `OutputError`."""
        path = self.out / "index.html"
        try:
            earlier = _linked(path.read_text("utf-8", "replace")) if path.exists() else set[str]()
            write_text(path, text, force=True)
            for name in earlier - _linked(text):
                (self.out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be replaced: {error.strerror}.") from error
        return path

    def figure(
        self, drawn: "Figure", name: str, caption: str, tip: Tip = no_tip, *, method: bool = True
    ) -> ShownFigure:
        """Write a figure as SVG, PNG, PDF, and LaTeX that shows the PDF."""
        folder = self.out / "figures"
        plain, themed = inline_svg(drawn, tip, caption, method=method)
        latex = (
            *(r"\begin{figure}", r"\centering", rf"\includegraphics[width=\linewidth]{{{name}.pdf}}"),
            *(rf"\caption{{{tex(caption)}}}", rf"\label{{fig:{name}}}", r"\end{figure}", ""),
        )
        texts = {"svg": plain.encode(), "tex": "\n".join(latex).encode()}
        for kind, content in (texts | {"png": png(drawn), "pdf": pdf(drawn)}).items():
            with atomic_file(folder / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
        return ShownFigure(name, caption, Markup(themed))

    def table(self, table: ReportTable, *, most: int | None = None) -> ShownTable:
        """Write a table as CSV, Markdown and LaTeX. With `most`, the page shows only so many rows, and says so."""
        write([table], self.out / "tables")
        shown, note = table.shown.head(most) if most else table.shown, table.note
        if len(shown) < len(table.shown):
            note += f" The first {most:,} of {len(table.shown):,}; the CSV has all."
        columns = [[str(value) for value in shown.iloc[:, i]] for i in range(len(shown.columns))]
        kinds = [_kind(column) for column in columns]
        cells = [[_cell(value, kind) for value in column] for column, kind in zip(columns, kinds, strict=True)]
        head = [*zip(map(str, shown.columns), kinds, strict=True)]
        return ShownTable(table.name, table.title, note, head, [[*row] for row in zip(*cells, strict=True)])


def _kind(values: Sequence[str]) -> str:
    """Numbers stand to the right: a column where nothing begins with a letter. Short names keep to one line."""
    if not any(re.match(r"[^\W\d]", value) for value in values):
        return "number"
    return "name" if max(map(len, values)) < SHORT else ""


def _cell(value: str, kind: str) -> tuple[str, list[str]]:
    """What stands in brackets behind a number (its interval, its n) is set smaller, below it."""
    number, *asides = re.split(r" (?=[\[(])", value) if kind == "number" else [value]
    return number, asides


def _linked(page: str) -> set[str]:
    """The files beside a page that it has links to."""
    kinds = "|".join((*FIGURES, *TABLES))
    return set(re.findall(rf'<a href="((?:figures|tables)/[\w-]+\.(?:{kinds}))">', page))
