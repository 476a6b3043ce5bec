"""The data types Example, Support, Episode and Task.

All are immutable and validated on creation, so later code can rely on every gold label being in the label set. A method
sees a `Support`; an `Episode` adds the query rows, which only scoring may see. Passing an `Episode` to an inducer is
therefore a type error, not a leak.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from promptmii.errors import DataError
from promptmii.messages import counted


def normalise_text(text: str) -> str:
    """Normalise a text to find duplicates: NFKC, case-folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_key(text: str) -> str:
    """A short hash that identifies a row without storing its text."""
    return content_key(normalise_text(text))[:16]


def content_key(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`, the same on every machine."""
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text."""

    text: str
    label: str


def check_labels(labels: tuple[str, ...], owner: str) -> None:
    """Raise `DataError` unless `labels` are at least two distinct, non-empty, one-line strings."""
    if len(labels) < 2:
        raise DataError(
            f"{owner} has {counted(len(labels), 'label')} ({', '.join(labels)}); "
            "a classification task needs at least two."
        )
    if len(set(labels)) != len(labels):
        duplicates = sorted({label for label in labels if labels.count(label) > 1})
        raise DataError(f"{owner} names these labels more than once: {', '.join(duplicates)}.")
    for label in labels:
        if not label or label != " ".join(label.split()) or any(map(_is_invisible, label)):
            raise DataError(
                f"{owner}: the label {label!r} must be one line of visible text without outer or double spaces."
            )


def _is_invisible(character: str) -> bool:
    """Whether a character is a control character, surrogate, line separator or invisible formatting mark.

    The joiners U+200C and U+200D are allowed, because Persian, Indic scripts and emoji need them, and so are the tags
    (U+E0020...) of flag emoji.
    """
    category = unicodedata.category(character)
    is_mark = category == "Cf" and (character in "\u00ad\u061c\ufeff" or "\u200b" <= character <= "\u206f")
    return category in ("Cc", "Cs", "Zl", "Zp") or (is_mark and character not in "\u200c\u200d")


def _check_examples(examples: Iterable[Example], labels: tuple[str, ...], owner: str) -> None:
    known = set(labels)
    for example in examples:
        if example.label not in known:
            raise DataError(
                f"{owner}: the label {example.label!r} of the text {example.text[:60]!r} is not in the label set "
                f"({', '.join(labels)})."
            )
        if not example.text.strip():
            raise DataError(f"{owner} holds an empty text (label {example.label!r}).")


@dataclass(frozen=True)
class Support:
    """The label set of a task and the labelled examples, possibly none, that a method may learn from."""

    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        check_labels(self.labels, "The support")
        _check_examples(self.examples, self.labels, "The support")

    @cached_property
    def key(self) -> str:
        """Content hash of the labels and examples in order."""
        return content_key([self.labels, [(e.text, e.label) for e in self.examples]])


@dataclass(frozen=True)
class Episode:
    """One draw from a task: a support, and query rows that no method sees."""

    task: str
    support: Support
    query: tuple[Example, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        _check_examples(self.query, self.support.labels, f"Task {self.task!r}")


@dataclass(frozen=True)
class Task:
    """A text-classification task. `labels` come from its schema or its training part, never from its test part."""

    name: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    instruction: str | None = None
    """A human zero-shot instruction for the task, if its source has one."""
    source: dict[str, str] = field(default_factory=dict[str, str])
    """The origin of the task (repository, revision, licence, columns), as free text for cards and records."""

    def __post_init__(self) -> None:
        check_labels(self.labels, f"Task {self.name!r}")
        _check_examples(self.rows, self.labels, f"Task {self.name!r}")

    @property
    def rows(self) -> tuple[Example, ...]:
        """The training rows, then the test rows."""
        return (*self.train, *self.test)

    @cached_property
    def key(self) -> str:
        """Content hash of everything that affects a score: labels, training rows and test rows."""
        rows = [[(e.text, e.label) for e in part] for part in (self.train, self.test)]
        return content_key([self.labels, *rows])
