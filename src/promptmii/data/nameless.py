"""Label names hidden behind letters and numbers: a model must then read what an instruction says of each label."""

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from promptmii.task import Example, Task

SUFFIX = ":nameless"
"""Ends the name of a task whose label names are hidden."""
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
    *(_letters, _letters, _letters, _numbers, _numbers),
    *map(_numbered, ("class ", "label_", "LABEL_", "C")),
    *map(_lettered, ("class ", "option ")),
    _numbered("category "),
)
"""The likelier ones several times."""
_NUMBERED = (_numbers, _numbered("class "), _numbered("label_"), _numbered("C"))
"""The families that go on beyond the alphabet."""


def hide(labels: Sequence[str], stream: random.Random) -> dict[str, str]:
    """A nameless name for each label, in random order."""
    families = FAMILIES if len(labels) <= len(string.ascii_uppercase) else _NUMBERED
    names = stream.choice(families)(len(labels), stream)
    stream.shuffle(names)
    return dict(zip(labels, names, strict=True))


def counting_up(shown: Mapping[str, str]) -> dict[str, str]:
    """The same in the order of the hidden names: class 2 before class 10."""
    return dict(sorted(shown.items(), key=lambda pair: (len(pair[1]), pair[1])))


def renamed(task: Task, shown: Mapping[str, str]) -> Task:
    """The task with the labels of `shown` alone, under the names that it gives them, in its order.

    A human's instruction is left out, for it speaks of the old names.
    """
    train, test = (
        tuple(Example(e.text, shown[e.label]) for e in part if e.label in shown) for part in (task.train, task.test)
    )
    return replace(task, labels=tuple(shown.values()), train=train, test=test, instruction=None)


def nameless(task: Task) -> Task:
    """The task with all its labels' names hidden, the same names at every call, in the order of the new names."""
    return replace(renamed(task, hidden_names(task)), name=task.name + SUFFIX)


def hidden_names(task: Task) -> dict[str, str]:
    """The names that `nameless` gives the labels of a task."""
    return counting_up(hide(task.labels, random.Random(task.name)))


def is_nameless(task: str) -> bool:
    """Whether a task of this name hides its label names."""
    return task.endswith(SUFFIX)


def shown_name(task: str) -> str:
    """The name of a task without the mark of hidden label names."""
    return task.removesuffix(SUFFIX)
