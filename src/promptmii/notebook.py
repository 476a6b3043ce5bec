"""How results look in a notebook: HTML that needs no style sheet. Whatever it shows is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

_TEXT = "white-space:pre-wrap;text-align:left;border-left:3px solid;padding:.2em .8em;margin:.4em 0;max-width:60em"


def text_html(text: str) -> str:
    """A text as it is, line breaks included."""
    return f'<div style="{_TEXT}">{escape(text)}</div>'


def facts_html(facts: Mapping[str, object]) -> str:
    """A name and a value on each line."""
    return table_html((), list(facts.items()))


def table_html(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; `None` is an empty cell."""
    lines = ["".join(f"<th>{escape(head)}</th>" for head in heads)] if heads else []
    lines += ["".join(f"<td>{'' if cell is None else escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def brief(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1] + "…"
