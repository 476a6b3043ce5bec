"""Turns table rows into examples and counts the rows it drops."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.data.columns import MAX_LABEL_SHARE, ChosenColumns
from promptmii.data.labels import Spelling, doubtful_notes, label_text, one_line, variant_notes
from promptmii.data.sample import LABELS_PER_NOTE
from promptmii.data.table import TEXT_NAMES, Table
from promptmii.errors import DataError
from promptmii.messages import counted, listed
from promptmii.task import Example, normalise_text

MAX_DISTINCT_LABELS = 1_000
MAX_UNREPEATED_NUMBERS = 20
"""More numbers than this, none of them repeated, are identifiers even if the user named the column."""
MAX_MEAN_NAME_LENGTH = 60
"""Values that never repeat and are longer than this on average (in characters) are texts, not labels."""
UNLISTED = "a label outside the given list"


@dataclass(frozen=True)
class CleanedRows:
    """The usable rows, with a record of the dropped ones."""

    examples: tuple[Example, ...]
    split: tuple[str, ...] | None
    """The split of each example, if the source has splits."""
    dropped: Counter[str]
    """Number of dropped rows by reason."""
    notes: tuple[str, ...] = ()
    """Notes on merged spellings and doubtful labels."""

    def lines(self) -> tuple[str, ...]:
        """The notes, then one sentence per reason for dropping rows."""
        dropped = (f"{counted(count, 'row')} dropped: {reason}" for reason, count in sorted(self.dropped.items()))
        return (*self.notes, *dropped)


def clean(
    table: Table, columns: ChosenColumns, labels: Sequence[str] | None = None, unlisted_reason: str = UNLISTED
) -> CleanedRows:
    """Drop unusable rows: missing values, labels outside a given list, duplicates and contradictions.

    Raises `DataError` if too little is left or the label column does not hold labels.
    """
    column = columns.label or ""
    raw_labels = label_cells(table, column)
    known_labels = labels or [one_line(name) for name in table.classes.get(column, ())]
    spelling = Spelling.of(filter(None, raw_labels), known_labels, closed=bool(labels))
    splits = table.split or ("",) * len(table.rows)
    dropped: Counter[str] = Counter()
    unlisted: list[str] = []
    kept: dict[str, tuple[Example, str]] = {}  # by normalised text
    contradictory: set[str] = set()
    for row, raw_label, split in zip(table.rows, raw_labels, splits, strict=True):
        text = columns.render(row)
        label = spelling(raw_label) if raw_label else None
        key = normalise_text(text)
        if reason := _drop_reason(row, columns, text, raw_label):
            dropped[reason] += 1
        elif label is None:
            dropped[unlisted_reason] += 1
            unlisted.append(str(raw_label))
        elif key in kept:
            dropped["the same text as an earlier row"] += 1
            if kept[key][0].label != label:
                contradictory.add(key)
        else:
            kept[key] = Example(text, label), split
    for key in contradictory:
        del kept[key]
        dropped["the same text with different labels"] += 1
    if not kept:
        raise _nothing_left(table, columns, dropped, unlisted)
    if unlisted:
        dropped[f"{unlisted_reason} ({_names(unlisted, LABELS_PER_NOTE)})"] = dropped.pop(unlisted_reason)
    examples = tuple(example for example, _ in kept.values())
    used_labels = [example.label for example in examples]
    if not labels:
        _check_labels(table, columns, used_labels)
    cells = (str(row[column]) for row, raw_label in zip(table.rows, raw_labels, strict=True) if raw_label)
    notes = variant_notes(cells, spelling) + (() if labels else doubtful_notes(used_labels))
    return CleanedRows(examples, tuple(split for _, split in kept.values()) if table.split else None, dropped, notes)


def label_cells(table: Table, column: str) -> list[str | None]:
    """The label of each row as written: empty if it is missing, `None` if the row has several.

    Raises `DataError` if most rows have several labels.
    """
    values = [row[column] for row in table.rows]
    multiple = [value for value in values if isinstance(value, list | tuple) and len(value) > 1]
    if len(multiple) * 2 > len(values):
        label_text(multiple[0], column)  # raises
    return [_raw_label(value, column) for value in values]


def _raw_label(value: Any, column: str) -> str | None:
    if isinstance(value, list | tuple) and len(value) != 1:
        return None if value else ""
    return "" if value is None else label_text(value, column)


def _drop_reason(row: Mapping[str, Any], columns: ChosenColumns, text: str, label: str | None) -> str | None:
    if _is_header_or_rule(row, columns, label):
        return "the header again, or a line under it"
    if not text.strip():
        return "no text"
    if label is None:
        return "several labels for one text"
    return None if label else "no label"


def _is_header_or_rule(row: Mapping[str, Any], columns: ChosenColumns, label: str | None) -> bool:
    """Whether a row repeats the column names, as in concatenated files, or holds only the dashes of a rule."""
    if not label or (label != columns.label and label.strip("-:")):
        return False
    cells = [one_line(str(row[name])) for name in columns.text]
    return is_header(row, (*columns.text, columns.label or "")) or not any(cell.strip("-:") for cell in (label, *cells))


def is_header(row: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether a row repeats the names of columns, as in concatenated files."""
    return all(one_line(str(row[name])) == name for name in names)


