"""The proof that splits are apart: read from the corpus itself, whoever built it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from promptmii.data.corpus.overlap import links, read_texts
from promptmii.data.corpus_files import SPLITS, read_corpus
from promptmii.errors import DataError
from promptmii.task import Task, content_key, normalise_text


@dataclass(frozen=True)
class Leak:
    """Two tasks of different splits with texts in common."""

    first: str
    second: str
    splits: tuple[str, str]
    texts: int


@dataclass(frozen=True)
class LeakageReport:
    """What splits have in common. Each mapping has one number for each pair of splits."""

    tasks: Mapping[str, int]
    texts: Mapping[str, int]
    repositories: Mapping[str, int]
    groups: Mapping[str, int]
    exact: Mapping[str, int]
    """Texts that are in both, up to case, width and spaces."""
    near: Mapping[str, int]
    """Pairs of tasks' texts in both that are nearly the same."""
    leaks: tuple[Leak, ...]
    twice: tuple[str, ...]
    """Names that two tasks have."""

    @property
    def clean(self) -> bool:
        """Nothing in common."""
        return (
            not any(any(counts.values()) for counts in (self.repositories, self.groups, self.exact, self.near))
            and not self.twice
        )


def check_corpus(folder: Path, similarity: float = 0.7) -> LeakageReport:
    """Compare every split of a corpus with every other. Raises `ArtefactError` where it is none."""
    names: list[str] = []
    where: list[str] = []
    seen: dict[str, dict[str, set[str]]] = {
        split: {"repository": set(), "group": set(), "text": set()} for split in SPLITS
    }

    def noted() -> Iterator[Task]:
        for split in SPLITS:
            for task in _tasks(folder, split):
                names.append(task.name)
                where.append(split)
                for kind in ("repository", "group"):
                    seen[split][kind].add(task.source.get(kind, task.name))
                seen[split]["text"] |= {
                    content_key(normalise_text(example.text))[:16] for example in (*task.train, *task.test)
                }
                yield task

    texts = read_texts(noted(), similarity)
    leaks = [
        Leak(names[link.first], names[link.second], (where[link.first], where[link.second]), link.shared)
        for link in links(texts)
        if where[link.first] != where[link.second]
    ]
    pairs = [f"{a} / {b}" for a, b in combinations(SPLITS, 2)]
    common = {
        kind: [len(seen[a][kind] & seen[b][kind]) for a, b in combinations(SPLITS, 2)]
        for kind in ("repository", "group", "text")
    }
    near: Counter[str] = Counter(dict.fromkeys(pairs, 0))
    for leak in leaks:
        near[" / ".join(sorted(leak.splits, key=SPLITS.index))] += leak.texts
    sizes = {
        split: sum(size for size, place in zip(texts.sizes, where, strict=True) if place == split) for split in SPLITS
    }
    return LeakageReport(
        tasks={split: where.count(split) for split in SPLITS},
        texts=sizes,
        repositories=dict(zip(pairs, common["repository"], strict=True)),
        groups=dict(zip(pairs, common["group"], strict=True)),
        exact=dict(zip(pairs, common["text"], strict=True)),
        near=dict(near),
        leaks=tuple(leaks),
        twice=tuple(sorted(name for name, count in Counter(names).items() if count > 1)),
    )


def _tasks(folder: Path, split: str) -> Iterator[Task]:
    try:
        yield from read_corpus(folder, split)
    except DataError:  # a corpus may lack a split, and what is not there leaks nothing
        return
