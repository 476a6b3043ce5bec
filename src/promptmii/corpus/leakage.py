"""What the splits of a corpus have in common, counted from its files alone, whoever built it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from promptmii.corpus.overlap import links, read_texts
from promptmii.data.corpus_files import SPLITS, Split, corpus_splits, read_corpus
from promptmii.task import Task, content_key, normalise_text


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


class _Seen:
    """What one split holds."""

    def __init__(self) -> None:
        self.repositories: set[str] = set()
        self.groups: set[str] = set()
        self.texts: set[str] = set()

    def add(self, task: Task) -> None:
        self.repositories.add(task.source.get("repository", task.name))
        self.groups.add(task.source.get("group", task.name))
        self.texts |= {content_key(normalise_text(e.text))[:16] for e in (*task.train, *task.test)}


def check_corpus(folder: Path, similarity: float = 0.7) -> LeakageReport:
    """Compare every split of a corpus with every other. Raises `ArtefactError` if the folder is none."""
    names: list[str] = []
    splits: list[Split] = []
    seen = {split: _Seen() for split in SPLITS}

    def tasks() -> Iterator[Task]:
        for split in corpus_splits(folder):
            for task in read_corpus(folder, split):
                names.append(task.name)
                splits.append(split)
                seen[split].add(task)
                yield task

    texts = read_texts(tasks(), similarity)
    leaks = tuple(
        Leak(names[link.first], names[link.second], (splits[link.first], splits[link.second]), link.shared)
        for link in links(texts)
        if splits[link.first] != splits[link.second]
    )
    pairs = {f"{a} / {b}": (seen[a], seen[b]) for a, b in combinations(SPLITS, 2)}
    near: Counter[str] = Counter(dict.fromkeys(pairs, 0))
    for leak in leaks:
        near[" / ".join(sorted(leak.splits, key=SPLITS.index))] += leak.texts
    sizes: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for split, size in zip(splits, texts.sizes, strict=True):
        sizes[split] += size
    return LeakageReport(
        tasks={split: splits.count(split) for split in SPLITS},
        texts=sizes,
        repositories={name: len(a.repositories & b.repositories) for name, (a, b) in pairs.items()},
        groups={name: len(a.groups & b.groups) for name, (a, b) in pairs.items()},
        exact={name: len(a.texts & b.texts) for name, (a, b) in pairs.items()},
        near=dict(near),
        leaks=leaks,
        repeated_names=tuple(sorted(name for name, count in Counter(names).items() if count > 1)),
    )
