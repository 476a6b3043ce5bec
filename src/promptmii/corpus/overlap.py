"""Finds near-duplicate texts, the tasks that share them, and leaks between the splits of a corpus.

MinHash (`datasketch`) turns the five-character shingles of a text into 64 numbers, from which the Jaccard similarity of
two texts is estimated. Only texts with an equal band of four numbers are compared. Equal bands are found by sorting,
which takes 8 bytes per text; an index would take kilobytes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from promptmii.data.corpus_files import SPLITS, Split, corpus_splits, read_corpus
from promptmii.errors import required_by
from promptmii.task import Task, normalise_text, row_key

Ints = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]
"""One row of `PERMUTATIONS` numbers per text."""
PERMUTATIONS = 64
BAND = 4
SHINGLE = 5
LONGEST = 1000
"""Characters compared per text. Texts that differ only after this many count as equal."""
TELLING = 30
"""Minimum characters for a text to be evidence of a copy: "thank you" is in every second task."""
WIDESPREAD = 50
"""A text in more tasks than this links them in a chain, not in pairs, so that the work stays linear."""
_POWERS = np.array([1_000_003**i % (1 << 32) for i in reversed(range(SHINGLE))], dtype=np.uint32)


def sign(texts: Iterable[str]) -> Signatures:
    """The MinHash of each text."""
    with required_by("Near-duplicate search", "corpus"):
        from datasketch import MinHash

    minhash: Any = MinHash(PERMUTATIONS, hashfunc=int)  # reused, because creating one costs more than using it
    rows: list[Any] = []
    for text in texts:
        minhash.clear()
        minhash.update_batch(_shingles(text))
        rows.append(minhash.digest())
    return np.array(rows, dtype=np.uint32).reshape(len(rows), PERMUTATIONS)


def _shingles(text: str) -> list[int]:
    """A hash of each shingle: a polynomial in its characters, which `datasketch` then permutes."""
    normalised = normalise_text(text)[:LONGEST]
    if not normalised:
        return []
    codes = np.frombuffer(f"  {normalised}  ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.convolve(codes, _POWERS, "valid").tolist()


def clusters(signatures: Signatures, similarity: float) -> Ints:
    """A cluster number per text, shared by texts that a chain of near-duplicates connects."""
    required = round(similarity * PERMUTATIONS)
    whole = _band_keys(signatures)
    first: list[Ints] = []
    second: list[Ints] = []
    for start in range(0, PERMUTATIONS, BAND):
        keys = _band_keys(signatures[:, start : start + BAND])
        order = np.lexsort((whole, keys))  # equal signatures are neighbours, however many others share the band
        same = keys[order[1:]] == keys[order[:-1]]
        left, right = order[:-1][same], order[1:][same]
        similar = (signatures[left] == signatures[right]).sum(axis=1) >= required
        first.append(left[similar])
        second.append(right[similar])
    return components(len(signatures), np.concatenate(first), np.concatenate(second))


def _band_keys(band: Signatures) -> npt.NDArray[np.uint64]:
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def components(size: int, first: Sequence[int] | Ints, second: Sequence[int] | Ints) -> Ints:
    """For each node of a graph, the lowest-numbered node of its component. Edges run from `first` to `second`."""
    graph: Any = coo_array((np.ones(len(first), dtype=np.bool_), (first, second)), shape=(size, size))
    labels: Any = connected_components(graph, directed=False)[1]
    _, lowest, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return lowest[inverse]


@dataclass(frozen=True)
class SignedTexts:
    """The texts of many tasks, training rows before test rows. The arrays have one item per text."""

    clusters: Ints
    """Cluster numbers, shared by near-duplicates."""
    tasks: Ints
    """Task numbers."""
    telling: npt.NDArray[np.bool_]
    """True for texts that are long enough to be evidence of a copy."""
    sizes: tuple[int, ...]
    """Number of texts per task."""


def sign_texts(tasks: Iterable[Task], similarity: float) -> SignedTexts:
    signatures = [sign(())]
    telling: list[bool] = []
    sizes: list[int] = []
    for task in tasks:
        texts = [example.text for example in task.rows]
        signatures.append(sign(texts))
        telling += [len(text) >= TELLING for text in texts]
        sizes.append(len(texts))
    numbers = np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64))
    cluster_numbers = clusters(np.concatenate(signatures), similarity)
    return SignedTexts(cluster_numbers, numbers, np.array(telling, dtype=np.bool_), tuple(sizes))


@dataclass(frozen=True)
class Link:
    """Two tasks that share texts."""

    first: int
    second: int
    shared: int
    telling: int
    """Number of shared texts that are evidence of a copy."""

    def is_copy(self, sizes: Sequence[int], share: float, rows: int) -> bool:
        """True if the tasks share enough texts to belong in one split."""
        return self.telling >= rows or self.shared >= max(2, share * min(sizes[self.first], sizes[self.second]))


def links(texts: SignedTexts) -> list[Link]:
    """All pairs of tasks with texts in common."""
    shared = _pair_counts(texts.clusters, texts.tasks)
    telling = _pair_counts(texts.clusters[texts.telling], texts.tasks[texts.telling])
    return [Link(a, b, count, telling[a, b]) for (a, b), count in sorted(shared.items())]


def _pair_counts(cluster: Ints, task: Ints) -> Counter[tuple[int, int]]:
    """For each pair of tasks, the number of clusters that have texts of both."""
    clusters_and_tasks = np.unique(np.stack([cluster, task]), axis=1)
    starts = np.flatnonzero(np.diff(clusters_and_tasks[0], prepend=-1))
    counts: Counter[tuple[int, int]] = Counter()
    for tasks in np.split(clusters_and_tasks[1], starts[1:]):
        if len(tasks) > 1:
            numbers: list[int] = tasks.tolist()  # sorted by `unique`
            counts.update(combinations(numbers, 2) if len(numbers) <= WIDESPREAD else pairwise(numbers))
    return counts


@dataclass(frozen=True)
class Leak:
    """Two tasks of different splits with texts in common."""

    first: str
    second: str
    splits: tuple[Split, Split]
    texts: int


@dataclass(frozen=True)
class LeakageReport:
    """Counts per split (`tasks`, `texts`), then per pair of splits."""

    tasks: Mapping[str, int]
    texts: Mapping[str, int]
    repositories: Mapping[str, int]
    groups: Mapping[str, int]
    exact: Mapping[str, int]
    """Texts in both splits, ignoring case, width and spaces."""
    near: Mapping[str, int]
    """Near-duplicate texts in both splits, summed over pairs of tasks."""
    leaks: tuple[Leak, ...]
    repeated_names: tuple[str, ...]
    """Names used by more than one task."""

    @property
    def clean(self) -> bool:
        """True if the splits have nothing in common and no name is repeated."""
        counts = (self.repositories, self.groups, self.exact, self.near)
        return not self.repeated_names and not any(any(pairs.values()) for pairs in counts)


def check_corpus(folder: Path, similarity: float = 0.7) -> LeakageReport:
    """Compare every split of a corpus with every other. Raises `ArtefactError` if the folder is not a corpus."""
    members: list[tuple[str, Split]] = []
    repositories, groups, exact = (defaultdict[Split, set[str]](set) for _ in range(3))

    def tasks() -> Iterator[Task]:
        for split in corpus_splits(folder):
            for task in read_corpus(folder, split):
                members.append((task.name, split))
                repositories[split].add(task.source.get("repository", task.name))
                groups[split].add(task.source.get("group", task.name))
                exact[split] |= {row_key(example.text) for example in task.rows}
                yield task

    texts = sign_texts(tasks(), similarity)
    near = Counter({_pair(*pair): 0 for pair in combinations(SPLITS, 2)})
    leaks: list[Leak] = []
    for link in links(texts):
        (first, first_split), (second, second_split) = members[link.first], members[link.second]
        if first_split != second_split:
            leaks.append(Leak(first, second, (first_split, second_split), link.shared))
            near[_pair(first_split, second_split)] += link.shared
    sizes = Counter[str](dict.fromkeys(SPLITS, 0))
    for (_, split), size in zip(members, texts.sizes, strict=True):
        sizes[split] += size
    names = Counter(name for name, _ in members)
    return LeakageReport(
        tasks={split: sum(member_split == split for _, member_split in members) for split in SPLITS},
        texts=dict(sizes),
        repositories=_in_both(repositories),
        groups=_in_both(groups),
        exact=_in_both(exact),
        near=dict(near),
        leaks=tuple(leaks),
        repeated_names=tuple(sorted(name for name, count in names.items() if count > 1)),
    )


def _pair(first: Split, second: Split) -> str:
    return " / ".join(sorted((first, second), key=SPLITS.index))


def _in_both(values: Mapping[Split, set[str]]) -> dict[str, int]:
    return {_pair(a, b): len(values.get(a, set()) & values.get(b, set())) for a, b in combinations(SPLITS, 2)}
