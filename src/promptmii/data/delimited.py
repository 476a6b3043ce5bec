"""Reads delimited text such as CSV and TSV, and detects its header, delimiter and use of quotes.

Detection uses every available line. Values stay as written: "NA", "null" and "007" are texts.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, zip_longest
from typing import Any, Literal

from promptmii.data.labels import one_line
from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Table, make_table
from promptmii.errors import DataError
from promptmii.messages import counted, listed

DELIMITERS = ",;\t|"
NO_DELIMITER = "\x1f"
"""The delimiter of a one-column table: a control character that texts do not contain."""
FIELD_LIMIT = 1 << 30
"""Maximum characters per cell. The csv module's default would reject a whole table for one long text."""
PREAMBLE = 20
"""The header is among this many first rows."""
REGULAR = 0.9
"""A delimiter is plausible if at least this share of rows is as wide as the header."""
STREAMED_LINES = 1000
"""Lines that decide the layout of a streamed file."""
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*$', re.IGNORECASE | re.DOTALL)
"""Excel's declaration of the delimiter, such as "sep=;"."""
_NO_ROW = re.compile(r"[\s\x1a+=-]*|\s*\(?\d+ rows?( affected| selected| in set)?( \([\d.]+ sec\))?\.?\)?\s*")
"""A line between or below rows: spaces, the end mark of DOS, or a database client's rule or number of rows."""
_JSON = re.compile(r"[\[{](\s*[\[{\"]|$)")
"""The start of a JSON file."""
_UNREADABLE = "not readable as CSV; a quote at the beginning of a cell must be closed at its end."
Quotes = Literal["enclose", "after spaces", "escaped", "text"]
"""The role of double quotes: they enclose cells; also after spaces; also with inner quotes written \\"; or they are
ordinary characters."""
Skip = Callable[[str], None]


@dataclass(frozen=True)
class Layout:
    """A detected layout and how well it fits the file."""

    delimiter: str
    quotes: Quotes
    start: int = 0
    """Lines before the header."""
    preamble: int = 0
    """Non-blank rows before the header."""
    width: int = 1
    """Cells in the header."""
    regular: float = 0.0
    """The share of rows as wide as the header."""
    rows: int = 0
    """Rows below the header."""
    row_names: bool = False
    """Rows begin with a number that the header does not name, as R's `write.table` writes them."""


def read_delimited(text: str, origin: str, delimiter: str | None = None) -> Table:
    """Read a CSV or TSV. Raises `DataError` naming the first malformed line."""
    lines = list(io.StringIO(text, newline=""))
    _refuse_json(lines, origin)
    layout = find_layout(lines, delimiter)
    rows = list(_rows(lines, layout, origin, None))
    if not rows:
        raise DataError(f"{origin} has a header and no rows.")
    notes = (f"{counted(layout.preamble, 'line')} above the header skipped",) if layout.preamble else ()
    return make_table(rows, origin, notes)


def csv_rows(
    lines: Iterable[str], origin: str, delimiter: str | None = None, *, skip: Skip | None = None
) -> Iterator[dict[str, Any]]:
    """Stream the rows of a CSV; its first lines decide the layout.

    A malformed row raises `DataError`; with `skip`, the message goes to `skip` and reading continues.
    """
    lines = iter(lines)
    first_lines = list(islice(lines, STREAMED_LINES))
    _refuse_json(first_lines, origin)
    quotes = sum(line.count('"') for line in first_lines)
    for line in islice(lines, STREAMED_LINES) if quotes % 2 else ():  # to the end of a cell of several lines
        first_lines.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0:
            break
    layout = find_layout(first_lines, delimiter)
    yield from _rows(chain(first_lines, lines), layout, origin, skip)


def _refuse_json(lines: Sequence[str], origin: str) -> None:
    if _JSON.match(next(filter(str.strip, lines), "").strip()):
        raise DataError(f"{origin} holds JSON, despite its ending. Give it the ending .json or .jsonl.")


