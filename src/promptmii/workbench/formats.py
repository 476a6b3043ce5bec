"""Formats of output tables. Records are appended one by one, and read back with the byte offset at which each ends."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from promptmii.data.delimited import FIELD_LIMIT
from promptmii.data.table import Row
from promptmii.data.texts import COMMAS, CsvStyle
from promptmii.errors import ConfigError, DataError, OutputError
from promptmii.files import atomic_file
from promptmii.messages import first_line
from promptmii.table_formats import WRITTEN

T = TypeVar("T")
DIGITS = 6
"""Decimal places of a probability."""
BATCH = 4096
"""Rows per Parquet batch."""


class Format(Protocol):
    """Encodes the rows of a growing file."""

    @property
    def head(self) -> str:
        """The text before the first row."""
        ...

    def records(self, rows: Sequence[Row]) -> str:
        """The rows as text, each with a final line break."""
        ...

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        """Each complete row and the byte offset at which it ends. Skips a last row that a kill cut short.

        Raises `ValueError` for anything else that `records` did not write.
        """
        ...


@dataclass(frozen=True)
class Csv(Format):
    """Delimited text with a header. Cells are read back as text."""

    columns: Sequence[str]
    delimiter: str = ","
    mark: str = ""
    """A byte order mark, or nothing."""

    @property
    def head(self) -> str:
        return self.mark + self._lines([self.columns])

    def records(self, rows: Sequence[Row]) -> str:
        return self._lines([[_csv_cell(row[name]) for name in self.columns] for row in rows])

    def _lines(self, rows: Sequence[Sequence[Any]]) -> str:
        lines: list[str] = []
        for row in rows:
            buffer = io.StringIO()
            csv.writer(buffer, delimiter=self.delimiter).writerow(row)  # quotes the parts of its line break, \r and \n
            lines.append(buffer.getvalue().removesuffix("\r\n") + "\n")
        return "".join(lines)

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        end, complete = 0, True
        record: list[str] = []  # lines of the current record

        def lines() -> Iterator[str]:
            nonlocal end, complete
            for raw in file:
                record.append(raw.decode() if end else raw.decode().removeprefix(self.mark))
                end, complete = end + len(raw), raw.endswith(b"\n")
                yield record[-1]

        csv.field_size_limit(FIELD_LIMIT)
        try:
            for number, cells in enumerate(csv.reader(lines(), strict=True, delimiter=self.delimiter)):
                if not complete:
                    return
                if len(cells) != len(self.columns) or (number == 0 and cells != list(self.columns)):
                    raise ValueError(f"its columns are not {', '.join(self.columns)}")
                record.clear()
                if number:
                    yield dict(zip(self.columns, cells, strict=True)), end
        except (csv.Error, UnicodeDecodeError) as error:
            # A kill can cut short only the last row. An open quote in another one hides the rows that follow it.
            if file.read(1) or any(map(self._is_row, record[1:])):
                raise ValueError(f"{error}; is a quote missing?") from error

    def _is_row(self, line: str) -> bool:
        """Whether a line alone is a complete row."""
        try:
            return len(next(csv.reader([line], strict=True, delimiter=self.delimiter))) == len(self.columns) > 1
        except csv.Error:
            return False


def _csv_cell(value: Any) -> Any:
    """A cell that can be read back: of a list of one, such as a label, the item; any other list or object as JSON."""
    if isinstance(value, list | tuple) and len(value) < 2:
        return _csv_cell(value[0]) if value else ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | tuple | dict) else value


def csv_text(columns: Sequence[str], rows: Sequence[Row], style: CsvStyle = COMMAS) -> str:
    """Rows as CSV with a header."""
    csv_format = Csv(columns, *style)
    return csv_format.head + csv_format.records(rows)


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
                raise ValueError(f"a line is not an object: {raw[:40]!r}")
            yield row, end


def format_for(path: Path, columns: Sequence[str], style: CsvStyle = COMMAS) -> Format:
    """The format of the growing output, also if it becomes Parquet. `style` is that of `.csv`.

    Raises `ConfigError` for an unsupported suffix.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return Csv(columns, "\t") if suffix == ".tsv" else Csv(columns, *style)
    if suffix in WRITTEN:
        return JsonLines()
    given = f"ends in {suffix}" if suffix else "has no ending"
    raise ConfigError(f"{path} {given}; expected one of {', '.join(WRITTEN)}.")


class ParquetTable:
    """A Parquet file. It is written at the end of a run, because Parquet cannot be appended to."""

    def __init__(self, rows: Iterable[Row], added: Row) -> None:
        """The columns are those of `rows`, then those of `added`: text if the value is a string, else numbers.

        Raises `DataError` if Parquet cannot store the rows.
        """
        import pyarrow as pa

        try:
            schemas: list[Any] = [pa.Table.from_pylist(batch).schema for batch in batches(rows, BATCH)]
            unified = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(f"Parquet cannot hold these rows: {first_line(error)}. Write .jsonl instead.") from error
        fields = [
            pa.field(name, pa.string() if isinstance(value, str) else pa.float64()) for name, value in added.items()
        ]
        self._schema = pa.schema([*unified, *fields])

    def write(self, path: Path, rows: Iterable[Row]) -> None:
        """Write the file atomically. Raises `OutputError`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with atomic_file(path) as temporary, pq.ParquetWriter(temporary, self._schema) as file:
                for batch in batches(rows, BATCH):
                    file.write_table(pa.Table.from_pylist(batch, schema=self._schema))
        except pa.ArrowException as error:
            raise OutputError(f"{path} cannot be written as Parquet: {error}.") from error


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """The rows in lists of `size`. The last list may be shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch
