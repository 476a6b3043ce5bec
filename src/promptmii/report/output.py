"""The folder of a report: the page, and every figure and table of it as files beside it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptmii.errors import OutputError
from promptmii.files import atomic_file, write_text
from promptmii.report.drawing import pdf, png
from promptmii.report.markup import FIGURES, TABLES, Tip, figure_html, inline_svg, table_html
from promptmii.report.tables import Table, tex, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def figure(self, drawn: "Figure", name: str, caption: str, tip: Tip, *, method: bool = True) -> str:
        """Write a figure as SVG, PNG, PDF, and LaTeX that shows the PDF; its HTML."""
        plain, themed = inline_svg(drawn, tip, method=method)
        write_text(self.out / "figures" / f"{name}.svg", plain, force=True)
        for kind, content in (("png", png(drawn)), ("pdf", pdf(drawn))):
            with atomic_file(self.out / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
        lines = (
            *(r"\begin{figure}", r"\centering", rf"\includegraphics[width=\linewidth]{{{name}.pdf}}"),
            *(rf"\caption{{{tex(caption)}}}", rf"\label{{fig:{name}}}", r"\end{figure}", ""),
        )
        write_text(self.out / "figures" / f"{name}.tex", "\n".join(lines), force=True)
        return figure_html(themed, name, caption)

    def table(self, table: Table, *, sortable: bool = True, rows: int | None = None) -> str:
        """Write a table as CSV, Markdown and LaTeX; its HTML."""
        write([table], self.out / "tables")
        return table_html(table, sortable=sortable, rows=rows)


def _linked(page: str) -> set[str]:
    """The files that `file_links` made links to."""
    kinds = "|".join((*FIGURES, *TABLES))
    return set(re.findall(rf'<a href="((?:figures|tables)/[\w-]+\.(?:{kinds}))">', page))
