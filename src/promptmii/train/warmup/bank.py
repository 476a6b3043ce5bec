"""The bank of label descriptions: what an annotator would write about each label, several ways, by task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

import promptmii.data
from promptmii.errors import DataError
from promptmii.schema import Frozen

SHIPPED = Path(promptmii.data.__file__).with_name("descriptions")
"""Descriptions of the labels of 77 public tasks and of the written ones, made for this package."""


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
