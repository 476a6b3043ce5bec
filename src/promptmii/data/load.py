"""Turns a source into a task: reads it, chooses its columns, cleans its rows and splits them by content and seed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptmii.data.clean import UNLISTED, CleanedRows, clean
from promptmii.data.columns import ChosenColumns, choose_columns, with_fields
from promptmii.data.labels import one_line
from promptmii.data.readers import Source, read_table
from promptmii.data.sample import by_label, missing_labels, random_rank
from promptmii.data.table import TEST_NAMES, TRAIN_NAMES, Table, is_number
from promptmii.messages import counted, listed
from promptmii.task import Example, Task, normalise_text

TEST_SHARE = 0.4
SPLIT_NAMES = frozenset((*TRAIN_NAMES, *TEST_NAMES))


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
            *(missing_labels("held-back row", labels, test) if test else ()),
        )


def load_task(
    source: Source,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    unlisted_reason: str = UNLISTED,
) -> LoadedTask:
    """Read a source, choose its columns, clean its rows and split them. Raises `DataError`.

    `unlisted_reason` says in the notes why rows with a label outside `labels` are dropped.
    """
    table = with_fields(read_table(source), text, label)
    columns = choose_columns(table, text, label)
    return assemble(table, columns, clean(table, columns, labels, unlisted_reason), labels=labels, seed=seed)


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
    answerable = [example for example in test if example.label in known]
    source = {"origin": table.origin, "text": ", ".join(columns.text), "label": columns.label or ""}
    task = Task(table.origin, label_set, tuple(train), tuple(answerable), table.instruction, source)
    notes = [*table.notes, *columns.notes, *cleaned.lines(), *unused, *_split_column_notes(table, columns)]
    if dropped := len(test) - len(answerable):
        notes.append(f"{counted(dropped, 'test row')} dropped: their labels do not occur in the training part")
    return LoadedTask(task, columns, tuple(notes))


def _split_column_notes(table: Table, columns: ChosenColumns) -> Iterator[str]:
    """A note on each column that only names splits, such as "train" and "test"."""
    for column in table.columns:
        names = [str(row[column]) for row in table.rows if row[column] is not None]
        if column in (*columns.text, columns.label) or not all(name.casefold() in SPLIT_NAMES for name in names):
            continue
        splits = {name.casefold() for name in names}
        if splits & set(TRAIN_NAMES) and splits & set(TEST_NAMES):
            yield (
                f"the splits in the column {column!r} ({listed(sorted(set(names)))}) are not used. To use them, save "
                'the rows as {"train": [...], "test": [...]} in a .json file'
            )


def _unused_split_notes(cleaned: CleanedRows, train: Sequence[Example], test: Sequence[Example]) -> tuple[str, ...]:
    used = {id(example) for example in (*train, *test)}
    rows = zip(cleaned.split or (), cleaned.examples, strict=False)
    unused = Counter(split for split, example in rows if id(example) not in used)
    return tuple(f"the split {split!r} is not used ({counted(n, 'row')})" for split, n in unused.items())


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
    for group in by_label(cleaned.examples).values():
        shuffled = sorted(group, key=lambda example: random_rank(normalise_text(example.text), seed))
        n_test = min(round(len(shuffled) * test_share), len(shuffled) - 1)
        test += shuffled[:n_test]
        train += shuffled[n_test:]
    return train, test


def _label_order(table: Table, columns: ChosenColumns, train: Sequence[Example]) -> tuple[str, ...]:
    """The label set of the training part: in the schema's order if it has one, else numbers by value, then names."""
    present = {example.label for example in train}
    declared = [one_line(name) for name in table.classes.get(columns.label or "", ())]
    if declared and present <= set(declared):
        return tuple(dict.fromkeys(name for name in declared if name in present))
    return tuple(sorted(present, key=lambda name: (not is_number(name), float(name) if is_number(name) else 0.0, name)))
