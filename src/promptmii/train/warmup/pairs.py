"""Pairs for warming up a generator: what it reads (labels and examples) and the instruction it should write."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

import promptmii.data
from promptmii.data.nameless import hide
from promptmii.errors import DataError
from promptmii.schema import Frozen
from promptmii.task import Example, Support, Task
from promptmii.train.settings import SftSettings

SHIPPED = Path(promptmii.data.__file__).with_name("descriptions")
"""Descriptions of the labels of 77 public tasks and of the written ones, made for this package."""


@dataclass(frozen=True)
class Pair:
    """A support, and a good instruction for it."""

    support: Support
    instruction: str


class _Line(Frozen):
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    instruction: str
    task: str = ""
    visit: int | None = None
    reward: float | None = None


def read_pairs(path: Path) -> list[Pair]:
    """Pairs from JSON lines `{"labels": [...], "examples": [{"text", "label"}, ...], "instruction": "..."}`.

    Raises `DataError` with the line that is wrong.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The pairs file {path} cannot be read: {error}. Expected UTF-8 JSON lines.") from error
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise DataError(
                f"{path}, line {number}: {where}: {first['msg']}. Expected labels, examples and instruction."
            ) from error
        if not row.instruction.strip():
            raise DataError(f"{path}, line {number}: the instruction is empty.")
        pairs.append(Pair(Support(row.labels, row.examples), row.instruction.strip()))
    if not pairs:
        raise DataError(f"The pairs file {path} holds no pair.")
    return pairs


def pair_line(pair: Pair, **known: str | int | float) -> bytes:
    """One line of a pairs file; `known` are `task`, `visit` and `reward`."""
    examples = [{"text": example.text, "label": example.label} for example in pair.support.examples]
    row = {**known, "labels": pair.support.labels, "examples": examples, "instruction": pair.instruction}
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")


class _Sentence(Frozen):
    task: str
    description: str


class _Entry(Frozen):
    label: str
    descriptions: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Guide:
    """Descriptions of one task and of its labels."""

    sentence: str
    """What the inputs are and what is to be decided."""
    descriptions: Mapping[str, tuple[str, ...]]
    """By label, one or more."""

    def covers(self, labels: Sequence[str]) -> bool:
        """Every label is described."""
        return all(label in self.descriptions for label in labels)

    def text(self, shown: Mapping[str, str]) -> str:
        """An instruction as the generator's prompt asks for it: one sentence, then one line per label.

        `shown` maps each label to the name it is given, in order. The first description is the best.
        """
        lines = [f"{name}: {self.descriptions[label][0]}" for label, name in shown.items()]
        return "\n".join([self.sentence, *lines])


def read_bank(folder: Path) -> dict[str, Guide]:
    """Guides by task from `<task>.jsonl`: one `{"task", "description"}` line, then `{"label", "descriptions"}` lines.

    Raises `DataError` with the file and line that is wrong.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(f"The bank {folder} holds no .jsonl files; expected one per task, as in {SHIPPED}.")
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Guide:
    sentence = ""
    descriptions: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if "task" in row:
                sentence = _Sentence.model_validate(row).description
            else:
                entry = _Entry.model_validate(row)
                descriptions[entry.label] = entry.descriptions
        except (ValueError, TypeError, ValidationError) as error:
            expected = '{"task": ..., "description": ...} or {"label": ..., "descriptions": [...]}'
            raise DataError(f"{path}, line {number}, cannot be read: expected {expected}.") from error
    if not sentence or not descriptions:
        raise DataError(f"{path} needs one line that describes the task, and one for each label.")
    return Guide(sentence, descriptions)


class PairStream:
    """Pairs made of tasks and the bank: a few labels of a task, a few of their rows, and the bank's guide to them."""

    def __init__(self, tasks: Mapping[str, Task], bank: Mapping[str, Guide], sizes: SftSettings) -> None:
        """Raises `DataError` if no task can be used."""
        self._sizes = sizes
        self._rows: dict[str, dict[str, list[Example]]] = {}
        self._guides: dict[str, Guide] = {}
        self.skipped: list[str] = []
        """The tasks that cannot be used, with the reason."""
        for name, task in tasks.items():
            rows = short_rows(task, sizes.max_chars)
            if len(rows) < 2:
                self.skipped.append(f"{name}: under two labels have three texts of up to {sizes.max_chars} characters")
            elif name not in bank or not bank[name].covers(list(rows)):
                self.skipped.append(f"{name}: the bank does not describe it")
            else:
                self._rows[name], self._guides[name] = rows, bank[name]
        self.tasks = {name: tasks[name] for name in self._rows}
        """Those that pairs are made of."""
        if not self._rows:
            raise DataError(
                f"No pair can be made of any task ({'; '.join(self.skipped[:3]) or 'there is none'}). Name other tasks "
                "or another bank, or give a pairs file."
            )

    def draw(self, index: int, hidden: bool | None = None) -> Pair:
        """Pair `index`, from it and the seed alone; `hidden` decides about the names instead of chance."""
        stream = random.Random(f"{self._sizes.seed}/pair/{index}")
        names = list(self._rows)
        task = stream.choices(names, [math.sqrt(len(self._rows[name])) for name in names])[0]
        rows, n = self._rows[task], stream.choice(self._sizes.examples)
        low, high = self._sizes.labels
        # A label without an example could only be invented.
        k = stream.randint(min(low, len(rows)), max(min(high, len(rows), n), min(low, len(rows))))
        labels = sorted(stream.sample(list(rows), k), key=list(rows).index)
        chance = stream.random() < self._sizes.hidden
        shown = hide(labels, stream) if (chance if hidden is None else hidden) else {label: label for label in labels}
        if stream.random() < 0.5:
            shown = dict(sorted(shown.items(), key=lambda pair: pair[1]))
        support = Support(tuple(shown.values()), self._examples(rows, shown, n, stream))
        return Pair(support, self._guides[task].text(shown))

    def _examples(
        self, rows: Mapping[str, Sequence[Example]], shown: Mapping[str, str], n: int, stream: random.Random
    ) -> tuple[Example, ...]:
        """As `draw_support`: each label once before any comes twice. Over the limit, later rows are dropped."""
        pools = {label: stream.sample(rows[label], len(rows[label])) for label in shown}
        order = [*stream.sample(list(shown), len(shown)), *stream.choices(list(shown), k=n)][: max(n, len(shown))]
        drawn = [pools[label].pop() for label in order if pools[label]]
        while len(drawn) > len(shown) and sum(len(example.text) for example in drawn) > self._sizes.support_chars:
            drawn.pop()
        return tuple(Example(example.text, shown[example.label]) for example in drawn)


def short_rows(task: Task, limit: int) -> dict[str, list[Example]]:
    """Training rows by label, in the task's order; labels with fewer than three short texts are left out."""
    rows = {label: [e for e in task.train if e.label == label and len(e.text) <= limit] for label in task.labels}
    return {label: found for label, found in rows.items() if len(found) >= 3}
