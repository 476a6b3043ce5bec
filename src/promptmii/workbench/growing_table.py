"""A table file that grows row by row, and can be resumed after a kill.

Until every row has an answer, the folder `labelled.csv.run` exists beside `labelled.csv`. It records the inputs of the
run, so that only the same command resumes it. It also stores answers that cannot be appended to the table: those for
rows that had failed are merged into it when the run ends, and those for rows ahead of their turn are appended later.
"""

import io
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from promptmii.data.table import Row
from promptmii.errors import OutputError
from promptmii.files import LOCK, append_line, atomic_file, check_writable, locked, write_text
from promptmii.models.base import FailureKind
from promptmii.workbench.formats import Format, format_for

T = TypeVar("T")
INPUTS = "run.json"
RETRIED = "again.jsonl"
AHEAD = "ahead.jsonl"
DAMAGED = (ValueError, KeyError, TypeError)
"""What reading a damaged row raises."""
_NOTE = TypeAdapter(tuple[NonNegativeInt, str])


@dataclass
class Tally:
    """Rows by outcome."""

    rows: int = 0
    labelled: int = 0
    unsure: int = 0
    """Below the threshold."""
    failed: int = 0
    unread: str = ""
    """The first answer that names no label; only in mode `generate`."""

    def count(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        self.labelled += bool(row["predicted_label"])
        self.unsure += bool(row.get("unsure_label"))
        self.failed += bool(row["failure"])
        if not (self.unread or row["predicted_label"] or row["failure"]):
            self.unread = row.get("model_answer", "")


class Turns(Generic[T]):
    """Items that come in any order, and leave in the order of their positions."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self.ahead: dict[int, T] = {}

    def due(self, items: Iterable[tuple[int, T]]) -> list[T]:
        """Add items, and remove those whose turn has come."""
        self.ahead |= items
        due: list[T] = []
        while self._next in self.ahead:
            due.append(self.ahead.pop(self._next))
            self._next += 1
        return due


def run_folder(output: Path) -> Path:
    """The folder of an unfinished run."""
    return output.with_name(f"{output.name}.run")


def check_output(output: Path, *, force: bool = False) -> None:
    """Raise `ConfigError` or `OutputError` if rows cannot be written there. An unfinished file may be resumed."""
    format_for(output, ())
    check_writable(output, force=force or (run_folder(output) / INPUTS).is_file())


def refuse_overwriting(output: Path, *inputs: object) -> None:
    """Raise `OutputError` if the output is one of the inputs, which are still read while rows are written."""
    files = [source for source in inputs if isinstance(source, str | Path) and os.path.exists(source)]
    if output.exists() and any(os.path.samefile(file, output) for file in files):
        raise OutputError(f"{output} is the input and cannot be the output too. Name another file with -o.")


@contextmanager
def locked_run_folder(output: Path, inputs: Mapping[str, Any], *, force: bool) -> Generator[Path]:
    """The locked folder of a run that is new or has the same inputs as before.

    Raises `OutputError` if the run was started with other inputs or is damaged, unless `force` starts it over.
    """
    check_output(output, force=force)
    folder = run_folder(output)
    with locked(folder):
        path = folder / INPUTS
        if force or not path.exists():
            for old in folder.iterdir():  # also what an ended run may have left
                if old.name != LOCK:
                    old.unlink()
        previous = state_in(path, path.read_bytes()) if path.exists() else None
        differing = [name for name, value in inputs.items() if previous and previous.get(name) != value]
        if differing:
            raise OutputError(
                f"{output} was started with another {' and '.join(differing)}. Repeat the same command to resume it, "
                "name another file with -o, or start over with --force."
            )
        if previous is None:
            output.unlink(missing_ok=True)
            write_text(path, json.dumps(dict(inputs), ensure_ascii=False, indent=2) + "\n", force=True)
        try:
            yield folder
        finally:
            if not output.exists() and {*os.listdir(folder)} <= {INPUTS, LOCK}:
                end_run(folder)
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)


def state_in(path: Path, content: bytes) -> Any:
    """The JSON value that a file of a run folder holds. Raises `OutputError` if it is damaged, as after a power cut."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise OutputError(f"{path}, a note of the unfinished run, is damaged. Start over with --force.") from error


def end_run(folder: Path) -> None:
    """Mark the run as finished."""
    (folder / INPUTS).unlink(missing_ok=True)


class GrowingTable:
    """The labelled rows of one run. `write` returns once they are on disk."""

    def __init__(self, path: Path, file_format: Format, folder: Path) -> None:
        """Creates the file, or reads the rows written so far. Raises `OutputError` if the file was edited."""
        self.path = path
        self.tally = Tally()
        self._format = file_format
        self._retried, self._ahead = folder / RETRIED, folder / AHEAD
        self._answered = bytearray()  # by position, whether the row has an answer
        if not path.exists():
            self._retried.unlink(missing_ok=True)
            self._ahead.unlink(missing_ok=True)
            write_text(path, file_format.head)
        self.merge_retried()
        end = len(file_format.head.encode())
        for row, row_end in self._read():
            end = row_end
            self.tally.count(row)
            self._answered.append(not row["failure"])
        if path.stat().st_size < end:
            raise self._changed("its header is gone")
        os.truncate(path, end)
        self._resumed = len(self._answered)  # rows in the file at the start
        self._turns = Turns[Row](self._resumed)
        self._append(self._rows_ahead())
        if self._turns.ahead:
            write_text(self._ahead, self._lines(self._turns.ahead.items()), force=True)

    def lacks(self, position: int) -> bool:
        """Whether the row has no answer, or failed."""
        if position < len(self._answered):
            return not self._answered[position]
        return position not in self._turns.ahead

    @property
    def answered(self) -> int:
        """Number of rows with an answer."""
        return sum(self._answered) + len(self._turns.ahead)

    def write(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Write rows with their positions, in any order."""
        old = [(position, row) for position, row in rows if position < self._resumed]
        retried = [(position, row) for position, row in old if row["failure"] != FailureKind.UNANSWERED]
        if retried:
            append_line(self._retried, self._lines(retried).encode())
        for position, row in retried:
            self._answered[position] = not row["failure"]
            self.tally.failed -= 1
            self.tally.rows -= 1
            self.tally.count(row)
        self._append((position, row) for position, row in rows if position >= self._resumed)
        waiting = [(position, row) for position, row in rows if position in self._turns.ahead]
        if waiting:
            append_line(self._ahead, self._lines(waiting).encode())

    def _append(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Append the rows whose turn has come."""
        due = self._turns.due(rows)
        if due:
            append_line(self.path, self._format.records(due).encode())
        for row in due:
            self.tally.count(row)
            self._answered.append(not row["failure"])
        if not self._turns.ahead:
            self._ahead.unlink(missing_ok=True)

    def _lines(self, rows: Iterable[tuple[int, Row]]) -> str:
        return "".join(json.dumps([position, self._format.records([row])]) + "\n" for position, row in rows)

    def _rows_ahead(self) -> Iterator[tuple[int, Row]]:
        """The answered rows that a killed run stored ahead of their turn."""
        for position, record, _ in _noted(self._ahead):
            content = io.BytesIO(f"{self._format.head}{record}".encode())
            with suppress(*DAMAGED):
                yield from (
                    (position, row)
                    for row, _ in self._rows_in(content)
                    if position >= self._resumed and not row["failure"]
                )

    def merge_retried(self) -> None:
        """Replace failed rows in the file by their retried answers."""
        if not self._retried.exists():
            return
        retried = {position: start for position, _, start in _noted(self._retried)}  # no records, to save memory
        start = len(self._format.head.encode())
        with (
            atomic_file(self.path) as temporary,
            self.path.open("rb") as old,
            self._retried.open("rb") as new,
            temporary.open("wb") as file,
        ):
            file.write(old.read(start))
            for position, (_, end) in enumerate(self._read()):
                record = old.read(end - start)
                if position in retried:
                    new.seek(retried[position])
                    record = json.loads(new.readline())[1].encode()
                file.write(record)
                start = end
        self._retried.unlink()

    def rows(self) -> Iterator[Row]:
        """The rows in the file."""
        return (row for row, _ in self._read())

    def _read(self) -> Iterator[tuple[Row, int]]:
        try:
            with self.path.open("rb") as file:
                yield from self._rows_in(file)
        except DAMAGED as error:
            raise self._changed(error) from error

    def _rows_in(self, file: BinaryIO) -> Iterator[tuple[Row, int]]:
        for row, end in self._format.read(file):
            if not {"predicted_label", "failure"} <= row.keys():
                raise ValueError("a row has no predicted_label or no failure")
            yield row, end

    def _changed(self, reason: object) -> OutputError:
        return OutputError(
            f"{self.path} was changed during the run and is no longer readable: {reason}. "
            "Restore it, or start over with --force."
        )


def _noted(path: Path) -> Iterator[tuple[int, str, int]]:
    """Position, record and byte offset of each row stored there.

    Skips a last line that a kill cut short, and lines that a power cut damaged: their rows are asked again.
    """
    if path.exists():
        with path.open("rb") as file:
            start = 0
            for line in file:
                with suppress(ValidationError):
                    if line.endswith(b"\n"):
                        yield *_NOTE.validate_json(line), start
                start += len(line)
