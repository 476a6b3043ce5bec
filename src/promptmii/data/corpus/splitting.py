"""The last stage: which tasks are to learn from, which to watch, which to measure on, so that nothing measured on was seen before.

Groups are whole: a repository, every repository that shares texts with it, and those that share texts with these. What is still in
common between groups, single texts mostly, is taken out of the side that is learned from.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np

from promptmii.data.corpus.duplicates import joined
from promptmii.data.corpus.overlap import Link, Texts, links, tells
from promptmii.data.corpus.settings import CleanSettings, SplitSettings
from promptmii.data.corpus_files import SPLITS, Split
from promptmii.errors import ConfigError, nearest
from promptmii.task import Task

RANK: Mapping[Split, int] = {"heldout": 0, "validation": 1, "train": 2}
"""Whose texts stay where they are: those to measure on first."""
MEASURED: tuple[Split, ...] = ("heldout", "validation")
LARGEST_GROUP = 0.25
"""A group with more than this share of the tasks is learned from: held out, it would be the whole measurement."""


@dataclass
class Verdicts:
    """What becomes of each task, by its number."""

    split: dict[int, Split] = field(default_factory=dict[int, Split])
    dropped: dict[int, str] = field(default_factory=dict[int, str])
    groups: list[str] = field(default_factory=list[str])
    """Name of each task's group: its first repository."""
    notes: dict[int, list[str]] = field(default_factory=lambda: defaultdict[int, list[str]](list))


def decide(
    names: Sequence[str], repositories: Sequence[str], evaluation: Sequence[str], texts: Texts, settings: SplitSettings
) -> Verdicts:
    """A split or a reason for each task. `texts` are those of the tasks, then those of the evaluation sets, named by `evaluation`.

    Raises `ConfigError` for a task to hold out that is not there.
    """
    telling = [link for link in links(texts) if tells(link, texts.sizes, settings.shared, settings.shared_rows)]
    verdicts = Verdicts()
    _exclude(names, repositories, evaluation, telling, settings, verdicts)
    _limit(names, repositories, settings, verdicts)
    left = {number for number in range(len(names)) if number not in verdicts.dropped}
    heads = joined(
        len(names),
        [*_same(repositories), *((link.first, link.second) for link in telling if {link.first, link.second} <= left)],
    )
    verdicts.groups = [repositories[head] for head in heads]
    for link in telling:
        if {link.first, link.second} <= left and repositories[link.first] != repositories[link.second]:
            verdicts.notes[link.second].append(f"shares {link.shared} texts with {names[link.first]}")
    _assign(names, repositories, heads, sorted(left), settings, verdicts)
    return verdicts


