"""Reads Excel workbooks with openpyxl (`pip install 'promptmii[xlsx]'`)."""

import io
import re
import warnings
import zipfile
import zlib
from typing import Any
from xml.etree.ElementTree import ParseError

from promptmii.data.delimited import PREAMBLE, find_header, header_names, named_cells
from promptmii.data.table import Table, make_table
from promptmii.errors import DataError, required_by
from promptmii.messages import counted

OPEN_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ParseError),
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError),
)
"""Errors that openpyxl, zipfile and the XML parser raise for a damaged workbook or another kind of file."""
_MERGED = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref=["']([A-Z]+)(\d+):[A-Z]+(\d+)["']""")
"""The first column, first row and last row of merged cells. openpyxl, when it reads only, does not report them."""


def read_workbook(content: bytes, origin: str) -> Table:
    """Read the first sheet with a header, rows and at least two columns, or else the first with a header and rows.

    Hidden sheets, which hold the lists of forms, count only if all are hidden. Raises `DataError`.
    """
    with required_by("An Excel workbook", "xlsx"):
        from openpyxl.reader.excel import ExcelReader
        from openpyxl.utils.escape import unescape
        from openpyxl.utils.exceptions import InvalidFileException
    sheets: dict[str, list[list[Any]]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which do not affect values
            reader = ExcelReader(io.BytesIO(content), read_only=True, data_only=True)
            reader.read()
            book = reader.wb
            parts = {sheet.name: part.target for sheet, part in reader.parser.find_sheets()}
            n_sheets = len(book.worksheets)
            for sheet in [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets:
                sheet.reset_dimensions()  # some programs store a range that leaves out rows or columns
                # Excel writes a carriage return within a cell as _x000D_.
                rows = [
                    [unescape(cell) if isinstance(cell, str) and "_x" in cell else cell for cell in row]
                    for row in sheet.iter_rows(values_only=True)
                ]
                _fill_merged(rows, reader.archive.read(parts[sheet.title]))
                sheets[str(sheet.title)] = [row for row in rows if any(cell is not None for cell in row)]
            book.close()
    except (*OPEN_ERRORS, InvalidFileException) as error:
        raise DataError(
            f"{origin} is not a readable workbook: {error}. Save it again as .xlsx without a password, or as CSV."
        ) from error
    headers = {name: _header_row(rows) for name, rows in sheets.items()}
    tables = [name for name, rows in sheets.items() if len(rows) > headers[name] + 1]
    wide = [name for name in tables if any(sum(cell is not None for cell in row) > 1 for row in sheets[name])]
    sheet_name = next(iter(wide or tables), "")
    rows = sheets.get(sheet_name, [])
    if not rows:
        raise DataError(f"{origin} has no sheet with a header and rows.")
    header_row = headers[sheet_name]
    header = header_names(_texts(rows)[header_row])
    notes = [f"sheet {sheet_name!r} of {n_sheets}"] if n_sheets > 1 else []
    notes += [f"{counted(header_row, 'line')} above the header skipped"] if header_row else []
    return make_table([named_cells(header, row) for row in rows[header_row + 1 :]], origin, tuple(notes))


def _header_row(rows: list[list[Any]]) -> int:
    first_rows = _texts(rows)
    return find_header(first_rows, len(first_rows[0])) if first_rows else 0


def _texts(rows: list[list[Any]]) -> list[list[str]]:
    """The first rows as texts, all as long as the longest row."""
    width = max(map(len, rows), default=0)
    return [["" if cell is None else str(cell) for cell in row] + [""] * (width - len(row)) for row in rows[:PREAMBLE]]


def _fill_merged(rows: list[list[Any]], part: bytes) -> None:
    """Repeat the value of cells merged below the header, such as a label beside several texts, in each filled row.

    The file holds it in the first row only. `part` is the sheet's XML.
    """
    from openpyxl.utils import column_index_from_string

    header = next((n for n, row in enumerate(rows, 1) if sum(cell is not None for cell in row) > 1), len(rows))
    for name, first, last in _MERGED.findall(part):
        column, top = column_index_from_string(name.decode()) - 1, int(first)
        if header < top <= len(rows) and column < len(rows[top - 1]):
            for row in rows[top : int(last)]:
                if any(cell is not None for cell in row):
                    row.extend([None] * (column + 1 - len(row)))
                    row[column] = rows[top - 1][column]
