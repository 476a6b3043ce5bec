"""Output tables: written record by record, and read back with the byte at which each record ends."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

from promptmii.data.delimited import FIELD_LIMIT
from promptmii.errors import ConfigError, DataError, OutputError, first_line
from promptmii.files import atomic_file

Row: TypeAlias = dict[str, Any]
T = TypeVar("T")
BATCH = 4096
"""Rows of a Parquet batch."""


class Format(Protocol):
    """How the rows of a growing file are written."""

    @property
    def head(self) -> str:
        """The text before the first row."""
        ...

    def records(self, rows: Sequence[Row]) -> str:
        """Rows as text, each with its line break."""
        ...

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        """Every complete row and the byte at which it ends, without one that a kill cut short.

        Raises `ValueError` for anything else that was not written by `records`.
        """
        ...


@dataclass(frozen=True)
class Csv(Format):
    """Delimited text with a header. Cells are read back as text."""

    columns: Sequence[str]
    delimiter: str = ","

    @property
    def head(self) -> str:
        return self._lines([self.columns])

    def records(self, rows: Sequence[Row]) -> str:
        return self._lines([[row[name] for name in self.columns] for row in rows])

    def _lines(self, rows: Sequence[Sequence[Any]]) -> str:
        text = self._written(rows, csv.QUOTE_MINIMAL)
        if "\r" not in text:
            return text
        # The csv module leaves a lone carriage return bare, and then takes it for the end of the row.
        bare = [any("\r" in str(cell) for cell in row) for row in rows]
        quoting = (csv.QUOTE_ALL if is_bare else csv.QUOTE_MINIMAL for is_bare in bare)
        return "".join(self._written([row], how) for row, how in zip(rows, quoting, strict=True))

    def _written(self, rows: Sequence[Sequence[Any]], quoting: Any) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n", delimiter=self.delimiter, quoting=quoting).writerows(rows)
        return text.getvalue()

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        end, whole = 0, True
        record: list[str] = []

        def lines() -> Iterator[str]:
            nonlocal end, whole
            for raw in file:
                end, whole = end + len(raw), raw.endswith(b"\n")
                record.append(raw.decode())
                yield record[-1]

        csv.field_size_limit(FIELD_LIMIT)
        try:
            for number, cells in enumerate(csv.reader(lines(), strict=True, delimiter=self.delimiter)):
                if not whole:
                    return
                if len(cells) != len(self.columns) or (number == 0 and cells != list(self.columns)):
                    raise ValueError(f"its columns are not {', '.join(self.columns)}")
                record.clear()
                if number:
                    yield dict(zip(self.columns, cells, strict=True)), end
        except (csv.Error, UnicodeDecodeError) as error:
            if file.read(1) or any(map(self._is_row, record[1:])):
                raise ValueError(f"{error}; is a quote missing?") from error

    def _is_row(self, line: str) -> bool:
        """A complete row, so that a kill did not cut short what precedes it."""
        try:
            return len(next(csv.reader([line], strict=True, delimiter=self.delimiter))) == len(self.columns) > 1
        except csv.Error:
            return False


def csv_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows as CSV with a header."""
    form = Csv(columns)
    return form.head + form.records(rows)


class JsonLines(Format):
    """An object per line."""

    @property
    def head(self) -> str:
        return ""

    def records(self, rows: Sequence[Row]) -> str:
        return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        end = 0
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            end += len(raw)
            row = json.loads(raw)
            if not isinstance(row, dict):
                raise ValueError(f"a line is no object: {raw[:40]!r}")
            yield row, end


def format_for(path: Path, columns: Sequence[str]) -> Format:
    """How an output file grows. Raises `ConfigError` for the ending of another format."""
    ending = path.suffix.lower()
    if ending in (".json", ".xlsx", ".gz"):
        raise ConfigError(f"{path} ends in {ending}; rows are written as .csv, .tsv, .jsonl, .ndjson or .parquet.")
    if ending in (".jsonl", ".ndjson", ".parquet"):
        return JsonLines()
    return Csv(columns, "\t" if ending == ".tsv" else ",")


class ParquetTable:
    """A Parquet file, written at the end from rows kept elsewhere: the format itself cannot grow."""

    def __init__(self, rows: Iterable[Row], added: Row) -> None:
        """The schema of `rows`, then of `added`, whose values show which columns are text.

        Raises `DataError` if Parquet cannot hold the rows.
        """
        import pyarrow as pa

        def schema(rows: Sequence[Row]) -> Any:
            return pa.Table.from_pylist(rows).schema

        try:
            parts = [schema(batch) for batch in batches(rows, BATCH)]
            unified = pa.unify_schemas(parts, promote_options="permissive")
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"Parquet cannot hold these rows: {first_line(error)}. Write .jsonl instead.") from error
        fields = [
            pa.field(name, pa.string() if isinstance(value, str) else pa.float64()) for name, value in added.items()
        ]
        self._schema = pa.schema([*unified, *fields])

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write the file, whole or not at all. Raises `OutputError`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with atomic_file(path) as temporary, pq.ParquetWriter(temporary, self._schema) as file:
                for batch in batches(rows, BATCH):
                    file.write_table(pa.Table.from_pylist(batch, schema=self._schema))
        except pa.ArrowException as error:
            raise OutputError(f"{path} cannot be written as Parquet: {error}.") from error


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """The rows in lists of `size`; the last may be shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch
