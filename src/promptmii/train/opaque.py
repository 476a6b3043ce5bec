"""Names that say nothing, to stand in for a task's labels: a model that must do without a label's name has to read what is said of it."""

import random
import string
from collections.abc import Callable, Sequence

Names = Callable[[int, random.Random], list[str]]


def _letters(k: int, stream: random.Random) -> list[str]:
    return stream.sample(string.ascii_uppercase, k) if stream.random() < 0.4 else list(string.ascii_uppercase[:k])


def _numbers(k: int, stream: random.Random) -> list[str]:
    first = stream.choice((0, 0, 1, 1, 10))
    return [str(first + i) for i in range(k)]


def _numbered(word: str) -> Names:
    return lambda k, stream: [f"{word}{number}" for number in _numbers(k, stream)]


def _lettered(word: str) -> Names:
    return lambda k, stream: [f"{word}{letter}" for letter in _letters(k, stream)]


FAMILIES: tuple[Names, ...] = (
    _letters,
    _letters,
    _letters,
    _numbers,
    _numbers,
    _numbered("class "),
    _numbered("label_"),
    _numbered("LABEL_"),
    _numbered("C"),
    _lettered("class "),
    _lettered("option "),
    _numbered("category "),
)
MOST = len(string.ascii_uppercase)


def hide(labels: Sequence[str], stream: random.Random) -> dict[str, str]:
    """A nameless name for each label, in random order; there may be at most `MOST` labels."""
    names = stream.choice(FAMILIES)(len(labels), stream)
    stream.shuffle(names)
    return dict(zip(labels, names, strict=True))
