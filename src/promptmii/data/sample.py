"""Splits the rows of a table into training and test parts and draws episodes, determined by content and seed."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from promptmii.data.clean import CleanedRows, clean
from promptmii.data.columns import ChosenColumns, choose_columns
from promptmii.data.labels import one_line
from promptmii.data.load import Source, read_table
from promptmii.data.table import TEST_NAMES, TRAIN_NAMES, Table, is_number
from promptmii.errors import DataError, counted, listed
from promptmii.task import Episode, Example, Support, Task, normalise_text

TEST_SHARE = 0.4
LABELS_PER_NOTE = 4


@dataclass(frozen=True)
class LoadedTask:
    """A task, its source columns, and notes on how it was read."""

    task: Task
    columns: ChosenColumns
    notes: tuple[str, ...]

    @property
    def split_notes(self) -> tuple[str, ...]:
        """Notes on the split, for callers that hold rows back rather than use them all."""
        train, test, labels = self.task.train, self.task.test, self.task.labels
        return (
            f"{len(train)} training and {counted(len(test), 'held-back row')}, {counted(len(labels), 'label')}",
            *(_missing("held-back row", labels, test) if test else ()),
        )


def load_task(
    source: Source,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> LoadedTask:
    """Read a source, choose its columns, clean its rows and split them. Raises `DataError`."""
    table = read_table(source)
    columns = choose_columns(table, text, label)
    return assemble(table, columns, clean(table, columns, labels), labels=labels, seed=seed)


def assemble(
    table: Table,
    columns: ChosenColumns,
    cleaned: CleanedRows,
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    test_share: float = TEST_SHARE,
) -> LoadedTask:
    """Split cleaned rows into a training and a test part. Raises `DataError` if they do not make a task."""
    train, test = _train_and_test(cleaned, seed, test_share)
    unused = _unused_split_notes(cleaned, train, test)
    label_set = tuple(labels) if labels else _label_order(table, columns, train)
    known = set(label_set)
    learnable = [example for example in test if example.label in known]
    source = {"origin": table.origin, "text": ", ".join(columns.text), "label": columns.label or ""}
    task = Task(table.origin, label_set, tuple(train), tuple(learnable), table.instruction, source)
    notes = [*table.notes, *columns.notes, *cleaned.lines(), *unused]
    if dropped := len(test) - len(learnable):
        notes.append(f"{counted(dropped, 'test row')} dropped: their labels do not occur in the training part")
    return LoadedTask(task, columns, tuple(notes))


def _unused_split_notes(cleaned: CleanedRows, train: Sequence[Example], test: Sequence[Example]) -> tuple[str, ...]:
    used = {id(example) for example in (*train, *test)}
    rows = zip(cleaned.split or (), cleaned.examples, strict=False)
    unused = Counter(split for split, example in rows if id(example) not in used)
    return tuple(f"the split {split!r} is not used ({counted(n, 'row')})" for split, n in unused.items())


def draw_notes(task: Task, episode: Episode) -> tuple[str, ...]:
    """Notes that name the labels without an example in the support or without a drawn test row."""
    n, k = len(episode.support.examples), len(task.labels)
    remedy = f"; -n {k} or more shows one of each" if n < k <= len(task.train) else ""
    test_labels = {example.label for example in task.test} if episode.query else ()
    measurable = [label for label in task.labels if label in test_labels]
    return (
        *_missing("example", task.labels, episode.support.examples, remedy),
        *_missing("drawn held-back row", measurable, episode.query),
    )


def _missing(kind: str, labels: Sequence[str], examples: Sequence[Example], remedy: str = "") -> tuple[str, ...]:
    """A note that names the labels without an example."""
    present = {example.label for example in examples}
    missing = [label for label in labels if label not in present]
    if not missing:
        return ()
    names = listed([*map(repr, missing)], LABELS_PER_NOTE)
    return (f"no {kind} of {len(missing)} of {len(labels)} labels: {names}{remedy}",)


def _train_and_test(cleaned: CleanedRows, seed: int, test_share: float) -> tuple[list[Example], list[Example]]:
    """The source's own train and test splits if it has both, else a stratified split by content."""
    splits = [name.casefold() for name in cleaned.split or ()]
    train_name = next((name for name in TRAIN_NAMES if name in splits), None)
    test_name = next((name for name in TEST_NAMES if name in splits), None)
    if train_name and test_name:
        rows = list(zip(cleaned.examples, splits, strict=True))
        return [e for e, split in rows if split == train_name], [e for e, split in rows if split == test_name]
    train: list[Example] = []
    test: list[Example] = []
    for group in _by_label(cleaned.examples).values():
        shuffled = sorted(group, key=lambda example: _random_rank(example, seed))
        n_test = min(round(len(shuffled) * test_share), len(shuffled) - 1)
        test += shuffled[:n_test]
        train += shuffled[n_test:]
    return train, test


def _random_rank(example: Example, seed: int) -> str:
    """A hash of seed and content: the order is random, but does not depend on the order of the rows."""
    return hashlib.sha256(f"{seed}\0{normalise_text(example.text)}".encode("utf-8", "surrogatepass")).hexdigest()


def _by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.label].append(example)
    return dict(sorted(groups.items()))


def _label_order(table: Table, columns: ChosenColumns, train: Sequence[Example]) -> tuple[str, ...]:
    """The label set of the training part: in the schema's order if it has one, else numbers by value, then names."""
    present = {example.label for example in train}
    declared = [one_line(name) for name in table.classes.get(columns.label or "", ())]
    if declared and present <= set(declared):
        return tuple(dict.fromkeys(name for name in declared if name in present))
    return tuple(sorted(present, key=lambda name: (not is_number(name), float(name) if is_number(name) else 0.0, name)))


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
    groups = list(_by_label(sorted(examples, key=lambda example: (example.label, example.text))).values())
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
