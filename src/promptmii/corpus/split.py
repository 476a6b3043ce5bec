"""Assigns tasks to the training, validation and held-out splits, so that no evaluation text is trained on.

A group consists of the repositories that share texts, directly or through others. A whole group goes into one split.
Single texts that splits still share stay only in the split of lowest rank (`RANK`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress

import numpy as np

from promptmii.corpus.overlap import Link, SignedTexts, components, links
from promptmii.corpus.settings import CleanSettings, SplitSettings
from promptmii.data.corpus_files import Split
from promptmii.data.sample import random_rank
from promptmii.errors import ConfigError
from promptmii.messages import counted, nearest
from promptmii.task import Task

RANK: Mapping[Split, int] = {"heldout": 0, "validation": 1, "train": 2}
"""A text in two splits stays in the one of lower rank."""
EVALUATION_RANK = -1
DROPPED_RANK = len(RANK)
LARGEST_GROUP = 0.25
"""A group with a larger share of the tasks goes into training, because it would dominate an evaluation."""


@dataclass(frozen=True)
class TaskName:
    name: str
    repository: str

    def is_named(self, names: set[str]) -> bool:
        """True if the task or its repository is among these case-folded names."""
        return bool({self.name.casefold(), self.repository.casefold()} & names)


@dataclass
class Assignment:
    """The split of each task, or the reason why it was dropped, by task number."""

    groups: list[str]
    """The first repository of each task's group."""
    split: dict[int, Split] = field(default_factory=dict[int, Split])
    dropped: dict[int, str] = field(default_factory=dict[int, str])
    notes: dict[int, list[str]] = field(default_factory=lambda: defaultdict[int, list[str]](list))


def assign(
    tasks: Sequence[TaskName], evaluation: Sequence[str], texts: SignedTexts, settings: SplitSettings
) -> Assignment:
    """Assign each task to a split, or drop it. `texts` has the texts of the tasks, then those of the evaluation sets.

    Raises `ConfigError` if a task to hold out is not in the corpus, or is dropped.
    """
    copies = [link for link in links(texts) if link.is_copy(texts.sizes, settings.shared, settings.shared_rows)]
    dropped = _evaluation_copies(tasks, evaluation, copies, settings)
    dropped |= _above_limit(tasks, dropped, settings)
    remaining = set(range(len(tasks))) - set(dropped)
    copies = [link for link in copies if {link.first, link.second} <= remaining]
    first_of: dict[str, int] = {}
    edges = [(number, first_of.setdefault(task.repository, number)) for number, task in enumerate(tasks)]
    edges += [(link.first, link.second) for link in copies]
    heads = components(len(tasks), [a for a, _ in edges], [b for _, b in edges]).tolist()
    assignment = Assignment([tasks[head].repository for head in heads], dropped=dropped)
    for link in copies:
        if tasks[link.first].repository != tasks[link.second].repository:
            assignment.notes[link.second].append(f"shares {counted(link.shared, 'text')} with {tasks[link.first].name}")
    members: dict[int, list[int]] = defaultdict(list)
    for number in sorted(remaining):
        members[heads[number]].append(number)
    groups = sorted(members, key=lambda head: random_rank(tasks[head].repository, settings.seed))
    assignment.split = _assign_groups(tasks, [members[head] for head in groups], dropped, settings)
    return assignment


def _evaluation_copies(
    tasks: Sequence[TaskName], evaluation: Sequence[str], copies: Sequence[Link], settings: SplitSettings
) -> dict[int, str]:
    """The tasks to drop, with reasons: evaluation sets, and tasks that share texts with one, also through others."""
    names = {name.casefold() for name in settings.exclude}
    dropped = {n: "it is an evaluation set (by name)" for n, task in enumerate(tasks) if task.is_named(names)}
    set_name = {number: tasks[number].name for number in dropped}
    set_name |= {len(tasks) + number: name for number, name in enumerate(evaluation)}
    neighbours: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for link in copies:
        neighbours[link.first].append((link.second, link.shared))
        neighbours[link.second].append((link.first, link.shared))
    stack = sorted(set_name)
    while stack:
        number = stack.pop()
        for other, shared in neighbours[number]:
            if other < len(tasks) and other not in set_name:
                set_name[other] = set_name[number]
                dropped[other] = f"it shares {counted(shared, 'text')} with the evaluation set {set_name[number]}"
                stack.append(other)
    return dropped


