"""Rows of data files, here or on the hub, without ever holding a file: large ones are read in parts spread evenly over them."""

import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from promptmii.data.delimited import csv_rows
from promptmii.data.json_tables import json_line_rows
from promptmii.errors import DataError

Row = dict[str, Any]
TEXT_FILES = (".csv", ".tsv", ".jsonl", ".ndjson")
READABLE = (".parquet", *TEXT_FILES, *(f"{suffix}.gz" for suffix in TEXT_FILES))
WINDOWS = 64
"""Parts that are read of a text file that is too large to be read whole."""
MIB = 1 << 20


@dataclass
class Reading:
    """What may be read of one split, and what was noticed."""

    rows: int
    """Rows to look at, where the file says how many it has."""
    size: int
    """Bytes to look at, where it does not."""
    types: dict[str, str] = field(default_factory=dict[str, str])
    """Type of each column, where the file says it."""
    skipped: Counter[str] = field(default_factory=Counter[str])
    """Rows that could not be read, by reason."""
    notes: list[str] = field(default_factory=list[str])
    examples: list[str] = field(default_factory=list[str])
    """The first rows that could not be read, each with its place."""

    def skip(self, fault: str) -> None:
        """Count a row that cannot be read."""
        self.skipped["not readable"] += 1
        if len(self.examples) < 3:
            self.examples.append(fault)


def read_files(urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Rows of the files of one split: paths, or `hf://` addresses, all ending in one of `READABLE`. Raises `DataError`."""
    from fsspec.core import url_to_fs

    places = [url_to_fs(url) for url in urls]
    sizes = [int(fs.size(path) or 0) for fs, path in places]
    if sum(sizes) > reading.size and not urls[0].endswith(".parquet"):
        reading.notes.append(
            f"{sum(sizes) / MIB:.0f} MiB, of which parts spread over it were read ({reading.size / MIB:.0f} MiB)"
        )
    # Many large files: every k-th of them, so that each that is read gives a useful part.
    step = max(1, len(urls) * MIB // max(reading.size, MIB))
    chosen = range(0, len(urls), step)
    share = Reading(
        reading.rows // len(chosen),
        reading.size // len(chosen),
        reading.types,
        reading.skipped,
        reading.notes,
        reading.examples,
    )
    for number in chosen:
        fs, path = places[number]
        with fs.open(path, "rb") as file:
            origin = path.rsplit("/", 1)[-1]
            yield from (
                _parquet(file, origin, share)
                if path.endswith(".parquet")
                else _text(cast("BinaryIO", file), sizes[number], origin, share)
            )


def _parquet(file: Any, origin: str, reading: Reading) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names: list[str] = []
        for column in table.schema_arrow:
            reading.types[column.name] = str(column.type)
            names += [column.name] if _is_plain(column.type) else []
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        total = sum(group.num_rows for group in groups)
        wanted = min(total, reading.rows)
        # Every group gives its share, unless they are so large that reading every one would cost too much.
        heavy = sum(group.total_byte_size for group in groups) / max(reading.size, 1)
        step = max(1, round(heavy)) if len(groups) > 1 else 1
        chosen = list(range(0, len(groups), step))
        stride = max(1, sum(groups[number].num_rows for number in chosen) // max(wanted, 1))
        if stride * step > 1:
            reading.notes.append(f"{total} rows, of which every {stride * step}th was read, evenly over the file")
        for batch in table.iter_batches(batch_size=4096, row_groups=chosen, columns=names):
            yield from (batch.take(pa.array(range(0, len(batch), stride))) if stride > 1 else batch).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{origin} is not a readable Parquet file: {error}.") from error


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as t

    tests = (t.is_string, t.is_large_string, t.is_integer, t.is_floating, t.is_boolean, t.is_dictionary)
    return any(test(kind) for test in tests)


def _text(file: BinaryIO, size: int, origin: str, reading: Reading) -> Iterator[Row]:
    suffixes = origin.lower().split(".")
    packed = suffixes[-1] == "gz"
    kind = suffixes[-2] if packed else suffixes[-1]
    parts = (
        _windows(file, size, reading.size)
        if size > reading.size and not packed
        else iter([_whole(file, packed, reading)])
    )
    header = b""
    if kind in ("csv", "tsv"):
        header = file.readline() if size > reading.size and not packed else b""
    for part in parts:
        lines = _decoded(io.BytesIO(header + part) if isinstance(part, bytes) else part, origin)
        skip: Callable[[str], None] = reading.skip
        if kind in ("csv", "tsv"):
            yield from csv_rows(lines, origin, "\t" if kind == "tsv" else None, skip=skip)
        else:
            yield from json_line_rows(lines, origin, skip=skip)


def _whole(file: BinaryIO, packed: bool, reading: Reading) -> BinaryIO:
    if not packed:
        return file
    # What is packed cannot be entered in the middle, and a small file may unpack to an endless one.
    return io.BufferedReader(cast("io.RawIOBase", _Bounded(gzip.GzipFile(fileobj=file), reading)))


class _Bounded(io.RawIOBase):
    """A stream that ends after a number of bytes, at the end of a line as far as readers can tell."""

    def __init__(self, stream: gzip.GzipFile, reading: Reading) -> None:
        self._stream, self._reading, self._left = stream, reading, reading.size

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        if self._left <= 0:
            self._reading.notes.append(
                f"only the first {self._reading.size // MIB} MiB were read: a packed file cannot be entered elsewhere"
            )
            return 0
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _windows(file: BinaryIO, size: int, budget: int) -> Iterator[bytes]:
    """Whole lines, from places spread evenly over a file."""
    length = max(budget // WINDOWS, 1)
    for number in range(WINDOWS):
        file.seek(number * size // WINDOWS)
        file.readline(length)  # the rest of a line, or the header
        lines = file.read(length)
        yield lines[: lines.rfind(b"\n") + 1]


def _decoded(file: BinaryIO, origin: str) -> Iterator[str]:
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin} is not UTF-8: {error.reason} at byte {error.start} of a part. Save it as UTF-8."
        ) from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{origin} is not a whole gzip file: {error}.") from error
    finally:
        lines.detach()  # whoever opened the file closes it
