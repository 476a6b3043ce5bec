"""Prints to the terminal: results to standard output, everything else to standard error.

Labels, texts and server messages are printed literally. Rich's markup and emoji codes are off, and control characters,
which could move the cursor or change colours, are shown as escapes such as `\\x1b`.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from promptmii.messages import WARNING

# C0 except tab and newline, C1, bidirectional marks, line separators, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """The text with control characters shown as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def styled(text: str, style: str = "") -> Text:
    """Literal text in a style, for a table cell or for printing."""
    return Text(escaped(text), style)


NARROWEST = 20
"""Columns to assume at least, even if the terminal reports fewer."""
WIDEST = 10_000
"""Columns that fit any table."""


class Terminal(Console):
    """A console that prints every string literally."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < NARROWEST:  # COLUMNS=0 would print nothing
            self.width = NARROWEST

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape every string that rich prints: arguments of `print`, table cells and titles."""
        return super().render_str(escaped(text), **options)

    def write_line(self, text: str, style: str = "") -> None:
        """Print one line without line breaks. A terminal wraps it, a file keeps it whole."""
        self.print(styled(text, style), soft_wrap=True)

    def write_table(self, grid: Table) -> None:
        """Print a table, or one line per cell if the terminal is too narrow."""
        title, grid.title = grid.title, None
        if title:  # printed separately, because rich wraps it to the width of the table
            self.print(title)
        for column in grid.columns:
            if column.no_wrap:  # rich counts its longest word, and would then cut or hide another column
                cells = (column.header, *column.cells)
                column.min_width = max(Measurement.get(self, self.options, cell).maximum for cell in cells)
        if Measurement.get(self, self.options.update(width=WIDEST), grid).minimum <= self.width:
            self.print(grid)
            return
        headers = [str(column.header) for column in grid.columns]
        for first, *cells in zip(*(map(str, column.cells) for column in grid.columns), strict=True):
            self.write_line(first, "bold")
            for header, cell in zip(headers[1:], cells, strict=True):
                if cell:
                    self.write_line(f"  {header} {cell}")


PROCESS = int(os.environ["RANK"]) if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 0
"""The rank of this process under torchrun, else 0. Ranks above 0 print only errors."""
out = Terminal(quiet=PROCESS > 0)
err = Terminal(stderr=True)


def tolerate_encodings() -> None:
    """Make the streams escape characters that their encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Print one line of information."""
    if not PROCESS:
        err.write_line(line)


def warn(message: str, *, word: str = "Warning:") -> None:
    """Print a warning among the results."""
    out.print(styled(word, "yellow"), styled(message), soft_wrap=True)


def error(message: str) -> None:
    """Print an error on one line."""
    prefix = [f"Process {PROCESS}:"] if PROCESS else []
    err.print(*prefix, styled("Error:", "bold red"), styled(" ".join(message.splitlines())), soft_wrap=True)


def interactive() -> bool:
    """True if a user can answer questions."""
    return sys.stdin.isatty() and err.is_terminal


def confirmed(question: str, *, default: bool = False) -> bool:
    """The user's answer to a question. False without a terminal, because nobody can agree there."""
    from rich.prompt import Confirm

    return interactive() and Confirm.ask(styled(question), console=err, default=default)


def dump(value: Any) -> None:
    """Print JSON to standard output."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, indent=2, default=str)
    data(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


def data(text: str) -> None:
    """Write output for another program. It is unchanged in a pipe or file, and escaped on a terminal."""
    if not PROCESS:
        sys.stdout.write(escaped(text) if out.is_terminal else text)


def notes(lines: Iterable[str]) -> None:
    """Print notes, for example on detected columns and dropped rows. Warnings stand out."""
    for line in lines:
        if WARNING in line:
            warn(line.replace(WARNING, "", 1))
        else:
            out.write_line(f"· {line}", "dim")


def table(title: str, first: str, *numbers: str) -> Table:
    """An empty table with a column of names and columns of numbers."""
    grid = Table(
        title=styled(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    grid.add_column(styled(first))
    for name in numbers:
        grid.add_column(styled(name), justify="right", no_wrap=True)
    return grid


def count(number: float | None) -> str:
    """A rounded number with thousands separators, or "unknown"."""
    return "unknown" if number is None else f"{number:,.0f}"


def facts(rows: Mapping[str, str]) -> None:
    """Print names and values, one pair per line."""
    grid = Table(show_header=False, box=None)
    for name, value in rows.items():
        grid.add_row(styled(name, "dim"), styled(value))
    out.print(grid)
