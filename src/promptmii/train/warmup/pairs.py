"""Training pairs for fine-tuning a generator: labels and examples, and the instruction to write for them."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

import promptmii.data
from promptmii.data.nameless import hide_names
from promptmii.errors import DataError
from promptmii.schema import Frozen, first_problem
from promptmii.task import Example, Support, Task
from promptmii.train.settings import SftSettings

SHIPPED = Path(promptmii.data.__file__).with_name("descriptions")
"""Label descriptions of 77 public tasks and the written ones, made for this package."""


@dataclass(frozen=True)
class Pair:
    """A support and a good instruction for it."""

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

    Raises `DataError` with the line at fault.
    """
    pairs: list[Pair] = []
    for number, line in _lines(path):
        try:
            row = _Line.model_validate_json(line)
        except ValidationError as error:
            problem = first_problem(error, "the line")
            raise DataError(f"{path}, line {number}: {problem}. Expected labels, examples and instruction.") from error
        if not row.instruction.strip():
            raise DataError(f"{path}, line {number}: the instruction is empty.")
        try:
            pairs.append(Pair(Support(row.labels, row.examples), row.instruction.strip()))
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    if not pairs:
        raise DataError(f"The pairs file {path} holds no pair.")
    return pairs


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a file, without blank ones. Raises `DataError`."""
    try:
        # Texts may hold other line separators, such as U+2028, at which `splitlines` would split.
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Expected UTF-8 JSON lines.") from error
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def pair_line(pair: Pair, **source: str | int | float) -> bytes:
    """A pair as a line of a pairs file. `source` may hold `task`, `visit` and `reward`."""
    examples = [{"text": example.text, "label": example.label} for example in pair.support.examples]
    row = {**source, "labels": pair.support.labels, "examples": examples, "instruction": pair.instruction}
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")


class _Sentence(Frozen):
    task: str
    description: str


class _Entry(Frozen):
    label: str
    descriptions: tuple[str, ...] = Field(min_length=1)


_BANK_LINE = TypeAdapter[_Sentence | _Entry](_Sentence | _Entry)


@dataclass(frozen=True)
class Guide:
    """Descriptions of one task and of its labels."""

    sentence: str
    """Describes the inputs and the decision."""
    descriptions: Mapping[str, tuple[str, ...]]
    """At least one per label, the best first."""

    def covers(self, labels: Sequence[str]) -> bool:
        """True if every label is described."""
        return all(label in self.descriptions for label in labels)

    def text(self, shown: Mapping[str, str]) -> str:
        """An instruction: the sentence, then one line per label. `shown` maps labels to their shown names, in order."""
        lines = [f"{name}: {self.descriptions[label][0]}" for label, name in shown.items()]
        return "\n".join([self.sentence, *lines])


def read_bank(folder: Path) -> dict[str, Guide]:
    """Guides by task, read from `<task>.jsonl`.

    A file has one `{"task", "description"}` line, then a `{"label", "descriptions"}` line per label.

    Raises `DataError` with the file and line at fault.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(f"The bank {folder} holds no .jsonl files; expected one per task, as in {SHIPPED}.")
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Guide:
    sentence = ""
    descriptions: dict[str, tuple[str, ...]] = {}
    for number, line in _lines(path):
        try:
            row = _BANK_LINE.validate_json(line)
        except ValidationError as error:
            expected = '{"task": ..., "description": ...} or {"label": ..., "descriptions": [...]}'
            raise DataError(f"{path}, line {number}, cannot be read: expected {expected}.") from error
        if isinstance(row, _Sentence):
            sentence = row.description
        else:
            descriptions[row.label] = row.descriptions
    if not sentence or not descriptions:
        raise DataError(f"{path} needs one line that describes the task, and one for each label.")
    return Guide(sentence, descriptions)


class PairStream:
    """Pairs sampled from tasks and the bank: some labels of a task, some of their rows, and the bank's descriptions."""

    def __init__(self, tasks: Mapping[str, Task], bank: Mapping[str, Guide], settings: SftSettings) -> None:
        """Raises `DataError` if no task can be used."""
        self._settings = settings
        self._rows: dict[str, dict[str, list[Example]]] = {}
        self._guides: dict[str, Guide] = {}
        self.skipped: list[str] = []
        """Unusable tasks, each with the reason."""
        for name, task in tasks.items():
            short = [example for example in task.train if len(example.text) <= settings.max_chars]
            by_label = {label: [example for example in short if example.label == label] for label in task.labels}
            rows = {label: examples for label, examples in by_label.items() if len(examples) >= 3}
            if len(rows) < 2:
                self.skipped.append(
                    f"{name}: fewer than two labels have three texts of up to {settings.max_chars} characters"
                )
            elif name not in bank or not bank[name].covers(list(rows)):
                self.skipped.append(f"{name}: the bank does not describe it")
            else:
                self._rows[name], self._guides[name] = rows, bank[name]
        self.tasks = {name: tasks[name] for name in self._rows}
        """The usable tasks."""
        if not self._rows:
            raise DataError(
                f"No task is usable for pairs ({'; '.join(self.skipped[:3]) or 'none was given'}). Name other tasks "
                "or another bank, or give a pairs file."
            )

    def draw(self, index: int, hidden: bool | None = None) -> Pair:
        """Pair number `index`, determined by it and the seed. `hidden` overrides the random choice to hide names."""
        rng = random.Random(f"{self._settings.seed}/pair/{index}")
        names = list(self._rows)
        task = rng.choices(names, [math.sqrt(len(self._rows[name])) for name in names])[0]
        rows, n = self._rows[task], rng.choice(self._settings.examples)
        low, high = self._settings.labels
        fewest = min(low, len(rows))
        most = max(min(high, len(rows), n), fewest)  # at most n, because each label needs an example
        labels = sorted(rng.sample(list(rows), rng.randint(fewest, most)), key=list(rows).index)
        hide = rng.random() < self._settings.hidden  # drawn in any case, so that `hidden` changes nothing else
        if hidden is not None:
            hide = hidden
        shown = hide_names(labels, rng) if hide else {label: label for label in labels}
        if rng.random() < 0.5:
            shown = dict(sorted(shown.items(), key=lambda item: item[1]))  # by the shown name
        support = Support(tuple(shown.values()), self._examples(rows, shown, n, rng))
        return Pair(support, self._guides[task].text(shown))

    def _examples(
        self, rows: Mapping[str, Sequence[Example]], shown: Mapping[str, str], n: int, rng: random.Random
    ) -> tuple[Example, ...]:
        """One example per label, then random ones as far as they fit `support_chars`."""
        pools = {label: rng.sample(rows[label], len(rows[label])) for label in shown}
        order = [*rng.sample(list(shown), len(shown)), *rng.choices(list(shown), k=n)][: max(n, len(shown))]
        examples = [pools[label].pop() for label in order if pools[label]]
        limit = self._settings.support_chars
        while len(examples) > len(shown) and sum(len(example.text) for example in examples) > limit:
            examples.pop()
        return tuple(Example(example.text, shown[example.label]) for example in examples)
