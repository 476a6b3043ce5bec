"""What an evaluation leaves behind: one line per finished cell, appended once and never changed.

A run folder holds

    config.json        what was asked for
    records.jsonl      a `Record` a line: a cell of the grid, what it scored and cost, and every prediction
    queries.jsonl      the rows that were labelled, each set once; records name them by key
    answers.sqlite     what models answered, so that a cell that was cut short pays nothing twice

A record's key is a hash of everything that its result depends on, so a rerun skips what is there and a changed
template, model or data file never mixes with what was measured before it.
"""

import base64
import json
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import ValidationError

from promptmii.errors import ArtefactError
from promptmii.files import append_line, locked
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction, Mode
from promptmii.models.base import Failure, FailureKind
from promptmii.parse import Match
from promptmii.schema import Frozen
from promptmii.task import Example, content_key

Line = TypeVar("Line", bound=Frozen)
DIGITS = 4
"""Decimals of the probabilities that are kept."""


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
    """Rows that were labelled. Equal rows are one query, whichever cells they belong to."""

    key: str
    task: str
    rows: str
    """Packed pairs of text and label."""

    @classmethod
    def of(cls, task: str, examples: Iterable[Example]) -> Self:
        """The rows under their content hash."""
        pairs = [[example.text, example.label] for example in examples]
        return cls(key=content_key(pairs), task=task, rows=_pack(pairs))

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The rows."""
        return tuple(Example(text, label) for text, label in _unpack(self.rows))


class Record(Frozen):
    """What became of one cell."""

    format: Literal[1] = 1
    key: str
    cell: Cell
    status: Literal["done", "failed"]
    error: str | None = None
    """Why it failed; such a cell has no numbers."""
    instruction: Instruction | None = None
    """With its cost, its calibration, and how it was measured: macro-F1, interval and counts."""
    spent: Cost = Cost()
    """On labelling the query; what the instruction cost to make is in `instruction.cost`."""
    query: str | None = None
    """Key of the rows that were labelled."""
    answers: str | None = None
    """Packed predictions, one per row of the query."""
    finished: str
    """Date and time, ISO 8601, UTC."""

    @property
    def columns(self) -> dict[str, list[Any]]:
        """What is kept of the predictions: label numbers (`None` where there was none) and `COLUMNS`, each in the order of the query.

        Empty where the cell failed. Raises `ArtefactError` where the file was damaged.
        """
        return _unpack(self.answers) if self.answers is not None else {"labels": [], **{name: [] for name in COLUMNS}}

    @property
    def labels(self) -> list[str | None]:
        """Predicted labels, in the order of the query; empty where the cell failed."""
        names: tuple[str, ...] = self.instruction.labels if self.instruction else ()
        return [None if number is None else names[int(number)] for number in self.columns["labels"]]

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction again, its cost aside; empty where the cell failed."""
        columns = self.columns
        rows = zip(self.labels, *(columns[name] for name in COLUMNS), strict=True)
        return [_prediction(label, *row) for label, *row in rows]


COLUMNS = ("probabilities", "answers", "matches", "failures", "truncated")


def pack_predictions(predictions: Sequence[Prediction], labels: tuple[str, ...]) -> str:
    """Labels, probabilities to four decimals, answers, failures: enough to compute any metric without a model."""
    numbers: dict[str | None, int | None] = {label: i for i, label in enumerate(labels)} | {None: None}
    columns = {
        "labels": [numbers[p.label] for p in predictions],
        "probabilities": [
            [round(x, DIGITS) for x in p.probabilities] if p.probabilities else None for p in predictions
        ],
        "answers": [p.answer for p in predictions],
        "matches": [p.match for p in predictions],
        "failures": [[p.failure.kind, p.failure.message] if p.failure else None for p in predictions],
        "truncated": [p.truncated for p in predictions],
    }
    return _pack(columns)


def _prediction(
    label: str | None,
    probabilities: list[float] | None,
    answer: str | None,
    match: str | None,
    failure: list[str] | None,
    truncated: bool,
) -> Prediction:
    return Prediction(
        label,
        tuple(probabilities) if probabilities else None,
        match=Match(match) if match else None,
        failure=Failure(FailureKind(failure[0]), failure[1]) if failure else None,
        truncated=truncated,
        answer=answer,
    )


def _pack(value: object) -> str:
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return base64.b64encode(zlib.compress(plain, 9)).decode()


def _unpack(packed: str) -> Any:
    try:
        return json.loads(zlib.decompress(base64.b64decode(packed)).decode("utf-8", "surrogatepass"))
    except (ValueError, zlib.error) as error:
        raise ArtefactError(
            f"A record or query cannot be unpacked ({error}): the file was changed. Remove that line and run again."
        ) from error


@dataclass(frozen=True)
class Run:
    """A run folder as it is read: the latest record of every cell, and the queries that records name."""

    folder: Path
    records: Mapping[str, Record]
    queries: Mapping[str, Query]
    damaged: tuple[str, ...] = ()
    """Lines that could not be read, each with its file, number and fault. Their cells count as not done."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run folder. Raises `ArtefactError` where it is none."""
        if not (folder / "records.jsonl").exists():
            raise ArtefactError(
                f"{folder} is no run folder: it has no records.jsonl. Make one with: promptmii evaluate -o {folder}"
            )
        damaged: list[str] = []
        queries = {query.key: query for query in _lines(folder / "queries.jsonl", Query, damaged)}
        records: dict[str, Record] = {}
        for record in _lines(folder / "records.jsonl", Record, damaged):
            if record.query is not None and record.query not in queries:
                damaged.append(f"records.jsonl: {record.cell.name}: its query rows are missing")
                continue
            records[record.key] = record
        return cls(folder, records, queries, tuple(damaged))

    @property
    def failed(self) -> tuple[Record, ...]:
        """The cells that have no score."""
        return tuple(record for record in self.records.values() if record.status == "failed")

    def scored(self, record: Record) -> tuple[list[str], list[str | None]]:
        """Gold and predicted labels of a done cell, to compute any metric from."""
        return [example.label for example in self.queries[str(record.query)].examples], record.labels


def _lines(path: Path, kind: type[Line], damaged: list[str]) -> Iterator[Line]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                damaged.append(f"{path.name}, line {number}: {error.errors()[0]['msg']}")


class Writer:
    """Appends to a run folder. Each line is on the disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        """Use `writing`, which locks the folder."""
        self._folder = folder
        self._queries = set(Run.read(folder).queries) if (folder / "records.jsonl").exists() else set[str]()
        self._append("records.jsonl", b"")

    def add(self, record: Record, query: Query | None = None) -> None:
        """Append a record, and its query where that is new. Raises `OutputError` on a full disk; what was there stays whole."""
        if query is not None and query.key not in self._queries:
            self._append("queries.jsonl", _line(query))
            self._queries.add(query.key)
        self._append("records.jsonl", _line(record))

    def _append(self, name: str, line: bytes) -> None:
        append_line(self._folder / name, line)


def _line(value: Frozen) -> bytes:
    return (value.model_dump_json(exclude_defaults=True) + "\n").encode()


@contextmanager
def writing(folder: Path) -> Generator[Writer]:
    """Records are appended to a folder that is `locked`. Raises `OutputError`."""
    with locked(folder):
        yield Writer(folder)
