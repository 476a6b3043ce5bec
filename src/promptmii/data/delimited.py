"""Delimited text (CSV, TSV and their kin): where the table begins, what separates its cells, what its quotes mean.

All three are decided on all lines at hand. Values stay as they were written: "NA", "null" and "007" are texts.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, Literal

from promptmii.data.labels import one_line
from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Table, make_table
from promptmii.errors import DataError, counted, listed

DELIMITERS = ",;\t|"
NO_DELIMITER = "\x1f"
"""The delimiter of a table with one column: no text holds it."""
FIELD_LIMIT = 1 << 30
"""Maximum characters of a cell: with the csv module's own limit, one long text would refuse a whole table."""
PREAMBLE = 20
"""Rows among which the header is looked for."""
REGULAR = 0.9
"""The share of rows with as many cells as the header from which a delimiter is believed."""
STREAMED_LINES = 1000
"""Lines that are looked at where a file is not read as a whole."""
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*$', re.IGNORECASE | re.DOTALL)

_JSON = re.compile(r"[\[{](\s*[\[{\"]|$)")
"""The beginning of a JSON file."""
Quotes = Literal["enclose", "after spaces", "escaped", "text"]
"""The role of double quotes: they enclose cells; also after spaces; also, written \\" within cells; none."""
Skip = Callable[[str], None]


@dataclass(frozen=True)
class Layout:
    """How a text is laid out, and how well that fits."""

    delimiter: str
    quotes: Quotes
    start: int = 0
    """Lines before the header."""
    preamble: int = 0
    """Rows among them that are not blank."""
    width: int = 1
    """Cells of a row."""
    regular: float = 0.0
    """The share of rows with that many."""
    rows: int = 0


def read_delimited(text: str, origin: str, delimiter: str | None = None) -> Table:
    """The table of a CSV or TSV. Raises `DataError` naming the first line that does not fit."""
    lines = list(io.StringIO(text, newline=""))
    layout = find_layout(lines, delimiter)
    rows = list(_rows(lines, layout, origin, None))
    if not rows:
        raise DataError(f"{origin} has a header and no rows.")
    notes = (f"{counted(layout.preamble, 'line')} above the header skipped",) if layout.preamble else ()
    return make_table(rows, origin, notes)


