"""Which tasks share texts: what the groups of a corpus follow from, and what the leakage report counts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from promptmii.data.corpus.duplicates import clusters, owners_by_cluster, sign
from promptmii.task import Task

SPEAKING = 30
"""Characters that a text needs before its being in two tasks says anything: "thank you" is in every second one."""
WIDESPREAD = 50
"""A text in more tasks than this is compared along a chain of them instead of every pair, so that work stays linear."""


@dataclass(frozen=True)
class Texts:
    """The texts of many tasks, with the cluster that each belongs to."""

    numbers: npt.NDArray[np.int64]
    """Cluster of each text."""
    owners: npt.NDArray[np.int64]
    """Number of the task that each text belongs to."""
    speaking: npt.NDArray[np.bool_]
    """Whether it is long enough to say anything."""
    sizes: tuple[int, ...]
    """Texts of each task."""


def read_texts(tasks: Iterable[Task], similarity: float) -> Texts:
    """Sign and cluster the texts of all tasks, in the order of their training and then test rows."""
    signatures: list[npt.NDArray[np.uint32]] = []
    speaking: list[bool] = []
    sizes: list[int] = []
    for task in tasks:
        texts = [example.text for example in (*task.train, *task.test)]
        signatures.append(sign(texts))
        speaking += [len(text) >= SPEAKING for text in texts]
        sizes.append(len(texts))
    stacked = np.concatenate(signatures) if signatures else sign([])
    signatures.clear()
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return Texts(clusters(stacked, similarity), owners, np.array(speaking, dtype=np.bool_), tuple(sizes))


@dataclass(frozen=True)
class Link:
    """Two tasks that share texts."""

    first: int
    second: int
    shared: int
    speaking: int
    """Of these, texts that are long enough to say anything."""


def links(texts: Texts) -> list[Link]:
    """Every pair of tasks with texts in common."""
    shared = _counts(owners_by_cluster(texts.numbers, texts.owners))
    speaking = _counts(owners_by_cluster(texts.numbers[texts.speaking], texts.owners[texts.speaking]))
    return [Link(a, b, count, speaking[a, b]) for (a, b), count in sorted(shared.items())]


def _counts(clusters_owners: Sequence[npt.NDArray[np.int64]]) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for owners in clusters_owners:
        ordered: list[int] = sorted(owners.tolist())
        pairs = combinations(ordered, 2) if len(ordered) <= WIDESPREAD else pairwise(ordered)
        counts.update(pairs)
    return counts


def tells(link: Link, sizes: Sequence[int], share: float, rows: int) -> bool:
    """Whether two tasks share so much that they belong on one side."""
    return link.speaking >= rows or link.shared >= max(2, share * min(sizes[link.first], sizes[link.second]))