def find_layout(lines: Sequence[str], delimiter: str | None = None) -> Layout:
    """Detect the layout that makes rows as wide as the header.

    Among plausible layouts, prefer few lines above the header, then regular rows, then many columns.
    """
    csv.field_size_limit(FIELD_LIMIT)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    first_line = lines[first] if lines else ""
    start = 0
    if declared := _SEPARATOR_LINE.match(first_line.rstrip("\r\n")):
        delimiter, start = declared[1], first + 1
    top = "".join(lines[start : first + PREAMBLE])
    candidates = [delimiter] if delimiter and delimiter in top else [mark for mark in DELIMITERS if mark in top]
    for size in dict.fromkeys((min(len(lines), STREAMED_LINES), len(lines))):  # a cheap first pass rules most out
        layouts = [_layout(lines[:size], mark, start) for mark in candidates]
        plausible = [layout for layout in layouts if layout.width > 1 and layout.regular >= REGULAR]
        if plausible and size == len(lines):
            return max(plausible, key=lambda layout: (-layout.preamble, layout.regular, layout.width))
        candidates = [layout.delimiter for layout in plausible] or candidates
    likeliest = max(candidates, key=first_line.count, default=NO_DELIMITER)
    return _layout(lines, likeliest if likeliest in first_line else NO_DELIMITER, start)


def _layout(lines: Sequence[str], delimiter: str, start: int) -> Layout:
    """Decide what quotes mean: they enclose cells, unless rows are regular only with quotes as ordinary characters.

    Spaces before a quote belong to the cell only if rows are irregular otherwise.

    If rows are regular either way, quotes are ordinary when enclosing would merge lines: any lines in a tab-separated
    file, most lines in other files, whose cells may well contain line breaks.
    """
    quoted = _measure(lines, delimiter, start, "enclose")
    if not any('"' in line for line in lines):
        return quoted
    spaced = re.compile(re.escape(delimiter) + ' +"(?!")')
    if any(map(spaced.search, lines)):
        quoted = max(_measure(lines, delimiter, start, "after spaces"), quoted, key=lambda layout: layout.regular)
    if any('\\"' in line for line in lines):
        quoted = max(quoted, _measure(lines, delimiter, start, "escaped"), key=lambda layout: layout.regular)
    unquoted = _measure(lines, delimiter, start, "text")
    if unquoted.regular < 1 or (unquoted.width == 1 and delimiter != NO_DELIMITER):
        return quoted
    if quoted.regular < 1:
        return unquoted
    if unquoted.width == 1:
        return quoted
    if delimiter == "\t":
        merges_lines = quoted.rows < unquoted.rows
    else:
        merges_lines = unquoted.rows > PREAMBLE / 2 and quoted.rows < unquoted.rows / 2
    return unquoted if merges_lines else quoted


def _measure(lines: Sequence[str], delimiter: str, start: int, quotes: Quotes) -> Layout:
    """Find the header, given the role of quotes, and count the rows that are as wide."""
    layout = Layout(delimiter, quotes, start)
    first_rows: list[tuple[int, list[str]]] = []  # line and cells
    sizes: list[tuple[int, int] | None] = []  # cells and filled cells of each row, or None if it is malformed
    for line, cells in _records(lines, layout):
        filled = _filled(cells or ())
        if cells is None or filled:
            sizes.append((len(cells), filled) if cells is not None else None)
            if len(first_rows) < PREAMBLE:
                first_rows.append((line, cells or []))
    widths = Counter(size[0] for size in sizes if size)
    if not widths:
        return layout
    header = find_header([cells for _, cells in first_rows], widths.most_common(1)[0][0])
    header_line, header_cells = first_rows[header]
    row_names = _have_row_names(header_cells, [cells for _, cells in first_rows[header + 1 :]])
    width = max(len(header_cells), 1) + row_names
    below = sizes[header + 1 :]
    fitting = sum(size is not None and size[1] <= width <= size[0] for size in below)
    return Layout(delimiter, quotes, header_line, header, width, fitting / max(len(below), 1), len(below), row_names)


