"""A table file that grows row by row, and resumes after a kill.

Until every row has its answer, the folder `labelled.csv.run` lies beside `labelled.csv`. It records what the file is
made of, so that only the same command resumes it, and keeps new answers for rows that had failed: those cannot be
appended, and move to their places when the run ends.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmii.errors import OutputError
from promptmii.files import LOCK, append_line, atomic_file, check_writable, locked, write_text
from promptmii.workbench.formats import Format, Row, format_for

MADE_OF = "run.json"
AGAIN = "again.jsonl"


@dataclass
class Tally:
    """Rows by outcome."""

    rows: int = 0
    labelled: int = 0
    unsure: int = 0
    """Below the threshold."""
    failed: int = 0

    def count(self, row: Row) -> None:
        """One more row."""
        self.rows += 1
        self.labelled += bool(row["predicted_label"])
        self.unsure += bool(row.get("unsure_label"))
        self.failed += bool(row["failure"])


def run_folder(output: Path) -> Path:
    """The folder with what a rerun needs while rows lack an answer."""
    return output.with_name(f"{output.name}.run")


def check_output(output: Path, *, force: bool = False) -> None:
    """Raise `ConfigError` or `OutputError` if rows could not be written there; an unfinished file may be resumed."""
    format_for(output, ())
    check_writable(output, force=force or run_folder(output).is_dir())


def refuse_overwriting(output: Path, *read: object) -> None:
    """Raise `OutputError` if the output is one of the inputs, which are read while rows are written."""
    files = [source for source in read if isinstance(source, str | Path) and os.path.exists(source)]
    if output.exists() and any(os.path.samefile(file, output) for file in files):
        raise OutputError(f"{output} is the input and cannot be the output too. Name another file with -o.")


@contextmanager
def run_of(output: Path, made_of: Mapping[str, Any], *, force: bool) -> Generator[Path]:
    """The locked folder of a run that is new or made of the same things as before.

    Raises `OutputError` if it was started with others, unless `force` starts it over.
    """
    check_output(output, force=force)
    folder = run_folder(output)
    with locked(folder):
        for old in folder.iterdir() if force else ():
            if old.name != LOCK:
                old.unlink()
        path = folder / MADE_OF
        before = json.loads(path.read_text("utf-8")) if path.exists() else None
        differing = [name for name, value in made_of.items() if before and before.get(name) != value]
        if differing:
            raise OutputError(
                f"{output} was started with another {' and '.join(differing)}. Repeat the same command to resume it, "
                "name another file with -o, or start over with --force."
            )
        if before is None:
            output.unlink(missing_ok=True)
            write_text(path, json.dumps(dict(made_of), ensure_ascii=False, indent=2) + "\n", force=True)
        try:
            yield folder
        finally:
            if not output.exists() and {*os.listdir(folder)} <= {MADE_OF, LOCK}:
                end_run(folder)
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)


def end_run(folder: Path) -> None:
    """Mark the run as finished: nothing is left to resume."""
    (folder / MADE_OF).unlink(missing_ok=True)


class GrowingTable:
    """The rows of one run. They are on the disk when `write` returns."""

    def __init__(self, path: Path, form: Format, folder: Path) -> None:
        """Creates the file, or reads how far it has come. Raises `OutputError` if somebody changed it."""
        self.path = path
        self.tally = Tally()
        self._form = form
        self._again = folder / AGAIN
        self._answered = bytearray()
        if not path.exists():
            self._again.unlink(missing_ok=True)
            write_text(path, form.head)
        self.put_in_place()
        end = len(form.head.encode())
        for row, row_end in self._read():
            end = row_end
            self.tally.count(row)
            self._answered.append(not row["failure"])
        os.truncate(path, end)
        self.begun = len(self._answered)
        """Rows already in the file."""

    def lacks(self, position: int) -> bool:
        """The row has no answer yet, or a failed one."""
        return position >= len(self._answered) or not self._answered[position]

    @property
    def answered(self) -> int:
        """Rows that have their answer."""
        return sum(self._answered)

    def write(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Rows in order, each with its position: those that had failed, then the next ones."""
        again = [(position, row) for position, row in rows if position < self.begun and not row["failure"]]
        new = [row for position, row in rows if position >= self.begun]
        if again:
            lines = (json.dumps([position, self._form.records([row])]) + "\n" for position, row in again)
            append_line(self._again, "".join(lines).encode())
        if new:
            append_line(self.path, self._form.records(new).encode())
        for position, row in again:
            self._answered[position] = True
            self.tally.failed -= 1
            self.tally.rows -= 1
            self.tally.count(row)
        for row in new:
            self.tally.count(row)
            self._answered.append(not row["failure"])

    def put_in_place(self) -> None:
        """Move new answers of rows that had failed to their places."""
        if not self._again.exists():
            return
        new = _answers(self._again)
        position, record = next(new, (-1, ""))
        start = len(self._form.head.encode())
        with atomic_file(self.path) as temporary, self.path.open("rb") as old, temporary.open("wb") as file:
            file.write(old.read(start))
            for number, (_, end) in enumerate(self._read()):
                unchanged = old.read(end - start)
                file.write(record.encode() if number == position else unchanged)
                if number == position:
                    position, record = next(new, (-1, ""))
                start = end
        self._again.unlink()

    def rows(self) -> Iterator[Row]:
        """The rows as they were written."""
        return (row for row, _ in self._read())

    def _read(self) -> Iterator[tuple[Row, int]]:
        try:
            with self.path.open("rb") as file:
                for row, end in self._form.read(file):
                    if not {"predicted_label", "failure"} <= row.keys():
                        raise ValueError("a row has no predicted_label or no failure")
                    yield row, end
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.path} was changed during the run and is no longer readable: {error}. "
                "Restore it, or start over with --force."
            ) from error


def _answers(path: Path) -> Iterator[tuple[int, str]]:
    """Positions and records, in order, without a line that a kill cut short."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                position, record = json.loads(line)
                yield position, record
