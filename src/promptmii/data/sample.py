"""Split a table's rows into training and test parts, and draw episodes; content and seed decide everything."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from promptmii.data.clean import CleanedRows, clean
from promptmii.data.columns import ChosenColumns, choose_columns
from promptmii.data.labels import one_line
from promptmii.data.load import Source, read_table
from promptmii.data.table import Table
from promptmii.errors import DataError, counted, listed
from promptmii.task import Episode, Example, Support, Task, normalise_text

TEST_SHARE = 0.4
NAMED = 4
"""Labels that a note names."""
TRAIN = ("train", "training")
TEST = ("test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names of splits to measure on; of several, the first."""


@dataclass(frozen=True)
class LoadedTask:
    """A task, the columns it was made from, and notes."""

    task: Task
    columns: ChosenColumns
    notes: tuple[str, ...]

    @property
    def split_notes(self) -> tuple[str, ...]:
        """How the rows are divided: for those who hold some back, not for those who use all."""
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
    """Read, choose columns, clean and split. Raises `DataError`."""
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
    """Split clean rows into a training and a test part. Raises `DataError` if they make no task."""
    train, test = _parts(cleaned, seed, test_share)
    order = tuple(labels) if labels else _label_order(table, columns, train)
    known = set(order)
    unused = _unused(cleaned, train, test)
    unseen = [example for example in test if example.label not in known]
    origin = {"origin": table.origin, "text": ", ".join(columns.text), "label": columns.label or ""}
    test = [example for example in test if example.label in known]
    task = Task(table.origin, order, tuple(train), tuple(test), table.instruction, origin)
    notes = [*table.notes, *columns.notes, *cleaned.lines(), *unused]
    if unseen:
        notes.append(f"{counted(len(unseen), 'test row')} dropped: their labels do not occur in the training part")
    return LoadedTask(task, columns, tuple(notes))


def _unused(cleaned: CleanedRows, train: Sequence[Example], test: Sequence[Example]) -> tuple[str, ...]:
    """A note for each split that is in neither part."""
    used = {id(example) for example in (*train, *test)}
    rows = zip(cleaned.split or (), cleaned.examples, strict=False)
    left_out = Counter(part for part, example in rows if id(example) not in used)
    return tuple(f"the split {part!r} is not used ({counted(n, 'row')})" for part, n in left_out.items())


def draw_notes(task: Task, episode: Episode) -> tuple[str, ...]:
    """Notes that name the labels of which an episode shows no example, or none of the held-back rows."""
    n, k = len(episode.support.examples), len(task.labels)
    cure = f"; -n {k} or more shows one of each" if n < k <= len(task.train) else ""
    measured = {example.label for example in task.test} if episode.query else ()
    drawn = [label for label in task.labels if label in measured]
    return (
        *_missing("example", task.labels, episode.support.examples, cure),
        *_missing("drawn held-back row", drawn, episode.query),
    )


def _missing(what: str, labels: Sequence[str], examples: Sequence[Example], cure: str = "") -> tuple[str, ...]:
    there = {example.label for example in examples}
    missing = [label for label in labels if label not in there]
    if not missing:
        return ()
    named = listed([*map(repr, missing)], NAMED)
    return (f"no {what} of {len(missing)} of {len(labels)} labels: {named}{cure}",)


def _parts(cleaned: CleanedRows, seed: int, test_share: float) -> tuple[list[Example], list[Example]]:
    """The source's own train and test splits if it has them, else a split by content within each label."""
    names = {name: name.casefold() for name in set(cleaned.split or ())}
    train_name, test_name = (next((n for n in wanted if n in names.values()), None) for wanted in (TRAIN, TEST))
    if cleaned.split and train_name and test_name:
        rows = [(e, names[part]) for e, part in zip(cleaned.examples, cleaned.split, strict=True)]
        return [e for e, part in rows if part == train_name], [e for e, part in rows if part == test_name]
    train: list[Example] = []
    test: list[Example] = []
    for group in _by_label(cleaned.examples).values():
        ordered = sorted(group, key=lambda example: _rank(example, seed))
        cut = min(round(len(ordered) * test_share), len(ordered) - 1)
        test += ordered[:cut]
        train += ordered[cut:]
    return train, test


def _rank(example: Example, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{normalise_text(example.text)}".encode("utf-8", "surrogatepass")).hexdigest()


def _by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.label].append(example)
    return dict(sorted(groups.items()))


def _label_order(table: Table, columns: ChosenColumns, train: Sequence[Example]) -> tuple[str, ...]:
    """The schema's order if it names classes, else numbers by value and names by alphabet."""
    present = {example.label for example in train}
    declared = [one_line(name) for name in table.classes.get(columns.label or "", ())]
    if declared and present <= set(declared):
        return tuple(dict.fromkeys(name for name in declared if name in present))
    return tuple(
        sorted(present, key=lambda name: (not _is_number(name), float(name) if _is_number(name) else 0.0, name))
    )


def _is_number(name: str) -> bool:
    try:
        return float(name) == float(name)
    except ValueError:
        return False


def sample(task: Task, n: int, seed: int = 0, *, query: int = 200) -> Episode:
    """Draw a support of n training examples and up to `query` test rows, both in proportion to the labels.

    With one seed the support for a smaller n is the beginning of that for a larger one, each label comes once before
    any comes twice as far as n goes, and the query is the same for every n. Raises `DataError` when n exceeds the
    training part.
    """
    return Episode(task.name, draw_support(task, n, seed), draw_query(task, query, seed), seed)


def draw_support(task: Task, n: int, seed: int = 0) -> Support:
    """n training examples, as `sample` draws them. Raises `DataError` when there are fewer."""
    if n > len(task.train):
        raise DataError(
            f"{n} examples were asked for, but the training part of {task.name} has {len(task.train)}. "
            f"Use -n {len(task.train)} or less."
        )
    return Support(task.labels, tuple(_stratified(task.train, seed, "support")[:n]))


def draw_query(task: Task, size: int, seed: int = 0) -> tuple[Example, ...]:
    """Up to `size` test rows, as `sample` draws them. Raises `DataError` if it needs rows and there are none."""
    rows = _stratified(task.test, seed, "query")[:size]
    if size and not rows:
        raise DataError(f"{task.name} has no held-back rows to measure on; give more rows per label, or --eval 0.")
    return tuple(rows)


def proportioned(examples: Sequence[Example], size: int) -> tuple[Example, ...]:
    """At most `size` of the examples, shuffled: each label once before any comes twice, then in proportion."""
    return tuple(_stratified(examples, 0, "part")[:size])


def _stratified(examples: Sequence[Example], seed: int, part: str) -> list[Example]:
    """All examples so ordered that every beginning keeps the labels' shares, one of each label first."""
    stream = random.Random(f"{part}:{seed}")
    groups = list(_by_label(sorted(examples, key=lambda e: (e.label, e.text))).values())
    for group in groups:
        stream.shuffle(group)
    stream.shuffle(groups)
    # Example i of a label of size s is due at (i + jitter) / s; the first of each label at once.
    due = [
        (0.0 if i == 0 else (i + stream.random()) / len(group), g, i)
        for g, group in enumerate(groups)
        for i in range(len(group))
    ]
    return [groups[g][i] for _, g, i in sorted(due)]
