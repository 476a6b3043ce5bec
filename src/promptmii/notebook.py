"""Shows results in a notebook as escaped HTML without a style sheet."""

from collections.abc import Mapping, Sequence
from html import escape

_TEXT = "white-space:pre-wrap;text-align:left;border-left:3px solid;padding:.2em .8em;margin:.4em 0;max-width:60em"


def text_html(text: str) -> str:
    """A text that keeps its line breaks."""
    return f'<div style="{_TEXT}">{escape(text)}</div>'


def facts_html(facts: Mapping[str, object]) -> str:
    """Names and values, one pair per line."""
    return table_html((), list(facts.items()))


def table_html(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table. None is an empty cell."""
    lines = ["".join(f"<th>{escape(header)}</th>" for header in headers)] if headers else []
    lines += ["".join(f"<td>{'' if cell is None else escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def brief(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"
