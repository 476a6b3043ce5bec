"""The run folder of an evaluation: append-only files with one line per finished cell.

    config.json        the settings
    records.jsonl      one `Record` per line: a cell of the grid, its score, its cost and every prediction
    queries.jsonl      the labelled rows, each set once; records refer to them by key
    answers.sqlite     cached model answers, so that an interrupted cell pays for no call twice

A record's key hashes everything that its result depends on. So a rerun skips finished cells, and results of a changed
template, model or data file never mix with earlier ones.

All reading goes through `Run.read`, which checks every line and every prediction. It reports and skips lines that are
truncated, edited or damaged; their cells count as not done.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from promptmii.errors import ArtefactError
from promptmii.files import append_line, quoted
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction, Mode
from promptmii.models.base import Failure, FailureKind
from promptmii.parse import Match
from promptmii.schema import Frozen, first_problem
from promptmii.task import Example, content_key

Line = TypeVar("Line", bound=Frozen)
RECORDS, QUERIES = "records.jsonl", "queries.jsonl"
DIGITS = 4
"""Decimals of the stored probabilities."""
LARGEST = 1 << 28
"""Maximum size of an unpacked field, in bytes."""


class Cell(Frozen):
    """A point of the grid: a method on a task, with n examples."""

    task: str
    method: str
    n: int
    """Number of examples, or 0 if the method reads none."""
    seed: int
    generator: str | None
    """Reference of the model that writes, or `None` if the method writes nothing."""
    follower: str
    mode: Mode

    @property
    def name(self) -> str:
        """The name in progress and error messages."""
        writer = f" by {self.generator}" if self.generator else ""
        return f"{self.task} / {self.method}{writer} / n={self.n} / seed {self.seed} / {self.follower}"

    @property
    def without_draw(self) -> tuple[str | None, ...]:
        """The cell without its n and seed."""
        return self.task, self.method, self.generator, self.follower, self.mode


class Query(Frozen):
    """A set of labelled rows. Cells with the same rows share one query."""

    key: str
    task: str
    rows: str
    """Packed pairs of text and label."""

    @classmethod
    def of(cls, task: str, examples: Iterable[Example]) -> Self:
        """A query of the rows. Its key is their content hash."""
        pairs = [[example.text, example.label] for example in examples]
        return cls(key=content_key(pairs), task=task, rows=_pack(pairs))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if content_key(_unpack(self.rows)) != self.key:
            raise ValueError("its rows do not match its key")
        return self

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        return tuple(Example(text, label) for text, label in _unpack(self.rows))


class Predictions(Frozen):
    """Predictions stored as columns, in the order of the query."""

    labels: list[Annotated[int, Field(ge=0)] | None]
    """Label indices in the instruction."""
    probabilities: list[list[Annotated[float, Field(ge=0, le=1)]] | None]
    answers: list[str | None]
    matches: list[Match | None]
    failures: list[tuple[FailureKind, str] | None]
    truncated: list[bool]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], labels: tuple[str, ...]) -> Self:
        """Everything that metrics need. Probabilities are rounded."""
        indices: dict[str | None, int | None] = {label: i for i, label in enumerate(labels)} | {None: None}
        return cls(
            labels=[indices[p.label] for p in predictions],
            probabilities=[
                [round(x, DIGITS) for x in p.probabilities] if p.probabilities else None for p in predictions
            ],
            answers=[p.answer for p in predictions],
            matches=[p.match for p in predictions],
            failures=[(p.failure.kind, p.failure.message) if p.failure else None for p in predictions],
            truncated=[p.truncated for p in predictions],
        )

    def rows(self, labels: tuple[str, ...]) -> list[Prediction]:
        """The predictions, without their cost."""
        columns = (self.labels, self.probabilities, self.matches, self.failures, self.truncated, self.answers)
        return [
            Prediction(
                None if index is None else labels[index],
                tuple(probabilities) if probabilities else None,
                match=match,
                failure=Failure(*failure) if failure else None,
                truncated=truncated,
                answer=answer,
            )
            for index, probabilities, match, failure, truncated, answer in zip(*columns, strict=True)
        ]

    def check(self, labels: int, rows: int) -> None:
        """Raise `ValueError` unless there is one prediction per row, and each fits the number of labels."""
        if any(len(column) != rows for _, column in self):
            raise ValueError(f"it does not hold one prediction for each of the {rows} rows of its query")
        if any(index is not None and index >= labels for index in self.labels):
            raise ValueError("a prediction names a label that the instruction does not have")
        if any(p is not None and len(p) != labels for p in self.probabilities):
            raise ValueError("a prediction does not hold one probability for each label")


class Record(Frozen):
    """The result of one cell."""

    format: Literal[1] = 1
    key: str
    cell: Cell
    status: Literal["done", "failed"]
    error: str | None = None
    """Why the cell failed. A failed cell has no scores."""
    instruction: Instruction | None = None
    """Includes its cost, calibration and score."""
    spent: Cost = Cost()
    """Cost of labelling the query. The cost of writing is `instruction.cost`."""
    query: str | None = None
    """Key of the query."""
    answers: str | None = None
    """Packed `Predictions`."""
    machine: str | None = None
    """A description of the machine."""
    revisions: dict[str, str] = Field(default_factory=dict[str, str])
    """Model revisions by reference: a hash of weights and chat template, or a server's name and address."""
    finished: str
    """Date and time, ISO 8601, UTC."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        done = self.instruction is not None and self.instruction.measured is not None and self.query and self.answers
        if self.status == "done" and not done:
            raise ValueError("a done cell needs a measured instruction, its query and its predictions")
        return self

    @property
    def columns(self) -> Predictions:
        """The predictions as columns, empty if the cell failed. Not cached, because a run may hold millions."""
        return Predictions.model_validate(_unpack(self.answers)) if self.answers else Predictions.of((), ())

    @property
    def labels(self) -> list[str | None]:
        """Predicted labels in the order of the query, empty if the cell failed."""
        names: tuple[str, ...] = self.instruction.labels if self.instruction else ()
        return [None if index is None else names[index] for index in self.columns.labels]

    @property
    def predictions(self) -> list[Prediction]:
        """The predictions in the order of the query, empty if the cell failed."""
        return self.columns.rows(self.instruction.labels if self.instruction else ())

    def scored(self, queries: Mapping[str, Query]) -> tuple[list[str], list[str | None]]:
        """Gold and predicted labels of a done cell."""
        return [example.label for example in queries[str(self.query)].examples], self.labels

    def check(self, queries: Mapping[str, Query]) -> None:
        """Raise `ValueError` unless the query, the predictions and the instruction match."""
        if self.status == "failed" or self.instruction is None:
            return
        if self.query is None or self.query not in queries:
            raise ValueError("its query rows are missing")
        examples = queries[self.query].examples
        self.columns.check(len(self.instruction.labels), len(examples))
        if unknown := {example.label for example in examples} - set(self.instruction.labels):
            raise ValueError(f"its query has the label {min(unknown)!r}, which the instruction does not have")


def pack_predictions(predictions: Sequence[Prediction], labels: tuple[str, ...]) -> str:
    """The predictions, packed for `Record.answers`."""
    return _pack(Predictions.of(predictions, labels).model_dump())


def _pack(value: object) -> str:
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return base64.b64encode(zlib.compress(encoded, 9)).decode()


def _unpack(packed: str) -> Any:
    """Raises `ValueError`."""
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(packed), LARGEST)
        return json.loads(unpacked.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError, zlib.error) as error:
        raise ValueError(f"a packed field cannot be unpacked: {error}") from error


@dataclass(frozen=True)
class Run:
    """The content of run folders: the latest record of each cell, and all queries."""

    records: Mapping[str, Record]
    """Records by key. If a cell has several, a done record beats a failed one, then the later one counts."""
    queries: Mapping[str, Query]
    damaged: tuple[str, ...] = ()
    """Skipped lines, each with its file, number and error."""

    @classmethod
    def read(cls, *folders: Path) -> Self:
        """Read and check run folders. Raises `ArtefactError` if one is not a run folder or cannot be read."""
        damaged: list[str] = []
        queries: dict[str, Query] = {}
        records: dict[str, Record] = {}
        for folder in folders:
            path = folder / RECORDS
            if not path.exists():
                raise ArtefactError(
                    f"{folder} is not a run folder: it has no {RECORDS}. Make one with: "
                    f"promptmii evaluate -o {quoted(folder)}"
                )
            queries |= {query.key: query for _, query in _lines(folder / QUERIES, Query, damaged)}
            for number, record in _lines(path, Record, damaged):
                try:
                    record.check(queries)
                except ValueError as error:
                    damaged.append(f"{path}, line {number}: {_reason(error)}")
                    continue
                previous = records.get(record.key)
                if previous is None or _rank(record) >= _rank(previous):
                    records[record.key] = record
        return cls(records, queries, tuple(damaged))

    @cached_property
    def superseded(self) -> frozenset[str]:
        """Keys of cells that were run again later under changed settings.

        Such a run of a method at n = 0 supersedes its cells at each n, and the other way round.
        """
        by_time = sorted(self.records.values(), key=lambda record: record.finished)
        latest = {record.cell: record.key for record in by_time}
        at_n_0 = {record.cell.without_draw: record.cell.n == 0 for record in by_time}
        return frozenset(
            record.key
            for record in by_time
            if latest[record.cell] != record.key or at_n_0[record.cell.without_draw] != (record.cell.n == 0)
        )

    @property
    def failed(self) -> tuple[Record, ...]:
        """The records of failed cells, without superseded ones."""
        records = self.records.values()
        return tuple(record for record in records if record.status == "failed" and record.key not in self.superseded)


def _rank(record: Record) -> tuple[bool, str]:
    """Of several records of a cell, the highest rank counts."""
    return record.status == "done", record.finished


def _lines(path: Path, kind: type[Line], damaged: list[str]) -> Iterator[tuple[int, Line]]:
    """The valid lines of a file, if it exists, with their numbers. Raises `ArtefactError` if it cannot be read."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield number, kind.model_validate_json(line)
                except ValueError as error:
                    damaged.append(f"{path}, line {number}: {_reason(error)}")
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error.strerror or error}.") from error


def _reason(error: ValueError) -> str:
    """The first error, on one line."""
    return first_problem(error) if isinstance(error, ValidationError) else str(error)


class Recorder:
    """Appends to a run folder. `add` returns once the lines are on disk."""

    def __init__(self, folder: Path) -> None:
        """The caller must hold the lock (`locked`) on the folder. Raises `OutputError`, `ArtefactError`."""
        self._folder = folder
        append_line(folder / RECORDS, b"")
        self.run = Run.read(folder)
        """The records in the folder at the start."""
        self._queries = set(self.run.queries)

    def add(self, record: Record, query: Query | None = None) -> None:
        """Append a record, and its query if that is new. Raises `OutputError`, and leaves earlier lines intact."""
        if query is not None and query.key not in self._queries:
            append_line(self._folder / QUERIES, _line(query))
            self._queries.add(query.key)
        append_line(self._folder / RECORDS, _line(record))


def _line(value: Frozen) -> bytes:
    return (value.model_dump_json(exclude_defaults=True) + "\n").encode()
