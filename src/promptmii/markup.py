"""Tables and texts as Markdown, for cards and reports, and as HTML without a style sheet, for notebooks."""

import re
from collections.abc import Iterable, Sequence
from html import escape

_TEXT = "white-space:pre-wrap;text-align:left;border-left:3px solid;padding:.2em .8em;margin:.4em 0;max-width:60em"


def markdown_line(text: object) -> str:
    """The text on one line of Markdown, without HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(str(text).split()))


def brief(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"


def share(value: float | None, digits: int = 3) -> str:
    """A number from 0 to 1 without the leading zero, such as .712. None gives an empty string."""
    return "" if value is None else f"{value:.{digits}f}".removeprefix("0")


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> str:
    """A table in Markdown. With `numbers`, all columns but the first are aligned on the right."""
    rule = ["---", *(["---:" if numbers else "---"] * (len(header) - 1))]
    lines = [" | ".join(markdown_line(cell).replace("|", "\\|") for cell in row) for row in (header, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def table_html(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in HTML. None is an empty cell."""
    lines = ["".join(f"<th>{escape(header)}</th>" for header in headers)] if headers else []
    lines += ["".join(f"<td>{'' if cell is None else escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def text_html(text: str) -> str:
    """A text in HTML that keeps its line breaks."""
    return f'<div style="{_TEXT}">{escape(text)}</div>'
