"""From table rows to examples, with a count for everything that did not come through."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.data.columns import MOST_LABELS, Chosen
from promptmii.data.load import Table
from promptmii.errors import DataError
from promptmii.task import Example, normalise_text

MOST_DISTINCT_LABELS = 1_000


@dataclass(frozen=True)
class Cleaned:
    """The rows in use, and what became of the others."""

    examples: tuple[Example, ...]
    split: tuple[str, ...] | None
    """The source's own split of each example."""
    dropped: Counter[str]
    """Rows dropped, by reason."""

    def lines(self) -> tuple[str, ...]:
        """One sentence per reason."""
        return tuple(f"{count} rows dropped: {reason}" for reason, count in sorted(self.dropped.items()))


def label_text(value: Any, column: str) -> str:
    """A label as one line of text: True, 1 and 1.0 become "True", "1" and "1". Lists and fractions are refused."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float | list | dict | tuple):
        raise DataError(
            f"The label column {column!r} holds {value!r}; expected a name or a whole number per row (no lists, no scores)."
        )
    return " ".join(str(value).split())


def clean(table: Table, columns: Chosen, labels: Sequence[str] | None = None) -> Cleaned:
    """Drop what cannot be used: missing values, labels outside a given list, duplicates, contradictions. Raises `DataError`."""
    column = columns.label or ""
    known = set(labels) if labels else None
    dropped: Counter[str] = Counter()
    kept: dict[str, tuple[Example, str]] = {}
    contradicted: set[str] = set()
    for number, row in enumerate(table.rows):
        text, label = columns.render(row), "" if row[column] is None else label_text(row[column], column)
        reason = _unusable(text, label, known)
        key = normalise_text(text)
        if reason is None and key in kept:
            reason = "the same text as an earlier row"
            if kept[key][0].label != label:
                contradicted.add(key)
        if reason:
            dropped[reason] += 1
        else:
            kept[key] = Example(text, label), table.split[number] if table.split else ""
    for key in contradicted:
        del kept[key]
        dropped["the same text with different labels"] += 1
    _check(column, [example.label for example, _ in kept.values()], table, labels)
    split = tuple(part for _, part in kept.values()) if table.split else None
    return Cleaned(tuple(example for example, _ in kept.values()), split, dropped)


def _unusable(text: str, label: str, known: set[str] | None) -> str | None:
    if not text.strip():
        return "no text"
    if not label:
        return "no label"
    if known is not None and label not in known:
        return "a label outside the given list"
    return None


def _check(column: str, found: Sequence[str], table: Table, given: Sequence[str] | None) -> None:
    distinct = sorted(set(found))
    if not found:
        wanted = f" with one of the labels {', '.join(given)}" if given else ""
        raise DataError(
            f"{table.origin} has no usable row{wanted}: every one lacks a text or a label (column {column!r})."
        )
    if len(distinct) < 2 and not given:
        raise DataError(
            f"The label column {column!r} of {table.origin} has one value ({distinct[0]!r}); expected at least two."
        )
    too_many = len(distinct) > MOST_LABELS * len(found) and len(found) > 4
    if not given and (too_many or len(distinct) > MOST_DISTINCT_LABELS):
        raise DataError(
            f"The label column {column!r} of {table.origin} has {len(distinct)} different values in {len(found)} rows; that is an "
            "identifier or a text rather than a label. Name another with --label."
        )
