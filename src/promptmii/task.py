"""The nouns of the data side: Example, Support, Episode, Task.

All are frozen and validated when made, so that nothing downstream has to ask again whether a gold label
belongs to the label set. `Support` is what a method may see; `Episode` adds the query rows, which only
scoring may see. Handing an `Episode` to an inducer is therefore a type error, not a leak.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from promptmii.errors import DataError


def normalise_text(text: str) -> str:
    """The form in which two texts count as the same row: NFKC, case-folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_key(text: str) -> str:
    """Hash by which a row is known again without its text being kept."""
    return content_key(normalise_text(text))[:16]


def content_key(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`; equal content gives an equal key on every machine."""
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text."""

    text: str
    label: str


def check_labels(labels: tuple[str, ...], owner: str) -> None:
    """Raise `DataError` unless `labels` are two or more different, non-empty, one-line strings."""
    if len(labels) < 2:
        raise DataError(
            f"{owner} has {len(labels)} label(s) ({', '.join(labels)}); a classification task needs at least two."
        )
    if len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise DataError(f"{owner} names these labels more than once: {', '.join(twice)}.")
    for label in labels:
        if not label or label != " ".join(label.split()) or any(map(_is_unseen, label)):
            raise DataError(
                f"{owner}: the label {label!r} must be one line of visible text without outer or double spaces."
            )


def _is_unseen(character: str) -> bool:
    """Control characters, half characters, and marks that belong to no word.

    The joiners U+200C and U+200D are orthography in Persian, Indic scripts and emoji, tags (U+E0020...) in flags.
    """
    kind = unicodedata.category(character)
    invisible = kind == "Cf" and (character in "\u00ad\u061c\ufeff" or "\u200b" <= character <= "\u206f")
    return kind in ("Cc", "Cs", "Zl", "Zp") or (invisible and character not in "\u200c\u200d")


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
    """The labelled examples that a method may learn from, and the task's label set. Examples may be few or none."""

    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        check_labels(self.labels, "The support")
        _check_examples(self.examples, self.labels, "The support")

    @cached_property
    def key(self) -> str:
        """Content hash of labels and examples, order included."""
        return content_key([self.labels, [(e.text, e.label) for e in self.examples]])


@dataclass(frozen=True)
class Episode:
    """One draw from a task: a support, and query rows that stay hidden from every method."""

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
    """A human's zero-shot instruction for the task, where its source carries one."""
    source: dict[str, str] = field(default_factory=dict[str, str])
    """Where it comes from (repository, revision, licence, columns): free text for cards and records."""

    def __post_init__(self) -> None:
        check_labels(self.labels, f"Task {self.name!r}")
        _check_examples(self.rows, self.labels, f"Task {self.name!r}")

    @property
    def rows(self) -> tuple[Example, ...]:
        """Those of the training part, then those of the test part."""
        return (*self.train, *self.test)

    @cached_property
    def key(self) -> str:
        """Content hash of everything that can change a score: labels, train and test rows."""
        rows = [[(e.text, e.label) for e in part] for part in (self.train, self.test)]
        return content_key([self.labels, *rows])
