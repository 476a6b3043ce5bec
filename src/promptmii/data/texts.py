"""Reads texts without labels, streamed row by row, so that a table may be larger than memory."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from promptmii.data.columnar import parquet_rows
from promptmii.data.columns import choose_columns, with_fields
from promptmii.data.decoding import check_is_data, check_is_text, decode, encoding_of, path_name
from promptmii.data.delimited import NO_DELIMITER, STREAMED_LINES, csv_rows, find_layout
from promptmii.data.json_tables import json_line_rows
from promptmii.data.readers import (
    SEQUENCE,
    Source,
    data_errors,
    format_of,
    is_compressed,
    open_decompressed,
    read_decompressed,
    read_table,
    supported_format,
)
from promptmii.data.table import Row, clean_row, make_table, require_rows
from promptmii.errors import DataError
from promptmii.progress import QUIET, Progress
from promptmii.table_formats import LINES

HEAD_ROWS = 1000
"""Rows used to detect the text column."""
HEAD_BYTES = 1 << 16
"""Bytes used to detect the encoding of a file."""
PROGRESS_EVERY = 1000
"""Rows between two progress updates."""


@dataclass(frozen=True)
class Texts:
    """Rows and the text of each, which may be empty. Every iteration reads the source again."""

    columns: tuple[str, ...]
    n: int
    """The number of rows."""
    key: str
    """Content hash of all rows, the text columns and the template."""
    _read_rows: Callable[[], Iterator[Row]]
    _text_of: Callable[[Row], str]

    def __iter__(self) -> Iterator[tuple[Row, str]]:
        for partial_row in self._read_rows():
            row = {name: partial_row.get(name) for name in self.columns}
            yield row, self._text_of(row)


def read_texts(source: Source, text: str | Sequence[str] | None = None, progress: Progress = QUIET) -> Texts:
    """Read texts without labels, from any `Source` or a list of strings. No row is dropped.

    Every row is read once before this returns, so that no text is sent to a model if a later row cannot be read.
    Line-based and Parquet files are never held in memory. Raises `DataError`.
    """
    progress.step("Reading the rows")
    origin, read_rows = _open(source)
    head = require_rows(make_table(islice(read_rows(), HEAD_ROWS), origin))
    # Text files and sequences of strings have no column names, so use their only column whatever name is given.
    is_text_file = isinstance(source, str | Path) and format_of(Path(source)) == ".txt"
    if (is_text_file or origin == SEQUENCE) and head.columns == ("text",):
        text = "text"
    columns = dict.fromkeys(head.columns)
    chosen = choose_columns(with_fields(head, text), text, None, labelled=False)
    for note in chosen.notes:
        progress.note(f"{note[0].upper()}{note[1:]}.")
    digest = hashlib.blake2b(repr((chosen.text, chosen.template)).encode(), digest_size=16)
    n = 0
    for row in read_rows():
        if not row.keys() <= columns.keys():
            columns |= dict.fromkeys(row)
        chosen.render(row)  # raises if a value is not text
        digest.update(repr(list(row.items())).encode("utf-8", "surrogatepass"))
        n += 1
        if n % PROGRESS_EVERY == 0:
            progress.advance(PROGRESS_EVERY)
    return Texts(tuple(columns), n, digest.hexdigest(), read_rows, chosen.render)


class CsvStyle(NamedTuple):
    """How a CSV file is written, apart from its cells."""

    delimiter: str = ","
    mark: str = ""
    """The byte order mark at its beginning, or nothing. Excel reads UTF-8 only with one."""


COMMAS = CsvStyle()


def csv_style(source: Source) -> CsvStyle:
    """The style of a CSV file that can be read; the default for any other source."""
    path = Path(source) if isinstance(source, str | Path) else None
    if not (path and path.is_file() and format_of(path) == ".csv"):
        return COMMAS
    encoding = encoding_of(_read_head(path))
    with open_decompressed(path) as file, io.TextIOWrapper(file, encoding, "replace", newline="") as lines:
        delimiter = find_layout(list(islice(lines, STREAMED_LINES))).delimiter
    mark = "\ufeff" if encoding in ("utf-8-sig", "utf-16", "utf-32") else ""
    return CsvStyle("," if delimiter == NO_DELIMITER else delimiter, mark)


def _open(source: Source) -> tuple[str, Callable[[], Iterator[Row]]]:
    """The origin of a source, and a function that reads its rows from the beginning."""
    if isinstance(source, str | Path) and not str(source).startswith("hub:"):
        path = Path(source)
        with data_errors(path):
            reader = None if path.is_dir() else _streaming_reader(path)
        if reader:
            return path_name(path), lambda: _stream(path, reader)
    table = read_table(source)
    return table.origin, lambda: iter(table.rows)


_Reader: TypeAlias = Callable[[Path], Iterator[Row]]


def _streaming_reader(path: Path) -> _Reader | None:
    """A function that streams the rows of a file, or `None` if the file must be read whole."""
    suffix = supported_format(path)
    head = _read_head(path)
    check_is_data(head, path_name(path))
    if suffix == ".parquet":
        return None if is_compressed(path) else parquet_rows
    if suffix not in (*LINES, ".txt"):
        return None
    if not head.strip() and suffix != ".txt":
        raise DataError(f"{path} is empty.")
    check_is_text(head, path_name(path))
    if head.isascii() and _has_escapes(path):  # maybe ISO-2022-JP, which only the whole file tells
        return None
    is_json_list = suffix in (".jsonl", ".ndjson") and head.decode(encoding_of(head), "ignore").lstrip().startswith("[")
    return None if is_json_list else _line_rows


def _stream(path: Path, reader: _Reader) -> Iterator[Row]:
    with data_errors(path):
        try:
            for row in reader(path):
                yield clean_row(row)
        except UnicodeDecodeError:
            decode(read_decompressed(path), path_name(path))  # raises an error that names the line
            raise


def _line_rows(path: Path) -> Iterator[Row]:
    """The rows of a line-based file: delimited text, JSON Lines or plain text."""
    suffix, origin, head = format_of(path), path_name(path), _read_head(path)
    delimited = suffix in (".csv", ".tsv")
    encoding = encoding_of(head)
    newline = "" if delimited else "\n" if _has_line_feed(path, encoding) else "\r"
    with open_decompressed(path) as file, io.TextIOWrapper(file, encoding, newline=newline) as lines:
        if delimited:
            yield from csv_rows(lines, origin, "\t" if suffix == ".tsv" else None)
        elif suffix == ".txt":
            yield from ({"text": line.removesuffix(newline).removesuffix("\r")} for line in lines)
        else:
            yield from json_line_rows(lines, origin)


def _has_line_feed(path: Path, encoding: str) -> bool:
    with open_decompressed(path) as file, io.TextIOWrapper(file, encoding, newline="") as text:
        return any("\n" in part for part in iter(lambda: text.read(HEAD_BYTES), ""))


def _has_escapes(path: Path) -> bool:
    with open_decompressed(path) as file:
        return any(b"\x1b" in part for part in iter(lambda: file.read(HEAD_BYTES), b""))


def _read_head(path: Path) -> bytes:
    with open_decompressed(path) as file:
        return file.read(HEAD_BYTES)