def csv_rows(
    lines: Iterable[str], origin: str, delimiter: str | None = None, *, skip: Skip | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a long CSV, lazily; its beginning decides the layout.

    Raises `DataError` at a row that cannot be read, or tells `skip` of it and goes on.
    """
    lines = iter(lines)
    beginning = list(islice(lines, STREAMED_LINES))
    layout = find_layout(beginning, delimiter)
    yield from _rows(chain(beginning, lines), layout, origin, skip)


def find_layout(lines: Sequence[str], delimiter: str | None = None) -> Layout:
    """The layout that most rows agree on; of equally good ones that with the fewest lines above the header."""
    csv.field_size_limit(FIELD_LIMIT)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    start, header = 0, lines[first] if lines else ""
    if declared := _SEPARATOR_LINE.match(header.rstrip("\r\n")):
        delimiter, start = declared[1], first + 1
    begin = "".join(lines[start : first + PREAMBLE])
    candidates = [delimiter] if delimiter and delimiter in begin else [mark for mark in DELIMITERS if mark in begin]
    for size in dict.fromkeys((min(len(lines), STREAMED_LINES), len(lines))):  # most are ruled out by the beginning
        layouts = {mark: _layout(lines[:size], mark, start) for mark in candidates}
        good = [mark for mark, layout in layouts.items() if layout.width > 1 and layout.regular >= REGULAR]
        candidates = good or candidates
        if good and size == len(lines):
            return max((layouts[mark] for mark in good), key=lambda one: (-one.preamble, one.regular, one.width))
    counted = {mark: header.count(mark) for mark in candidates}
    likely = max(counted, key=counted.__getitem__, default=NO_DELIMITER)
    return _layout(lines, likely if counted.get(likely) else NO_DELIMITER, start)


def _layout(lines: Sequence[str], delimiter: str, start: int) -> Layout:
    """The better reading of quotes: they enclose cells, unless only as plain characters do they leave rows regular.

    Spaces before a quote belong to the cell only where rows are irregular without them.

    Where rows are regular either way, quotes are plain if they would swallow lines: any in a tab-separated file, most
    of them in others, whose cells may well hold line breaks.
    """
    quoted = _measure(lines, delimiter, start, "enclose")
    if not any('"' in line for line in lines):
        return quoted
    spaced = re.compile(re.escape(delimiter) + ' +"(?!")')
    if any(map(spaced.search, lines)):
        quoted = max(_measure(lines, delimiter, start, "after spaces"), quoted, key=lambda one: one.regular)
    if any('\\"' in line for line in lines):
        quoted = max(quoted, _measure(lines, delimiter, start, "escaped"), key=lambda one: one.regular)
    plain = _measure(lines, delimiter, start, "text")
    if plain.regular < 1 or (plain.width == 1 and delimiter != NO_DELIMITER):
        return quoted
    share = 1 if delimiter == "\t" else 0.5
    swallows = plain.width > 1 and quoted.rows < share * plain.rows and (share == 1 or plain.rows > PREAMBLE / 2)
    return plain if quoted.regular < 1 or swallows else quoted


def _measure(lines: Sequence[str], delimiter: str, start: int, quotes: Quotes) -> Layout:
    layout = Layout(delimiter, quotes, start)
    begin: list[tuple[int, list[str]]] = []
    sizes: list[tuple[int, int] | None] = []
    """Cells of each row, and cells up to the last that holds something; `None` for a row that is no CSV."""
    for line, cells in _records(lines, layout):
        filled = _filled(cells or ())
        if cells is None or filled:
            sizes.append((len(cells), filled) if cells is not None else None)
            if len(begin) < PREAMBLE:
                begin.append((line, cells or []))
    counts = Counter(size[0] for size in sizes if size)
    if not counts:
        return layout
    header = find_header([cells for _, cells in begin], counts.most_common(1)[0][0])
    width = max(len(begin[header][1]), 1)
    below = sizes[header + 1 :]
    fitting = sum(size is not None and size[1] <= width <= size[0] for size in below)
    return Layout(delimiter, quotes, begin[header][0], header, width, fitting / max(len(below), 1), len(below))


def find_header(rows: Sequence[Sequence[str]], width: int) -> int:
    """Which of the first rows holds the names of the columns: the first, unless it is a title or a remark.

    It is a title where only its first cell is filled and the table is wider, where a later row names a text and a
    label, or where it fills fewer cells than most and the first that does not is no row of data.
    """
    named = next((n for n, row in enumerate(rows) if _names(row, TEXT_NAMES) and _names(row, LABEL_NAMES)), None)
    if named is not None and not any(len(row) > 1 and _names(row, TEXT_NAMES) for row in rows[:named]):
        return named
    usual = Counter(map(_filled, rows)).most_common(1)[0][0] if rows else 0
    full = next((number for number, row in enumerate(rows) if _filled(row) >= usual), 0)
    if full and _may_be_header(rows[full:]) and not any(_names(row, TEXT_NAMES) for row in rows[:full]):
        return full
    for number, row in enumerate(rows):
        title = _filled(row) == 1 and width > 1 and not _names(row, TEXT_NAMES)
        remark = bool(row) and row[0].lstrip().startswith("#") and len(row) != width
        if not title and not remark:
            return number
    return 0


def _may_be_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether no cell of the first row is a number, or occurs again in its column, where cells of a column do so."""
    below = [set(column) for column in zip_longest(*rows[1:], fillvalue="")]
    return any(len(others) < len(rows) - 1 for others in below) and not any(
        cell in others or cell.strip().isdecimal() for cell, others in zip(rows[0], below, strict=False) if cell.strip()
    )


def _names(row: Sequence[str], names: Sequence[str]) -> bool:
    return any(cell.strip().casefold() in names for cell in row)


def _filled(cells: Sequence[str]) -> int:
    """The number of cells up to the last that holds something."""
    return next((number for number in range(len(cells), 0, -1) if cells[number - 1].strip()), 0)


def _records(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str] | None]]:
    """The cells of each row that is not blank, with the number of lines before it; `None` for one that is no CSV."""
    plain, lines = layout.quotes == "text", islice(lines, layout.start, None)
    reader = csv.reader(
        (line.replace('\\"', '""') for line in lines) if layout.quotes == "escaped" else lines,
        delimiter=layout.delimiter,
        strict=True,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        skipinitialspace=layout.quotes == "after spaces",
    )
    while True:
        before = layout.start + reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error:
            yield before, None
            continue
        if cells is None:
            return
        if cells:
            yield before, [_unquoted(cell) for cell in cells] if plain else cells


def _unquoted(cell: str) -> str:
    """A cell without the quotes around it, where every quote within is doubled."""
    inner = cell[1:-1]
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def _rows(lines: Iterable[str], layout: Layout, origin: str, skip: Skip | None) -> Iterator[dict[str, Any]]:
    records = _records(lines, layout)
    header = header_names(next((cells for _, cells in records if cells), []), origin)
    names = [name for name in header if name]
    unnamed = len(names) < len(header)
    for before, cells in records:
        if cells is not None and len(cells) == len(header):
            yield named_cells(header, cells) if unnamed else dict(zip(header, cells, strict=True))
            continue
        if cells is not None and _filled(header) <= len(cells) and _filled(cells) <= len(header):
            yield named_cells(header, cells)
            continue
        fault = f"{origin}, line {before + 1}: " + (
            "not readable as CSV; a quote at the beginning of a cell must be closed at its end."
            if cells is None
            else f"{len(cells)} fields, expected {len(header)} ({listed(names)}). "
            f"Put texts that hold {layout.delimiter!r} or line breaks in double quotes."
        )
        if skip is None:
            raise DataError(fault)
        skip(fault)


def header_names(cells: Sequence[str], origin: str) -> list[str]:
    """The names of columns, empty for one without. Raises `DataError` for two of one name, and for what is JSON."""
    header = [one_line(cell) for cell in cells]
    names = [name for name in header if name]
    if names and _JSON.match(names[0]):
        raise DataError(f"{origin} holds JSON, whatever its ending says. Give it the ending .json or .jsonl.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"{origin}: the column name {twice[0]!r} occurs twice in the header: {listed(names)}. Rename one."
        )
    return header


def named_cells(header: Sequence[str], cells: Sequence[Any]) -> dict[str, Any]:
    """A row by column. A column without a name is kept if it holds something."""
    pairs = enumerate(zip(header, cells, strict=False), 1)
    return {name or f"column {n}": cell for n, (name, cell) in pairs if name or cell not in (None, "")}
