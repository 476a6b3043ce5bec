"""A fetched sample as it lies in a corpus folder: packed JSON lines, the first of which says what the columns are."""

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptmii.data.load import read_table
from promptmii.data.table import Table
from promptmii.errors import ArtefactError
from promptmii.files import atomic_file


@dataclass(frozen=True)
class Header:
    """What is known of the sample beside its rows."""

    types: dict[str, str] = field(default_factory=dict[str, str])
    """The schema's type of each column, where there is a schema."""
    classes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Class names of the columns that declare them; in the rows they are decoded."""
    seen: dict[str, int] = field(default_factory=dict[str, int])
    """Rows looked at, by split."""
    notes: list[str] = field(default_factory=list[str])


def write_raw(path: Path, header: Header, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Write (split, row) pairs, complete or not at all; returns how many. Raises `OutputError`."""
    count = 0
    # No file name and time in the packed file: equal samples are equal bytes.
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        packed.write(_line(asdict(header)))
        for pair in rows:
            packed.write(_line(pair))
            count += 1
    return count


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=True, default=str, separators=(",", ":")) + "\n").encode()


def read_raw(path: Path, name: str) -> tuple[Table, Header]:
    """The sample as a table. Raises `DataError` where it has no rows, `ArtefactError` where the file was damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header = Header(**json.loads(file.readline()))
            pairs = [json.loads(line) for line in file]
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ArtefactError(
            f"{path} cannot be read: {error}. Remove it and its line in stages/fetch.jsonl, and build again."
        ) from error
    table = read_table([row for _, row in pairs])
    splits = tuple(split for split, _ in pairs)
    classes = {column: tuple(names) for column, names in header.classes.items()}
    return Table(table.columns, table.rows, name, classes, splits if len(set(splits)) > 1 else None), header