def _have_row_names(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row begins with a number of its own and is one cell longer than the header."""
    numbers = {row[0] for row in rows if len(row) == len(header) + 1 and row[0].isdecimal() and row[-1].strip()}
    return len(header) > 1 and all(map(str.strip, header)) and len(numbers) == len(rows) > 1


def find_header(rows: Sequence[Sequence[str]], width: int) -> int:
    """The index of the header among the first rows of a table with `width` columns.

    The header is the first row unless that is a remark (#) or a title. A row is a title if only its first cell is
    filled, if a later row names both a text and a label column, or if it has fewer filled cells than most rows and the
    first full row does not look like data.
    """
    named = next((n for n, row in enumerate(rows) if _has(row, TEXT_NAMES) and _has(row, LABEL_NAMES)), None)
    if named is not None and not any(_filled(row) > 1 and _has(row, TEXT_NAMES) for row in rows[:named]):
        return named
    usual = Counter(map(_filled, rows)).most_common(1)[0][0] if rows else 0
    full = next((number for number, row in enumerate(rows) if _filled(row) >= usual), 0)
    if full and _may_be_header(rows[full:]) and not any(_has(row, TEXT_NAMES) for row in rows[:full]):
        return full
    for number, row in enumerate(rows):
        is_title = _filled(row) == 1 and width > 1 and not _has(row, TEXT_NAMES)
        is_remark = bool(row) and row[0].lstrip().startswith("#") and len(row) != width
        if not is_title and not is_remark:
            return number
    return 0


def _may_be_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether values repeat below the first row, but none of its own cells is a number or occurs again below it."""
    columns = [set(column) for column in zip_longest(*rows[1:], fillvalue="")]
    if not any(len(values) < len(rows) - 1 for values in columns):
        return False
    cells = [(cell, values) for cell, values in zip(rows[0], columns, strict=False) if cell.strip()]
    return not any(cell in values or cell.strip().isdecimal() for cell, values in cells)


def _has(row: Sequence[str], names: Sequence[str]) -> bool:
    return any(cell.strip().casefold() in names for cell in row)


def _filled(cells: Sequence[str]) -> int:
    """The number of cells up to the last non-blank one."""
    return next((number for number in range(len(cells), 0, -1) if cells[number - 1].strip()), 0)


def _records(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str] | None]]:
    """The number of lines before each non-blank row, and its cells, or `None` if the row is malformed."""
    lines = islice(lines, layout.start, None)
    if layout.quotes == "escaped":
        lines = (line.replace('\\"', '""') for line in lines)
    reader = csv.reader(
        lines,
        delimiter=layout.delimiter,
        strict=True,
        quoting=csv.QUOTE_NONE if layout.quotes == "text" else csv.QUOTE_MINIMAL,
        skipinitialspace=layout.quotes == "after spaces",
    )
    while True:
        lines_before = layout.start + reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error:
            yield lines_before, None
            continue
        if cells is None:
            return
        if cells and (len(cells) > 1 or layout.delimiter == NO_DELIMITER or not _NO_ROW.fullmatch(cells[0])):
            yield lines_before, [_unquoted(cell) for cell in cells] if layout.quotes == "text" else cells


def _unquoted(cell: str) -> str:
    """The content of a properly quoted cell, whose inner quotes are doubled; any other cell unchanged."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _rows(lines: Iterable[str], layout: Layout, origin: str, skip: Skip | None) -> Iterator[dict[str, Any]]:
    records = _records(lines, layout)
    lines_before, cells = next(records, (0, []))
    if cells is None:
        raise DataError(f"{origin}, line {lines_before + 1}: the names of the columns are {_UNREADABLE}")
    header = [""] * layout.row_names + header_names(cells)
    names = [name for name in header if name]
    all_named = len(names) == len(header)
    for lines_before, cells in records:
        if cells is None:
            fault = _UNREADABLE
        elif all_named and len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))  # the fast path for most rows
            continue
        elif _filled(header) <= len(cells) and _filled(cells) <= len(header):
            yield named_cells(header, cells)
            continue
        else:
            fault = (
                f"{counted(len(cells), 'field')}, expected {len(header)} ({listed(names)}). "
                f"Put texts that hold {layout.delimiter!r} or line breaks in double quotes."
            )
            if len(cells) == 1:
                fault += " If it is a remark, remove it."
        message = f"{origin}, line {lines_before + 1}: {fault}"
        if skip is None:
            raise DataError(message)
        skip(message)


def header_names(cells: Sequence[str]) -> list[str]:
    """The column names; empty for an unnamed column. Equal names are numbered: "Labels (1)", "Labels (2)"."""
    header = [one_line(cell) for cell in cells]
    repeated = {name: count(1) for name, n in Counter(header).items() if name and n > 1}
    if not repeated:
        return header
    return header_names([f"{name} ({next(repeated[name])})" if name in repeated else name for name in header])


def named_cells(header: Sequence[str], cells: Sequence[Any]) -> dict[str, Any]:
    """The cells of a row by column name. An unnamed column is numbered, and left out if its cell is empty."""
    columns = enumerate(zip(header, cells, strict=False), 1)
    return {name or f"column {number}": cell for number, (name, cell) in columns if name or cell not in (None, "")}
