"""The run folder of an evaluation: one line per finished cell, appended once and never changed.

    config.json        the settings
    records.jsonl      a `Record` a line: a cell of the grid, its score and cost, and every prediction
    queries.jsonl      the labelled rows, each set once; records name them by key
    answers.sqlite     the answers of models, so that a cell that was cut short pays nothing twice

A record's key is a hash of everything that its result depends on, so a rerun skips what is there, and a changed
template, model or data file never mixes with earlier results.

`Run.read` is the one door: it checks every line, down to each prediction. It names and leaves out a line that was cut
short, edited or damaged, and the cell of that line counts as not done.
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
from promptmii.files import append_line
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction, Mode
from promptmii.models.base import Failure, FailureKind
from promptmii.parse import Match
from promptmii.schema import Frozen
from promptmii.task import Example, content_key

Line = TypeVar("Line", bound=Frozen)
RECORDS, QUERIES = "records.jsonl", "queries.jsonl"
DIGITS = 4
"""Decimals of the stored probabilities."""
LARGEST = 1 << 28
"""Bytes that one packed field may unpack to."""


class Cell(Frozen):
    """One point of the grid: a way of prompting, on a task, from n examples."""

    task: str
    method: str
    n: int
    """Examples asked for; 0 where the method reads none."""
    seed: int
    generator: str | None
    """Reference of the model that writes; `None` where nothing is written."""
    follower: str
    mode: Mode

    @property
    def name(self) -> str:
        """For progress and errors."""
        writer = f" by {self.generator}" if self.generator else ""
        return f"{self.task} / {self.method}{writer} / n={self.n} / seed {self.seed} / {self.follower}"


class Query(Frozen):
    """Labelled rows. Equal rows are one query, whichever cells they belong to."""

    key: str
    task: str
    rows: str
    """Packed pairs of text and label."""

    @classmethod
    def of(cls, task: str, examples: Iterable[Example]) -> Self:
        """The rows under their content hash."""
        pairs = [[example.text, example.label] for example in examples]
        return cls(key=content_key(pairs), task=task, rows=_pack(pairs))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if content_key(_unpack(self.rows)) != self.key:
            raise ValueError("its rows do not match its key")
        return self

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The rows."""
        return tuple(Example(text, label) for text, label in _unpack(self.rows))


