"""A uniform sample of a dataset's rows, drawn in one pass, and the file it is kept in.

A sample keeps the rows whose texts have the smallest hashes. It is uniform over the different texts, so a file
sorted by label gives every label its share. It does not depend on order, so two copies of a dataset give the same
texts and are recognised as copies, however small the samples.
"""

import gzip
import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptmii.data.load import read_table
from promptmii.data.table import Row, Table
from promptmii.errors import ArtefactError
from promptmii.files import atomic_file
from promptmii.task import normalise_text

SAME_TEXT = 3
"""Rows kept of one text: enough to see that it is repeated, or has two labels."""


class Sample:
    """Up to `size` different texts, each with its first few rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._largest: list[int] = []
        """Heap of negated hashes; the first is the next to go."""
        self._rows: dict[int, list[Row]] = {}
        self.seen = 0
        """Rows offered."""
        self.repeated = 0
        """Rows left out because `SAME_TEXT` rows with their text had been offered before."""

    def add(self, row: Row) -> None:
        """Offer a row."""
        self.seen += 1
        key = _text_hash(row)
        rows = self._rows.get(key)
        if rows is not None:
            if len(rows) < SAME_TEXT:
                rows.append(row)
            else:
                self.repeated += 1
        elif len(self._largest) < self._size:
            heapq.heappush(self._largest, -key)
            self._rows[key] = [row]
        elif key < -self._largest[0]:
            del self._rows[-heapq.heapreplace(self._largest, -key)]
            self._rows[key] = [row]

    def __iter__(self) -> Iterator[Row]:
        """The rows kept, ordered by the hash of their texts."""
        for key in sorted(self._rows):
            yield from self._rows[key]


def _text_hash(row: Row) -> int:
    """Hash the longest string, which copies of a dataset share whatever their columns are called."""
    longest = max((value for value in row.values() if isinstance(value, str)), key=len, default=None)
    key = normalise_text(longest) if longest is not None else repr(sorted(row.items(), key=str))
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())


@dataclass(frozen=True)
class SampleHeader:
    """The first line of a sample's file."""

    types: dict[str, str] = field(default_factory=dict[str, str])
    """The type of each column, if there is a schema."""
    classes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Class names of the columns that declare them; the rows hold names, not numbers."""
    seen: dict[str, int] = field(default_factory=dict[str, int])
    """Rows read of each split."""
    notes: list[str] = field(default_factory=list[str])


def write_sample(path: Path, header: SampleHeader, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write (split, row) pairs as gzipped JSON lines. Raises `OutputError`."""
    # No name and no time inside, so that equal samples are equal files.
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        for value in (asdict(header), *rows):
            packed.write((json.dumps(value, default=str, separators=(",", ":")) + "\n").encode())


def read_sample(path: Path, name: str) -> tuple[Table, SampleHeader]:
    """The sample as a table. Raises `DataError` if it has no rows, `ArtefactError` if the file is damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header = SampleHeader(**json.loads(file.readline()))
            pairs = [json.loads(line) for line in file]
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}. Remove it, and build again.") from error
    table = read_table([row for _, row in pairs])
    splits = tuple(split for split, _ in pairs)
    classes = {column: tuple(names) for column, names in header.classes.items()}
    return Table(table.columns, table.rows, name, classes, splits if len(set(splits)) > 1 else None), header
