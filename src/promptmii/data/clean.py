"""From table rows to examples, counting every row that is dropped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.data.columns import MOST_LABELS, Chosen
from promptmii.data.labels import Spelling, doubtful_notes, label_text, one_line, variant_notes
from promptmii.data.table import TEXT_NAMES, Table
from promptmii.errors import DataError, counted
from promptmii.task import Example, normalise_text

MOST_DISTINCT_LABELS = 1_000
MOST_NUMBERS = 20
"""More numbers than this, each of them once, are identifiers even in a column that was named."""
LONGEST_NAME = 60
"""Mean characters from which values that never repeat are texts, not labels."""


@dataclass(frozen=True)
class Cleaned:
    """The rows in use, and what became of the others."""

    examples: tuple[Example, ...]
    split: tuple[str, ...] | None
    """The source's own split of each example."""
    dropped: Counter[str]
    """Rows dropped, by reason."""
    notes: tuple[str, ...] = ()
    """Labels that were joined, or that look like several."""

    def lines(self) -> tuple[str, ...]:
        """The notes, and one sentence per reason."""
        dropped = (f"{counted(count, 'row')} dropped: {reason}" for reason, count in sorted(self.dropped.items()))
        return (*self.notes, *dropped)


def clean(table: Table, columns: Chosen, labels: Sequence[str] | None = None) -> Cleaned:
    """Drop what cannot be used: missing values, labels outside a given list, duplicates, contradictions.

    Raises `DataError` where too little is left, or the label column holds no labels.
    """
    column = columns.label or ""
    dropped: Counter[str] = Counter()
    written = _labels(table, column)
    known = labels or [one_line(name) for name in table.classes.get(column, ())]
    spelling = Spelling.of((label for label in written if label), known, closed=bool(labels))
    strangers: Counter[str] = Counter()
    kept: dict[str, tuple[Example, str]] = {}
    contradicted: set[str] = set()
    for number, (row, found) in enumerate(zip(table.rows, written, strict=True)):
        text, label = columns.render(row), spelling(found) if found else None
        key = normalise_text(text)
        reason = "the header again, or a line under it" if _is_frame(row, columns, found) else None
        reason = reason or _unusable(text, found)
        if reason is None and label is None:
            reason = "a label outside the given list"
            strangers[found or ""] += 1
        if reason is None and key in kept:
            reason = "the same text as an earlier row"
            if kept[key][0].label != label:
                contradicted.add(key)
        if reason:
            dropped[reason] += 1
        else:
            kept[key] = Example(text, label or ""), table.split[number] if table.split else ""
    for key in contradicted:
        del kept[key]
        dropped["the same text with different labels"] += 1
    if not kept:
        raise _nothing_left(table, columns, dropped, strangers)
    examples = tuple(example for example, _ in kept.values())
    if not labels:
        _check_labels(table, columns, [example.label for example in examples])
    split = tuple(part for _, part in kept.values()) if table.split else None
    seen = (str(row[column]) for row, found in zip(table.rows, written, strict=True) if found)
    notes = variant_notes(seen, spelling) + (() if labels else doubtful_notes([e.label for e in examples]))
    return Cleaned(examples, split, dropped, notes)


def _labels(table: Table, column: str) -> list[str | None]:
    """The label of each row: empty where there is none, `None` where there are several."""
    values = [row[column] for row in table.rows]
    several = [isinstance(value, list | tuple) and len(value) > 1 for value in values]
    if sum(several) * 2 > len(values):
        label_text(values[several.index(True)], column)  # raises
    empty = [value is None or (isinstance(value, list | tuple) and not value) for value in values]
    return [
        None if many else "" if none else label_text(value, column)
        for value, many, none in zip(values, several, empty, strict=True)
    ]


def _is_frame(row: Mapping[str, Any], columns: Chosen, label: str | None) -> bool:
    """Whether a row holds the names of its columns, as files that were joined do, or nothing but dashes."""
    if not label or (label != columns.label and label.strip("-")):
        return False
    texts = {name: one_line(str(row[name])) for name in columns.text}
    named = label == columns.label and all(name == text for name, text in texts.items())
    return named or not any(text.strip("-") for text in (label, *texts.values()))


def _unusable(text: str, label: str | None) -> str | None:
    if not text.strip():
        return "no text"
    if label is None:
        return "several labels for one text"
    return None if label else "no label"


def _nothing_left(table: Table, columns: Chosen, dropped: Counter[str], strangers: Counter[str]) -> DataError:
    reasons = "; ".join(f"{counted(count, 'row')}: {reason}" for reason, count in dropped.most_common())
    there = f" The column holds {', '.join(map(repr, list(strangers)[:8]))}." if strangers else ""
    return DataError(
        f"{table.origin} has no usable row ({reasons}).{there} Texts are from {', '.join(map(repr, columns.text))}, "
        f"labels from {columns.label!r}; name other columns with --text and --label."
    )


def _is_headless(table: Table) -> bool:
    """Whether no column has a usual name or, as in a DataFrame without names, its number."""
    numbered = table.columns == tuple(map(str, range(len(table.columns))))
    return not numbered and not any(name.casefold() in TEXT_NAMES for name in table.columns)


def _check_labels(table: Table, columns: Chosen, found: Sequence[str]) -> None:
    distinct = sorted(set(found))
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
    if columns.label_named:
        alone = len(distinct) == len(found) and len(found) > 4
        numbers = len(found) > MOST_NUMBERS and all(label.lstrip("+-").isdecimal() for label in distinct)
        too_many = alone and (numbers or sum(map(len, distinct)) > LONGEST_NAME * len(distinct))
    else:
        too_many = len(distinct) > MOST_LABELS * len(found) and len(found) > 4
    if too_many or len(distinct) > MOST_DISTINCT_LABELS:
        raise DataError(
            f"The label column {column!r} of {origin} has {len(distinct)} different values in {len(found)} rows; "
            "that looks like identifiers or texts, not labels. Name another with --label, or list the labels with "
            "--labels."
        )
