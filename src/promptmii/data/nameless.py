"""Hides label names behind letters and numbers, so that a model must read what an instruction says of each label."""

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

from promptmii.task import Example, Task

SUFFIX = ":nameless"
"""Appended to the name of a task with hidden label names."""


def _letters(k: int, rng: random.Random) -> list[str]:
    return rng.sample(string.ascii_uppercase, k) if rng.random() < 0.4 else list(string.ascii_uppercase[:k])


def _numbers(k: int, rng: random.Random) -> list[str]:
    first = rng.choice((0, 0, 1, 1, 10))
    return [str(first + i) for i in range(k)]


SCHEMES = (
    *(("", _letters),) * 3,
    *(("", _numbers),) * 2,
    *((prefix, _numbers) for prefix in ("class ", "label_", "LABEL_", "C")),
    *((prefix, _letters) for prefix in ("class ", "option ")),
    ("category ", _numbers),
)
"""A prefix and what follows it: A, B, C or class 1, class 2. Repeated schemes are likelier."""
_NUMBERED_SCHEMES = tuple((prefix, _numbers) for prefix in ("", "class ", "label_", "C"))
"""Schemes for more labels than the alphabet has letters."""


def hide_names(labels: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Draw a meaningless name for each label, in random order."""
    prefix, draw = rng.choice(SCHEMES if len(labels) <= len(string.ascii_uppercase) else _NUMBERED_SCHEMES)
    names = [prefix + name for name in draw(len(labels), rng)]
    rng.shuffle(names)
    return dict(zip(labels, names, strict=True))


def sort_by_name(new_names: Mapping[str, str]) -> dict[str, str]:
    """Sort labels by their new names, with class 2 before class 10."""
    return dict(sorted(new_names.items(), key=lambda pair: (len(pair[1]), pair[1])))


def rename_labels(task: Task, new_names: Mapping[str, str]) -> Task:
    """Keep only the labels in `new_names`, renamed and in that order.

    The human instruction is removed, because it uses the old names.
    """
    train, test = (
        tuple(Example(e.text, new_names[e.label]) for e in part if e.label in new_names)
        for part in (task.train, task.test)
    )
    return replace(task, labels=tuple(new_names.values()), train=train, test=test, instruction=None)


def nameless(task: Task) -> Task:
    """The task with all label names hidden, in the order of the new names. Every call gives the same names."""
    return replace(rename_labels(task, hidden_names(task)), name=task.name + SUFFIX)


def hidden_names(task: Task) -> dict[str, str]:
    """The new label names in `nameless(task)`, by old name."""
    return sort_by_name(hide_names(task.labels, random.Random(task.name)))


def is_nameless(task: str) -> bool:
    """Whether a task of this name has hidden label names."""
    return task.endswith(SUFFIX)


def shown_name(task: str) -> str:
    """The name of a task without `SUFFIX`."""
    return task.removesuffix(SUFFIX)
