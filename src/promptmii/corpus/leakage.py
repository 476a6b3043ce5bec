"""What the splits of a corpus share, counted from its files alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from promptmii.corpus.overlap import links, sign_texts
from promptmii.data.corpus_files import SPLITS, Split, corpus_splits, read_corpus
from promptmii.task import Task, row_key


@dataclass(frozen=True)
class Leak:
    """Two tasks of different splits with texts in common."""

    first: str
    second: str
    splits: tuple[Split, Split]
    texts: int


@dataclass(frozen=True)
class LeakageReport:
    """Counts for each split, then for each pair of splits."""

    tasks: Mapping[str, int]
    texts: Mapping[str, int]
    repositories: Mapping[str, int]
    groups: Mapping[str, int]
    exact: Mapping[str, int]
    """Texts in both, ignoring case, width and spaces."""
    near: Mapping[str, int]
    """Near-duplicate texts in both, summed over pairs of tasks."""
    leaks: tuple[Leak, ...]
    repeated_names: tuple[str, ...]
    """Names that two tasks have."""

    @property
    def clean(self) -> bool:
        """Whether the splits have nothing in common."""
        counts = (self.repositories, self.groups, self.exact, self.near)
        return not self.repeated_names and not any(any(pairs.values()) for pairs in counts)


def check_corpus(folder: Path, similarity: float = 0.7) -> LeakageReport:
    """Compare every split of a corpus with every other. Raises `ArtefactError` if the folder is no corpus."""
    listed: list[tuple[str, Split]] = []
    repositories, groups, exact = (defaultdict[Split, set[str]](set) for _ in range(3))

    def tasks() -> Iterator[Task]:
        for split in corpus_splits(folder):
            for task in read_corpus(folder, split):
                listed.append((task.name, split))
                repositories[split].add(task.source.get("repository", task.name))
                groups[split].add(task.source.get("group", task.name))
                exact[split] |= {row_key(e.text) for e in (*task.train, *task.test)}
                yield task

    texts = sign_texts(tasks(), similarity)
    sizes, near = Counter[str](dict.fromkeys(SPLITS, 0)), Counter({_pair(*pair): 0 for pair in combinations(SPLITS, 2)})
    leaks: list[Leak] = []
    for link in links(texts):
        (first, one), (second, other) = listed[link.first], listed[link.second]
        if one != other:
            leaks.append(Leak(first, second, (one, other), link.shared))
            near[_pair(one, other)] += link.shared
    for (_, split), size in zip(listed, texts.sizes, strict=True):
        sizes[split] += size
    names = Counter(name for name, _ in listed)
    return LeakageReport(
        tasks={split: sum(own == split for _, own in listed) for split in SPLITS},
        texts=dict(sizes),
        repositories=_in_both(repositories),
        groups=_in_both(groups),
        exact=_in_both(exact),
        near=dict(near),
        leaks=tuple(leaks),
        repeated_names=tuple(sorted(name for name, count in names.items() if count > 1)),
    )


def _pair(one: Split, other: Split) -> str:
    return " / ".join(sorted((one, other), key=SPLITS.index))


def _in_both(found: Mapping[Split, set[str]]) -> dict[str, int]:
    return {_pair(a, b): len(found.get(a, set()) & found.get(b, set())) for a, b in combinations(SPLITS, 2)}