def _names(labels: Sequence[str], most: int) -> str:
    return listed([f"{label!r:.60}" for label in dict.fromkeys(labels)], most)


def _nothing_left(table: Table, columns: ChosenColumns, dropped: Counter[str], unlisted: Sequence[str]) -> DataError:
    reasons = "; ".join(f"{counted(count, 'row')}: {reason}" for reason, count in dropped.most_common())
    values = f" The column holds {_names(unlisted, 8)}." if unlisted else ""
    return DataError(
        f"{table.origin} has no usable row ({reasons}).{values} Texts are from {', '.join(map(repr, columns.text))}, "
        f"labels from {columns.label!r}; name other columns with --text and --label."
    )


def _is_headless(table: Table) -> bool:
    """Whether no column has a usual text name; numbered columns are a DataFrame's defaults and do not count."""
    numbered = table.columns == tuple(map(str, range(len(table.columns))))
    return not numbered and not any(name.casefold() in TEXT_NAMES for name in table.columns)


def _check_labels(table: Table, columns: ChosenColumns, labels: Sequence[str]) -> None:
    distinct = sorted(set(labels))
    column, origin = columns.label, table.origin
    if not columns.label_named and column in distinct and _is_headless(table):
        raise DataError(
            f"{origin} seems to have no header: {column!r}, the name of a column, is also a value in it. Write the "
            "names of the columns above the first row, such as text and label, or name the columns with --text and "
            "--label."
        )
    if len(distinct) < 2:
        raise DataError(
            f"The label column {column!r} of {origin} has one value ({distinct[0]!r}); expected at least two."
        )
    if _are_not_labels(distinct, len(labels), named=columns.label_named):
        raise DataError(
            f"The label column {column!r} of {origin} has {len(distinct)} different values in {len(labels)} rows; "
            "that looks like identifiers or texts, not labels. Name another with --label, or list the labels with "
            "--labels."
        )


def _are_not_labels(distinct: Sequence[str], rows: int, *, named: bool) -> bool:
    """Whether the distinct values of a column look like identifiers or texts; a named column may have more of them."""
    if len(distinct) > MAX_DISTINCT_LABELS:
        return True
    if rows <= 4:
        return False
    if not named:
        return len(distinct) > MAX_LABEL_SHARE * rows
    if len(distinct) < rows:
        return False
    many_numbers = rows > MAX_UNREPEATED_NUMBERS and all(value.lstrip("+-").isdecimal() for value in distinct)
    return many_numbers or sum(map(len, distinct)) > MAX_MEAN_NAME_LENGTH * len(distinct)
