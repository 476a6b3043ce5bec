"""Excel workbooks, through openpyxl (`pip install 'promptmii[xlsx]'`)."""

import io
import warnings
import zipfile
import zlib
from itertools import chain
from typing import Any
from xml.etree.ElementTree import ParseError

from promptmii.data.delimited import PREAMBLE, find_header, header_names, named_cells
from promptmii.data.table import Table, make_table
from promptmii.errors import DataError, MissingDependencyError, counted

DAMAGED = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ParseError),
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError),
)
"""Errors of openpyxl, zipfile and the XML parser for a file that is not a workbook."""


def read_workbook(content: bytes, origin: str) -> Table:
    """The first sheet of two columns or more, or else the first that holds anything. Raises `DataError`."""
    try:
        import openpyxl
        from openpyxl.utils.escape import unescape
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise MissingDependencyError("An Excel workbook", "xlsx") from error
    sheets: dict[str, list[list[Any]]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which hold no values
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            for sheet in book.worksheets:
                # Excel writes a carriage return within a cell as _x000D_.
                rows = [
                    [unescape(cell) if isinstance(cell, str) and "_x" in cell else cell for cell in row]
                    for row in sheet.iter_rows(values_only=True)
                ]
                sheets[str(sheet.title)] = [row for row in rows if any(cell is not None for cell in row)]
            book.close()
    except (*DAMAGED, InvalidFileException) as error:
        raise DataError(f"{origin} is not a readable workbook: {error}. Save it again as .xlsx, or as CSV.") from error
    filled = {name: rows for name, rows in sheets.items() if rows}
    wide = (name for name, rows in filled.items() if any(sum(cell is not None for cell in row) > 1 for row in rows))
    name = next(chain(wide, filled), "")
    rows = filled.get(name, [])
    if len(rows) < 2:
        raise DataError(f"{origin} has no sheet with a header and rows.")
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows[:PREAMBLE]]
    number = find_header(texts, max(map(len, texts)))
    header = header_names(texts[number], origin)
    notes = [f"sheet {name!r} of {len(sheets)}"] if len(sheets) > 1 else []
    notes += [f"{counted(number, 'line')} above the header skipped"] if number else []
    return make_table([named_cells(header, row) for row in rows[number + 1 :]], origin, tuple(notes))