def _same(repositories: Sequence[str]) -> list[tuple[int, int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for number, repository in enumerate(repositories):
        members[repository].append(number)
    return [pair for numbers in members.values() for pair in pairwise(numbers)]


def _exclude(
    names: Sequence[str],
    repositories: Sequence[str],
    evaluation: Sequence[str],
    telling: Sequence[Link],
    settings: SplitSettings,
    verdicts: Verdicts,
) -> None:
    """Evaluation sets by name and by content, and what shares texts with one, directly or through others that do."""
    named = {name.casefold() for name in settings.exclude}
    for number, name in enumerate(names):
        if {name.casefold(), repositories[number].casefold()} & named:
            verdicts.dropped[number] = "it is an evaluation set (by name)"
    known: dict[int, str] = {number: names[number] for number in verdicts.dropped}
    known |= {len(names) + i: name for i, name in enumerate(evaluation)}
    neighbours: dict[int, list[Link]] = defaultdict(list)
    for link in telling:
        neighbours[link.first].append(link)
        neighbours[link.second].append(link)
    open_numbers = sorted(known)
    while open_numbers:
        number = open_numbers.pop()
        for link in neighbours[number]:
            other = link.second if link.first == number else link.first
            if other < len(names) and other not in known:
                known[other] = known[number]
                verdicts.dropped[other] = f"it shares {link.shared} texts with the evaluation set {known[number]}"
                open_numbers.append(other)


def _limit(names: Sequence[str], repositories: Sequence[str], settings: SplitSettings, verdicts: Verdicts) -> None:
    members: dict[str, list[int]] = defaultdict(list)
    for number, repository in enumerate(repositories):
        if number not in verdicts.dropped:
            members[repository].append(number)
    for repository, numbers in members.items():
        ordered = sorted(numbers, key=lambda number: _rank(settings.seed, names[number]))
        for number in ordered[settings.per_repository :]:
            reason = f"{repository} has {len(numbers)} configurations; per_repository is {settings.per_repository}"
            verdicts.dropped[number] = reason


def _assign(
    names: Sequence[str],
    repositories: Sequence[str],
    heads: Sequence[int],
    left: Sequence[int],
    settings: SplitSettings,
    verdicts: Verdicts,
) -> None:
    """Groups in the order of a hash of their names, held-out tasks first, until each part is as large as it should be."""
    members: dict[int, list[int]] = defaultdict(list)
    for number in left:
        members[heads[number]].append(number)
    held = {heads[number] for number in left if {names[number], repositories[number]} & set(settings.heldout_tasks)}
    for name in settings.heldout_tasks:
        if not any(name in (names[number], repositories[number]) for number in left):
            raise ConfigError(f"heldout_tasks names {name!r}, which is not in the corpus. {nearest(name, names)}")
    wanted: dict[Split, int] = {
        "heldout": 0 if held else round(settings.heldout * len(left)),
        "validation": round(settings.validation * len(left)),
    }
    for head in sorted(members, key=lambda head: _rank(settings.seed, repositories[head])):
        numbers = members[head]
        fitting: list[Split] = [
            part for part in MEASURED if len(numbers) <= min(wanted[part], max(1, LARGEST_GROUP * len(left)))
        ]
        part: Split = "heldout" if head in held else fitting[0] if fitting else "train"
        wanted[part] = wanted.get(part, 0) - len(numbers)
        verdicts.split |= dict.fromkeys(numbers, part)


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


class Scrubber:
    """Takes out of a task what is in a split to be measured on, or in an evaluation set."""

    def __init__(self, tasks: int, texts: Texts, verdicts: Verdicts, limits: CleanSettings) -> None:
        """`texts` are those of so many tasks, and then those of the evaluation sets."""
        self._verdicts, self._limits = verdicts, limits
        self._clusters = texts.numbers
        self._starts = [0, *accumulate(texts.sizes)]
        unused = len(SPLITS)
        ranks = [
            RANK[verdicts.split[n]] if n in verdicts.split else -1 if n >= tasks else unused
            for n in range(len(texts.sizes))
        ]
        self._rank = np.array(ranks, dtype=np.int8)
        self._best = np.full(len(texts.numbers), unused, dtype=np.int8)
        """Of each cluster, the rank of the split whose texts stay."""
        if len(texts.numbers):
            np.minimum.at(self._best, texts.numbers, self._rank[texts.owners])

    def __call__(self, number: int, task: Task) -> Task | None:
        """The task with its group and without those texts; `None` where too little is left, which the verdicts say then."""
        own = self._clusters[self._starts[number] : self._starts[number + 1]]
        keep: list[bool] = (self._best[own] >= self._rank[number]).tolist()
        return _without(task, number, keep, self._verdicts, self._limits)


def _without(task: Task, number: int, keep: Sequence[bool], verdicts: Verdicts, limits: CleanSettings) -> Task | None:
    source = task.source | {"group": verdicts.groups[number]}
    if all(keep):
        return replace(task, source=source)
    cut = len(task.train)
    train = tuple(example for example, kept in zip(task.train, keep[:cut], strict=True) if kept)
    counts = Counter(example.label for example in train)
    test = tuple(
        example for example, kept in zip(task.test, keep[cut:], strict=True) if kept and example.label in counts
    )
    verdicts.notes[number].append(
        f"{len(keep) - len(train) - len(test)} texts taken out that are in a split to be measured on"
    )
    if len(train) < limits.least_train or len(test) < limits.least_test or len(counts) < limits.least_labels:
        verdicts.dropped[number] = (
            f"too little is left of it ({len(train)} + {len(test)} rows): its texts are in a split to be measured on"
        )
        del verdicts.split[number]
        return None
    return replace(
        task, labels=tuple(label for label in task.labels if label in counts), train=train, test=test, source=source
    )
