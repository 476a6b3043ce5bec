"""Markdown of cards and reports."""

import re
from collections.abc import Iterable, Sequence


def one_line(text: object) -> str:
    """The text on one line, without HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(str(text).split()))


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> str:
    """A table. With `numbers`, all columns but the first are aligned on the right."""
    rule = ["---", *(["---:" if numbers else "---"] * (len(header) - 1))]
    lines = [" | ".join(one_line(cell).replace("|", "\\|") for cell in row) for row in (header, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines)