def _above_limit(tasks: Sequence[TaskName], dropped: Mapping[int, str], settings: SplitSettings) -> dict[int, str]:
    """The tasks beyond `per_repository`, chosen at random, with reasons."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        if number not in dropped:
            members[task.repository].append(number)
    reasons: dict[int, str] = {}
    for repository, numbers in members.items():
        ordered = sorted(numbers, key=lambda number: random_rank(tasks[number].name, settings.seed))
        reason = f"{repository} has {len(numbers)} configurations; per_repository is {settings.per_repository}"
        reasons |= dict.fromkeys(ordered[settings.per_repository :], reason)
    return reasons


def _assign_groups(
    tasks: Sequence[TaskName], groups: Sequence[list[int]], dropped: Mapping[int, str], settings: SplitSettings
) -> dict[int, Split]:
    """Fill the held-out split and then validation with groups, in order; train on the rest."""
    total = sum(map(len, groups))
    for name in settings.heldout_tasks:
        numbers = [number for number, task in enumerate(tasks) if task.is_named({name.casefold()})]
        if not numbers:
            names = [task.name for task in tasks]
            raise ConfigError(f"heldout_tasks names {name!r}, which is not in the corpus. {nearest(name, names)}")
        if dropped.keys() >= set(numbers):
            raise ConfigError(f"heldout_tasks names {name!r}, which was dropped: {dropped[numbers[0]]}.")
    heldout_names = {name.casefold() for name in settings.heldout_tasks}
    named = [group for group in groups if any(tasks[number].is_named(heldout_names) for number in group)]
    heldout = 0 if heldout_names else round(settings.heldout * total)
    # Without validation, training cannot tell which weights are best; but it needs a task to train on first.
    least = int(settings.validation > 0 and total - heldout - sum(map(len, named)) > 1)
    room: dict[Split, int] = {
        "heldout": heldout,
        "validation": max(least, round(settings.validation * total)),
        "train": total,
    }
    splits: dict[int, Split] = {}
    for group in groups:
        if group in named:
            split: Split = "heldout"
        elif len(group) > max(1, LARGEST_GROUP * total):
            split = "train"
        else:
            split = next(name for name, left in room.items() if len(group) <= left)
            room[split] -= len(group)
        splits |= dict.fromkeys(group, split)
    return splits


class TextRemover:
    """Removes texts from a task if a split of lower rank, or an evaluation set, also has them."""

    def __init__(self, tasks: int, texts: SignedTexts, assignment: Assignment, limits: CleanSettings) -> None:
        """`texts` has the texts of `tasks` tasks, then those of the evaluation sets."""
        self._assignment, self._limits, self._clusters = assignment, limits, texts.clusters
        self._starts = [0, *accumulate(texts.sizes)]
        evaluation = [EVALUATION_RANK] * (len(texts.sizes) - tasks)
        ranks = [RANK[assignment.split[n]] if n in assignment.split else DROPPED_RANK for n in range(tasks)]
        self._rank = np.array(ranks + evaluation, dtype=np.int8)
        self._best = np.full(len(texts.clusters), DROPPED_RANK, dtype=np.int8)
        """The lowest rank of each cluster of texts."""
        np.minimum.at(self._best, texts.clusters, self._rank[texts.tasks])

    def __call__(self, number: int, task: Task) -> Task | None:
        """The task without those texts, and with its group. If too little is left, drops the task and returns None."""
        clusters = self._clusters[self._starts[number] : self._starts[number + 1]]
        is_own: list[bool] = (self._best[clusters] >= self._rank[number]).tolist()
        task = replace(task, source=task.source | {"group": self._assignment.groups[number]})
        if all(is_own):
            return task
        train = tuple(compress(task.train, is_own))
        labels = {example.label for example in train}
        test = tuple(e for e in compress(task.test, is_own[len(task.train) :]) if e.label in labels)
        removed = len(is_own) - len(train) - len(test)
        self._assignment.notes[number].append(f"{counted(removed, 'text')} removed: another split measures on them")
        limits = self._limits
        if len(train) < limits.least_train or len(test) < limits.least_test or len(labels) < limits.least_labels:
            del self._assignment.split[number]
            self._assignment.dropped[number] = (
                f"too little is left ({len(train)} + {len(test)} rows): another split measures on its texts"
            )
            return None
        return replace(task, labels=tuple(label for label in task.labels if label in labels), train=train, test=test)
