"""Draws episodes from tasks: a support of examples and a query of test rows, both stratified."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from promptmii.errors import DataError
from promptmii.messages import listed
from promptmii.task import Episode, Example, Support, Task

LABELS_PER_NOTE = 4


def sample(task: Task, n: int, seed: int = 0, *, query: int = 200) -> Episode:
    """Draw a stratified support of n training examples and up to `query` stratified test rows.

    For a given seed, a smaller support is a prefix of a larger one, each label comes once before any comes twice, and
    the query is the same for every n. Raises `DataError` if n exceeds the training part.
    """
    return Episode(task.name, draw_support(task, n, seed), draw_query(task, query, seed), seed)


def draw_support(task: Task, n: int, seed: int = 0) -> Support:
    """The support of `sample`. Raises `DataError` if n exceeds the training part."""
    if n > len(task.train):
        raise DataError(
            f"{n} examples were asked for, but the training part of {task.name} has {len(task.train)}. "
            f"Use -n {len(task.train)} or less."
        )
    return Support(task.labels, tuple(_stratified_order(task.train, seed, "support")[:n]))


def draw_query(task: Task, size: int, seed: int = 0) -> tuple[Example, ...]:
    """The query of `sample`. Raises `DataError` if `size` is not 0 and the task has no test rows."""
    rows = _stratified_order(task.test, seed, "query")[:size]
    if size and not rows:
        raise DataError(f"{task.name} has no held-back rows to measure on; give more rows per label, or --eval 0.")
    return tuple(rows)


def stratified_sample(examples: Sequence[Example], size: int) -> tuple[Example, ...]:
    """At most `size` of the examples, shuffled and in proportion to the labels, with one of each label first."""
    return tuple(_stratified_order(examples, 0, "part")[:size])


def _stratified_order(examples: Sequence[Example], seed: int, part: str) -> list[Example]:
    """All examples in an order whose every prefix is stratified, with one of each label first."""
    rng = random.Random(f"{part}:{seed}")
    groups = list(by_label(sorted(examples, key=lambda example: (example.label, example.text))).values())
    for group in groups:
        rng.shuffle(group)
    rng.shuffle(groups)
    # Spread each label evenly: its example i of n goes to (i + jitter) / n, and its first example to 0.
    positions = [
        (0.0 if i == 0 else (i + rng.random()) / len(group), g, i)
        for g, group in enumerate(groups)
        for i in range(len(group))
    ]
    return [groups[g][i] for _, g, i in sorted(positions)]


def random_rank(text: str, seed: int) -> str:
    """A hash of text and seed. It gives a random order that does not depend on the order of the texts."""
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()


def draw_notes(task: Task, episode: Episode) -> tuple[str, ...]:
    """Notes that name the labels without an example in the support or without a drawn test row."""
    n, k = len(episode.support.examples), len(task.labels)
    remedy = f"; -n {k} or more shows one of each" if n < k <= len(task.train) else ""
    test_labels = {example.label for example in task.test} if episode.query else ()
    measurable = [label for label in task.labels if label in test_labels]
    return (
        *missing_labels("example", task.labels, episode.support.examples, remedy),
        *missing_labels("drawn held-back row", measurable, episode.query),
    )


def missing_labels(kind: str, labels: Sequence[str], examples: Sequence[Example], remedy: str = "") -> tuple[str, ...]:
    """A note that names the labels without an example."""
    present = {example.label for example in examples}
    missing = [label for label in labels if label not in present]
    if not missing:
        return ()
    names = listed([*map(repr, missing)], LABELS_PER_NOTE)
    return (f"no {kind} of {len(missing)} of {len(labels)} labels: {names}{remedy}",)


def by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each label, with the labels in alphabetical order."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.label].append(example)
    return dict(sorted(groups.items()))
