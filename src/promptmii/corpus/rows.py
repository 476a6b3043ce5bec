"""Streams rows from local or hub data files. Large files are read in evenly spread parts."""

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from promptmii.data.columnar import check_distinct
from promptmii.data.decoding import check_is_data, check_is_text, encoding_of
from promptmii.data.delimited import csv_rows
from promptmii.data.json_tables import json_line_rows
from promptmii.data.table import Row
from promptmii.errors import DataError, required_by
from promptmii.table_formats import LINES

READABLE = (".parquet", *LINES, *(f"{suffix}.gz" for suffix in LINES))
PARTS = 64
"""Parts read from a text file that is too large to read whole."""
MIB = 1 << 20
HEAD = 4096
"""Bytes that show the encoding of a file, or that it holds no data."""


@dataclass
class Reading:
    """Read limits per split, and notes on skipped and unreadable rows."""

    rows: int
    """Maximum rows, for formats that state their number of rows."""
    size: int
    """Maximum bytes, for other files."""
    skipped: Counter[str] = field(default_factory=Counter[str])
    """Skipped rows by reason."""
    faults: list[str] = field(default_factory=list[str])
    """The first errors in unreadable rows, with their positions."""
    notes: list[str] = field(default_factory=list[str])

    def skip(self, fault: str) -> None:
        """Count an unreadable row."""
        self.skipped["not readable"] += 1
        if len(self.faults) < 3:
            self.faults.append(fault)


def read_rows(urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Rows from the files of one split: paths or `hf://` addresses with a suffix in `READABLE`. Raises `DataError`."""
    with required_by("promptmii corpus", "corpus"):
        from fsspec.core import url_to_fs

    locations = [url_to_fs(url) for url in urls]
    sizes = [int(fs.size(path) or 0) for fs, path in locations]
    fits = sum(sizes) <= reading.size
    if not fits and not urls[0].lower().endswith((".parquet", ".gz")):
        reading.notes.append(
            f"{sum(sizes) / MIB:.0f} MiB; {reading.size / MIB:.0f} MiB in evenly spread parts were read"
        )
    # With many files, read only every k-th, so that each part read is worth its request.
    step = max(1, len(urls) * MIB // max(reading.size, MIB))
    chosen = range(0, len(urls), step)
    if step > 1:
        reading.notes.append(f"only {len(chosen)} of {len(urls)} files were read")
    share = replace(reading, rows=reading.rows // len(chosen), size=reading.size // len(chosen))
    for number in chosen:
        fs, path = locations[number]
        name = path.rsplit("/", 1)[-1]
        with fs.open(path, "rb") as file:
            if path.lower().endswith(".parquet"):
                yield from _parquet_rows(file, name, share)
            else:
                yield from _text_rows(cast("BinaryIO", file), 0 if fits else sizes[number], name, share)


def _parquet_rows(file: Any, name: str, reading: Reading) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        check_distinct(table.schema_arrow.names, name)
        names = [column.name for column in table.schema_arrow if _is_cell(column.type)]
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        total = sum(group.num_rows for group in groups)
        # Read every row group if the limit allows, else every k-th.
        excess = sum(group.total_byte_size for group in groups) / max(reading.size, 1)
        step = max(1, round(excess)) if len(groups) > 1 else 1
        chosen = list(range(0, len(groups), step))
        limit = max(min(total, reading.rows), 1)
        stride = max(1, sum(groups[number].num_rows for number in chosen) // limit)
        if stride * step > 1:
            reading.notes.append(f"{total} rows; every {stride * step}th was read")
        for batch in table.iter_batches(batch_size=4096, row_groups=chosen, columns=names):
            if stride > 1:
                batch = batch.take(pa.array(range(0, len(batch), stride)))
            yield from batch.to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is not a readable Parquet file: {error}.") from error


def _is_cell(column_type: Any) -> bool:
    """Whether a column may hold texts or labels: scalars, or lists of strings, such as the words of a text."""
    import pyarrow.types as t

    strings = (t.is_string, t.is_large_string, t.is_string_view)
    if t.is_list(column_type) or t.is_large_list(column_type) or t.is_fixed_size_list(column_type):
        return any(test(column_type.value_type) for test in strings)
    tests = (*strings, t.is_integer, t.is_floating, t.is_decimal, t.is_boolean, t.is_dictionary)
    return any(test(column_type) for test in tests)


def _text_rows(file: BinaryIO, size: int, name: str, reading: Reading) -> Iterator[Row]:
    """The rows of a text file, or of parts of it if its `size` is above the limit; a `size` of 0 sets no limit."""
    base_name = name.lower().removesuffix(".gz")
    compressed = base_name != name.lower()
    delimited = base_name.endswith((".csv", ".tsv"))
    parts: Iterator[BinaryIO]
    if compressed:
        parts = iter([_decompressed(file, name, reading)])
    elif size > reading.size:
        header = file.readline() if delimited else b""
        parts = (io.BytesIO(header + part) for part in _parts(file, size, reading.size))
    else:
        parts = iter([file])
    for part in parts:
        lines = _decoded(part, name)
        if delimited:
            yield from csv_rows(lines, name, "\t" if base_name.endswith(".tsv") else None, skip=reading.skip)
        else:
            yield from json_line_rows(lines, name, skip=reading.skip)


def _parts(file: BinaryIO, size: int, budget: int) -> Iterator[bytes]:
    """Parts of a file at evenly spread positions, each cut to whole lines."""
    length = max(budget // PARTS, 1)
    for number in range(PARTS):
        file.seek(number * size // PARTS)
        if file.readline(MIB).endswith(b"\n"):  # the rest of a line, or the header
            lines = file.read(length)
            if b"\n" not in lines:
                lines += file.readline(MIB)
            yield lines[: lines.rfind(b"\n") + 1]


def _decompressed(file: BinaryIO, name: str, reading: Reading) -> BinaryIO:
    """The beginning of a gzip file. It cannot be read from the middle, and may be huge once decompressed."""
    try:
        content = gzip.GzipFile(fileobj=file).read(reading.size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a complete gzip file: {error}.") from error
    if len(content) > reading.size:
        reading.notes.append(f"only the first {reading.size // MIB} MiB were read: the file is packed")
        content = content[: content.rfind(b"\n") + 1]
    return io.BytesIO(content)


def _decoded(file: BinaryIO, name: str) -> Iterator[str]:
    start = file.read(HEAD)
    file.seek(0)
    check_is_data(start, name)
    check_is_text(start, name)
    lines = io.TextIOWrapper(file, encoding_of(start), newline="")
    try:
        yield from lines
    except UnicodeDecodeError as error:
        encoding = lines.encoding.upper()
        raise DataError(f"{name} is not {encoding}: {error.reason} at byte {error.start} of a part.") from error
    finally:
        lines.detach()  # the caller closes the file
