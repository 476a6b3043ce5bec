"""The folder of a report: the page, and every figure and table of it as files beside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from promptmii.errors import OutputError
from promptmii.files import atomic_file, write_text
from promptmii.report.drawing import Drawn, pdf, png
from promptmii.report.markup import Tip, inline_svg, no_tip
from promptmii.report.tables import ReportTable, tex, write

FIGURES = ("svg", "png", "pdf", "tex")
TABLES = ("csv", "md", "tex")
SHORT = 40
"""Characters up to which a name does not wrap."""


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
        """Write a figure as SVG, PNG, PDF, and LaTeX that shows the PDF."""
        name, figure, caption = drawn.name, drawn.figure, drawn.caption
        plain, themed = inline_svg(figure, tip, caption, method=method)
        latex = (
            *(r"\begin{figure}", r"\centering", rf"\includegraphics[width=\linewidth]{{{name}.pdf}}"),
            *(rf"\caption{{{tex(caption)}}}", rf"\label{{fig:{name}}}", r"\end{figure}", ""),
        )
        texts = {"svg": plain.encode(), "tex": "\n".join(latex).encode()}
        for kind, content in (texts | {"png": png(figure), "pdf": pdf(figure)}).items():
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
    """The files that a page links to."""
    kinds = "|".join((*FIGURES, *TABLES))
    return set(re.findall(rf'<a href="((?:figures|tables)/[\w-]+\.(?:{kinds}))">', page))
