"""The one door to the terminal. Results go to standard output, everything else to standard error.

Labels, texts and messages of servers are data, printed as they stand: rich's markup and emoji codes are off, and
control characters, which could move the cursor or recolour a terminal, are shown as escapes such as `\\x1b`.
"""

import json
import os
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from promptmii.progress import QUIET, Progress

# C0 without tab and newline, C1, the marks that reorder text, line separators, and halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text with every control character spelled out."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def styled(text: str, style: str = "") -> Text:
    """Text in a style, to be put into a table or printed."""
    return Text(plain(text), style)


NARROWEST = 20
"""Least columns of a terminal, whatever it claims."""
WIDEST = 10_000
"""Columns in which any table fits."""


class Terminal(Console):
    """A console that takes every string literally."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < NARROWEST:  # COLUMNS=0 would print nothing
            self.width = NARROWEST

    def render_str(self, text: str, **options: Any) -> Text:
        """rich sends every string through here: arguments of `print`, cells and titles of tables."""
        return super().render_str(plain(text), **options)

    def write_line(self, text: str, style: str = "") -> None:
        """One line, never broken by us: a terminal wraps it, a file keeps it whole."""
        self.print(styled(text, style), soft_wrap=True)

    def write_table(self, grid: Table) -> None:
        """The table, or a line per number if the terminal is too narrow."""
        title, grid.title = grid.title, None
        if title:  # printed here, because rich breaks it at the width of the table
            self.print(title)
        if Measurement.get(self, self.options.update(width=WIDEST), grid).minimum <= self.width:
            self.print(grid)
            return
        heads = [str(column.header) for column in grid.columns]
        for first, *cells in zip(*(map(str, column.cells) for column in grid.columns), strict=True):
            self.write_line(first, "bold")
            for head, cell in zip(heads[1:], cells, strict=True):
                if cell:
                    self.write_line(f"  {head} {cell}")


PROCESS = int(os.environ["RANK"]) if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 0
"""Which of the processes that torchrun started this is. The first speaks for all; the others have only their errors."""
out = Terminal(quiet=PROCESS > 0)
err = Terminal(stderr=True)


def tolerate_encodings() -> None:
    """Spell out what the console's encoding cannot show, instead of ending with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


@contextmanager
def listening(*, quiet: bool = False) -> Generator[Progress]:
    """Progress on standard error; none when `quiet`."""
    if quiet:
        yield QUIET
        return
    from promptmii.cli.bars import listener

    with listener(err) as progress:
        yield progress


def say(line: str) -> None:
    """One line of information."""
    if not PROCESS:
        err.write_line(line)


def warn(message: str, *, word: str = "Warning:") -> None:
    """One warning, among the results."""
    out.print(styled(word, "yellow"), styled(message), soft_wrap=True)


def error(message: str) -> None:
    """One error."""
    which = [f"Process {PROCESS}:"] if PROCESS else []
    err.print(*which, styled("Error:", "bold red"), styled(" ".join(message.splitlines())), soft_wrap=True)


def interactive() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty() and err.is_terminal


def confirmed(question: str, *, default: bool = False) -> bool:
    """The answer to a question on a terminal; no without one."""
    from rich.prompt import Confirm

    return interactive() and Confirm.ask(styled(question), console=err, default=default)


def dump(value: Any) -> None:
    """One JSON object on standard output."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, indent=2, default=str)
    data(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


def data(text: str) -> None:
    """Rows for another program: unchanged into a pipe or a file, harmless on a terminal."""
    if not PROCESS:
        sys.stdout.write(plain(text) if out.is_terminal else text)


def notes(lines: Iterable[str]) -> None:
    """What was detected, dropped or cut."""
    for line in lines:
        out.write_line(f"· {line}", "dim")


def table(title: str, first: str, *numbers: str) -> Table:
    """An empty table: a column of names, then columns of numbers."""
    grid = Table(
        title=styled(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    grid.add_column(styled(first))
    for name in numbers:
        grid.add_column(styled(name), justify="right", no_wrap=True)
    return grid


def count(number: float | None) -> str:
    """A whole number for reading."""
    return "unknown" if number is None else f"{number:,.0f}"


def share(value: float | None, digits: int = 3) -> str:
    """A number from 0 to 1 without its zero, .712; nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}".removeprefix("0")


def facts(rows: Mapping[str, str]) -> None:
    """A name and a value on each line."""
    grid = Table(show_header=False, box=None)
    for name, value in rows.items():
        grid.add_row(styled(name, "dim"), styled(value))
    out.print(grid)
