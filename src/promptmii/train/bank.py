"""The bank of label descriptions: what an annotator would write about each label, several ways, by task."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from promptmii.errors import DataError
from promptmii.models.base import Outline
from promptmii.schema import Frozen

CLOSINGS = ("", "", "Answer with the label alone.", "Reply with one label and nothing else.", "Give only the label.")
MARKS = ("{label}: {text}", "{label}: {text}", "- {label}: {text}", "{label} - {text}", "* {label}: {text}")
NAMED = "Typical words: {words}."
"""How a line names the cue words of its label (`train/cues.py`)."""
WORDS_ALONE = Outline("{label}: Typical words:", "Answer with the label alone.")
"""What a guide of cue words alone fills in."""
BARE = "anything else."
"""A line without description and without cue words."""


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

    def plain(
        self, shown: Mapping[str, str], cues: Mapping[str, Sequence[str]] | None = None, *, described: bool = True
    ) -> str:
        """An instruction in the form that the generator's prompt asks for: one sentence, one line per label, the closing.

        `shown` maps each label to the name it is given, in order. Of several descriptions the shortest is taken: what can be said in
        few words a small model can learn to say. Not `described`, it is cue words and the closing alone.
        """
        said = {label: min(self.descriptions[label], key=len) if described else "" for label in shown}
        lines = [f"{name}: {_line(said[label], (cues or {}).get(label, ()))}" for label, name in shown.items()]
        return "\n".join([*([self.sentence] if described else []), *lines, WORDS_ALONE.closing])

    def text(
        self,
        shown: Mapping[str, str],
        stream: random.Random,
        *,
        opening: float = 0.8,
        cues: Mapping[str, Sequence[str]] | None = None,
        described: bool = True,
    ) -> str:
        """An instruction in many forms: labels in order, each with one of its descriptions (if `described`) and its `cues`.

        `opening` is the chance of the task's sentence at the beginning; lines and closing vary too.
        """
        mark = stream.choice(MARKS)
        said = {label: stream.choice(self.descriptions[label]) if described else "" for label in shown}
        lines = [
            mark.format(label=name, text=_line(said[label], (cues or {}).get(label, ())))
            for label, name in shown.items()
        ]
        first = [self.sentence] if stream.random() < opening else []
        closing = stream.choice(CLOSINGS)
        return "\n".join([*first, *lines, *([closing] if closing else [])])


def _line(description: str, cues: Sequence[str]) -> str:
    """What stands after a label's name."""
    return " ".join(part for part in (description, NAMED.format(words=", ".join(cues)) if cues else "") if part) or BARE


def read_bank(folder: Path) -> dict[str, Guide]:
    """Guides by task name from `<task>.jsonl` files: one `{"task", "description"}` line, then `{"label", "descriptions"}` lines.

    Raises `DataError` with the file and line that is wrong.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(
            f"The bank {folder} holds no .jsonl files; expected one for each task, such as corpora/descriptions."
        )
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