class Predictions(Frozen):
    """Predictions as columns, each in the order of the query."""

    labels: list[Annotated[int, Field(ge=0)] | None]
    """Numbers of labels in the instruction."""
    probabilities: list[list[Annotated[float, Field(ge=0, le=1)]] | None]
    answers: list[str | None]
    matches: list[Match | None]
    failures: list[tuple[FailureKind, str] | None]
    truncated: list[bool]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], labels: tuple[str, ...]) -> Self:
        """Everything that a metric needs; probabilities are rounded."""
        numbers: dict[str | None, int | None] = {label: i for i, label in enumerate(labels)} | {None: None}
        return cls(
            labels=[numbers[p.label] for p in predictions],
            probabilities=[
                [round(x, DIGITS) for x in p.probabilities] if p.probabilities else None for p in predictions
            ],
            answers=[p.answer for p in predictions],
            matches=[p.match for p in predictions],
            failures=[(p.failure.kind, p.failure.message) if p.failure else None for p in predictions],
            truncated=[p.truncated for p in predictions],
        )

    def rows(self, labels: tuple[str, ...]) -> list[Prediction]:
        """The predictions again, without their cost."""
        columns = (self.labels, self.probabilities, self.matches, self.failures, self.truncated, self.answers)
        return [
            Prediction(
                None if number is None else labels[number],
                tuple(probabilities) if probabilities else None,
                match=match,
                failure=Failure(*failure) if failure else None,
                truncated=truncated,
                answer=answer,
            )
            for number, probabilities, match, failure, truncated, answer in zip(*columns, strict=True)
        ]

    def check(self, labels: int, rows: int) -> None:
        """Raise `ValueError` unless there is one prediction per row, each of the given number of labels."""
        if any(len(column) != rows for _, column in self):
            raise ValueError(f"it does not hold one prediction for each of the {rows} rows of its query")
        if any(number is not None and number >= labels for number in self.labels):
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
    """Why it failed; such a cell has no numbers."""
    instruction: Instruction | None = None
    """With its cost, its calibration, and its measured score: macro-F1, interval and counts."""
    spent: Cost = Cost()
    """On labelling the query; making the instruction is in `instruction.cost`."""
    query: str | None = None
    """Key of the labelled rows."""
    answers: str | None = None
    """Packed `Predictions`."""
    machine: str | None = None
    """A description of the machine."""
    revisions: dict[str, str] = Field(default_factory=dict[str, str])
    """Revisions of the models, by reference: hashes of weights and chat template, or the server's name and address."""
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
        """Every prediction, as columns; none if the cell failed. Not kept: a run may hold millions."""
        return Predictions.model_validate(_unpack(self.answers)) if self.answers else Predictions.of((), ())

    @property
    def labels(self) -> list[str | None]:
        """Predicted labels, in the order of the query; empty if the cell failed."""
        names: tuple[str, ...] = self.instruction.labels if self.instruction else ()
        return [None if number is None else names[number] for number in self.columns.labels]

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction, in the order of the query; empty if the cell failed."""
        return self.columns.rows(self.instruction.labels if self.instruction else ())

    def scored(self, queries: Mapping[str, Query]) -> tuple[list[str], list[str | None]]:
        """Gold and predicted labels of a done cell, from which any metric can be computed."""
        return [example.label for example in queries[str(self.query)].examples], self.labels

    def check(self, queries: Mapping[str, Query]) -> None:
        """Raise `ValueError` unless query and predictions fit each other and the instruction."""
        if self.status == "failed" or self.instruction is None:
            return
        if self.query is None or self.query not in queries:
            raise ValueError("its query rows are missing")
        examples = queries[self.query].examples
        self.columns.check(len(self.instruction.labels), len(examples))
        if strange := {example.label for example in examples} - set(self.instruction.labels):
            raise ValueError(f"its query has the label {min(strange)!r}, which the instruction does not have")


def pack_predictions(predictions: Sequence[Prediction], labels: tuple[str, ...]) -> str:
    """The `answers` of a record."""
    return _pack(Predictions.of(predictions, labels).model_dump(mode="python"))


def _pack(value: object) -> str:
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return base64.b64encode(zlib.compress(plain, 9)).decode()


def _unpack(packed: str) -> Any:
    """Raises `ValueError`."""
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(packed), LARGEST)
        return json.loads(unpacked.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError, zlib.error) as error:
        raise ValueError(f"a packed field cannot be unpacked: {error}") from error


@dataclass(frozen=True)
class Run:
    """The content of run folders: the latest record of every cell, and the queries that records name."""

    records: Mapping[str, Record]
    """By key. Of several records of a cell, a finished one takes precedence over a failed one."""
    queries: Mapping[str, Query]
    damaged: tuple[str, ...] = ()
    """Lines left out, each with its file, number and fault."""

    @classmethod
    def read(cls, *folders: Path) -> Self:
        """Read and check run folders. Raises `ArtefactError` if one is none, or cannot be read."""
        damaged: list[str] = []
        queries: dict[str, Query] = {}
        records: dict[str, Record] = {}
        for folder in folders:
            path = folder / RECORDS
            if not path.exists():
                raise ArtefactError(
                    f"{folder} is no run folder: it has no {RECORDS}. Make one with: promptmii evaluate -o {folder}"
                )
            queries |= {query.key: query for _, query in _lines(folder / QUERIES, Query, damaged)}
            for number, record in _lines(path, Record, damaged):
                try:
                    record.check(queries)
                except ValueError as error:
                    damaged.append(f"{path}, line {number}: {_reason(error)}")
                    continue
                known = records.get(record.key)
                if known is None or _rank(record) >= _rank(known):
                    records[record.key] = record
        return cls(records, queries, tuple(damaged))

    @property
    def failed(self) -> tuple[Record, ...]:
        """The cells that have no score."""
        return tuple(record for record in self.records.values() if record.status == "failed")


def _rank(record: Record) -> tuple[bool, str]:
    return record.status == "done", record.finished


def _lines(path: Path, kind: type[Line], damaged: list[str]) -> Iterator[tuple[int, Line]]:
    """Numbered lines of a file that may be missing. Raises `ArtefactError` if it cannot be read."""
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
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")


class Recorder:
    """Appends to a run folder. Each line is on the disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        """The folder is `locked` by whoever records."""
        self._folder = folder
        append_line(folder / RECORDS, b"")
        self.run = Run.read(folder)
        """The records in the folder at the start."""
        self._queries = set(self.run.queries)

    def add(self, record: Record, query: Query | None = None) -> None:
        """Append a record, and its query if that is new. Raises `OutputError`; earlier lines stay whole."""
        if query is not None and query.key not in self._queries:
            append_line(self._folder / QUERIES, _line(query))
            self._queries.add(query.key)
        append_line(self._folder / RECORDS, _line(record))


def _line(value: Frozen) -> bytes:
    return (value.model_dump_json(exclude_defaults=True) + "\n").encode()
