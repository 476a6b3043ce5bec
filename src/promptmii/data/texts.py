"""Texts without labels, streamed row by row, so that a table may be of any length."""

import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from promptmii.data.columnar import parquet_rows
from promptmii.data.columns import ChosenColumns, choose_columns
from promptmii.data.decoding import check_is_text, decode, encoding_of, path_name
from promptmii.data.delimited import csv_rows
from promptmii.data.json_tables import json_line_rows
from promptmii.data.load import Source, data_errors, format_of, read_table, read_unpacked, supported_format
from promptmii.data.table import Row, clean_row, make_table
from promptmii.errors import DataError
from promptmii.progress import QUIET, Progress

HEAD = 1000
"""Rows on which the text column is chosen where none is named."""
START = 1 << 16
"""Bytes that show the encoding and the line ends of a file."""
TOLD_EVERY = 1000


@dataclass(frozen=True)
class Texts:
    """Rows with a text to label; the text is empty where a row has none. Iterating reads the source again."""

    columns: tuple[str, ...]
    n: int
    """Rows."""
    key: str
    """Content hash of all rows and of how a text is made of each."""
    _rows: Callable[[], Iterator[Row]]
    _chosen: ChosenColumns

    def __iter__(self) -> Iterator[tuple[Row, str]]:
        for row in self._rows():
            whole = {name: row.get(name) for name in self.columns}
            yield whole, self._chosen.render(whole)


def read_texts(source: Source, text: str | Sequence[str] | None = None, progress: Progress = QUIET) -> Texts:
    """Texts without labels: a table, or a list of strings. No row is dropped.

    Every row is read once before this returns, so that no text is sent if a row cannot be read. Files of lines and
    Parquet are never held in memory. Raises `DataError`.
    """
    progress.step("Reading the rows")
    origin, rows = _open(source)
    head = make_table(islice(rows(), HEAD), origin)
    # Lines and lists have no names for columns, so the only one is meant whatever the instruction's was called.
    nameless = isinstance(source, list) or (isinstance(source, str | Path) and format_of(Path(source)) == ".txt")
    known = nameless and head.columns == ("text",)
    chosen = choose_columns(head, "text" if known else text, None, labelled=False)
    columns = dict.fromkeys(head.columns)
    digest = hashlib.blake2b(repr((chosen.text, chosen.template)).encode(), digest_size=16)
    n = 0
    for row in rows():
        if not row.keys() <= columns.keys():
            columns |= dict.fromkeys(row)
        chosen.render({name: row.get(name) for name in chosen.text})  # raises for what is no text
        digest.update(repr(list(row.items())).encode("utf-8", "surrogatepass"))
        n += 1
        if n % TOLD_EVERY == 0:
            progress.advance(TOLD_EVERY)
    return Texts(tuple(columns), n, digest.hexdigest(), rows, chosen)


def _open(source: Source) -> tuple[str, Callable[[], Iterator[Row]]]:
    """A source of rows, and the function that reads them from the beginning."""
    if isinstance(source, str | Path) and not str(source).startswith("hub:"):
        path = Path(source)
        with data_errors(path):
            reader = None if path.is_dir() else _reader(path)
        if reader:
            return path_name(path), lambda: _read(path, reader)
    table = read_table(source)
    return table.origin, lambda: iter(table.rows)


_Reader: TypeAlias = Callable[[Path], Iterator[Row]]


def _reader(path: Path) -> _Reader | None:
    """The reader that reads a file row by row; `None` if it can only be read as a whole."""
    kind, packed = supported_format(path), path.suffix.lower() == ".gz"
    if kind == ".parquet":
        return None if packed else parquet_rows
    if kind not in (".csv", ".tsv", ".jsonl", ".ndjson", ".txt"):
        return None
    start = _start(path)
    if not start.strip() and kind != ".txt":
        raise DataError(f"{path} is empty.")
    check_is_text(start, path_name(path))
    one_list = start.decode(encoding_of(start), "ignore").lstrip().startswith("[")
    return None if one_list and kind in (".jsonl", ".ndjson") else _line_rows


def _read(path: Path, reader: _Reader) -> Iterator[Row]:
    with data_errors(path):
        try:
            for row in reader(path):
                yield clean_row(row)
        except UnicodeDecodeError:
            decode(read_unpacked(path), path_name(path))  # raises with the line
            raise


def _line_rows(path: Path) -> Iterator[Row]:
    kind, origin, start = format_of(path), path_name(path), _start(path)
    delimited = kind in (".csv", ".tsv")
    newline = "" if delimited else "\n" if b"\n" in start else "\r"
    with _binary(path) as file, io.TextIOWrapper(file, encoding_of(start), newline=newline) as lines:
        if delimited:
            yield from csv_rows(lines, origin, "\t" if kind == ".tsv" else None)
        elif kind == ".txt":
            yield from ({"text": line.removesuffix(newline).removesuffix("\r")} for line in lines)
        else:
            yield from json_line_rows(lines, origin)


def _start(path: Path) -> bytes:
    with _binary(path) as file:
        return file.read(START)


def _binary(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")
