"""Which column is the text, and which the label: as the user says, or found by name and by the look of the values."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.data.load import Table
from promptmii.errors import DataError, nearest

TEXT_NAMES = (
    "text",
    "sentence",
    "content",
    "review",
    "tweet",
    "utterance",
    "question",
    "message",
    "comment",
    "title",
    "body",
    "input",
    "query",
)
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "intent",
    "sentiment",
    "emotion",
    "topic",
    "tag",
    "type",
    "y",
)
MOST_LABELS = 0.5
"""A column with more distinct values than this share of its rows is no label column."""
_SLOT = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Chosen:
    """The columns in use."""

    text: tuple[str, ...]
    template: str | None
    """How several columns make one text; `None` for one column as it is."""
    label: str | None
    notes: tuple[str, ...]
    """What was found rather than given."""

    def render(self, row: dict[str, Any]) -> str:
        """The text of a row; empty when every column is missing."""
        values = {name: "" if row[name] is None else str(row[name]) for name in self.text}
        if not any(value.strip() for value in values.values()):
            return ""
        if self.template is None:
            return values[self.text[0]]
        return _SLOT.sub(lambda match: values[match[1]], self.template)


def choose_columns(
    table: Table, text: str | Sequence[str] | None, label: str | None, *, labelled: bool = True
) -> Chosen:
    """Settle the columns. Raises `DataError` with the nearest name where one does not exist."""
    notes: list[str] = []
    if label is not None:
        _require(table, [label])
    elif labelled:
        label = _find_label(table, text)
        notes.append(f"label column: {label!r} (detected)")
    names, template = _text_columns(table, text)
    if not names:
        names = (_find_text(table, label),)
        notes.append(f"text column: {names[0]!r} (detected)")
    if label in names:
        raise DataError(f"The column {label!r} is given as text and as label; they must differ.")
    return Chosen(names, template, label, tuple(notes))


def _text_columns(table: Table, text: str | Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    if not text:
        return (), None
    if isinstance(text, str) and text not in table.columns and _SLOT.search(text):
        names = tuple(dict.fromkeys(_SLOT.findall(text)))
        _require(table, names)
        return names, text
    names = (text,) if isinstance(text, str) else tuple(text)
    _require(table, names)
    return names, None if len(names) == 1 else "\n".join(f"{name}: {{{name}}}" for name in names)


def _require(table: Table, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(f"{table.origin} has no column {name!r}. {nearest(name, table.columns)}")


def _values(table: Table, name: str) -> list[Any]:
    return [row[name] for row in table.rows if row[name] is not None]


def _find_label(table: Table, text: str | Sequence[str] | None) -> str:
    taken = {text} if isinstance(text, str) else set(text or ())
    candidates = [
        name
        for name in table.columns
        if name not in taken and f"{{{name}}}" not in str(text) and could_be_label(table, name)
    ]
    if not candidates:
        raise DataError(
            f"No column of {table.origin} looks like a label (a few values that repeat). "
            f"Columns: {', '.join(table.columns)}. Name it with --label."
        )
    declared = [name for name in candidates if name in table.classes]
    named = [name for hint in LABEL_NAMES for name in candidates if name.casefold() == hint]
    return (declared + named + sorted(candidates, key=lambda name: len(set(map(str, _values(table, name))))))[0]


def could_be_label(table: Table, name: str) -> bool:
    """Whether a column holds a few names or whole numbers that repeat."""
    values = _values(table, name)
    distinct = Counter(str(value) for value in values)
    scalar = all(isinstance(value, str | int) or (isinstance(value, float) and value.is_integer()) for value in values)
    return (
        scalar and len(distinct) >= 2 and len(distinct) <= MOST_LABELS * len(values) and max(map(len, distinct)) <= 120
    )


def _find_text(table: Table, label: str | None) -> str:
    candidates = [
        name
        for name in table.columns
        if name != label and any(isinstance(value, str) for value in _values(table, name))
    ]
    if not candidates:
        raise DataError(
            f"No column of {table.origin} holds text. Columns: {', '.join(table.columns)}. Name it with --text."
        )
    named = [name for hint in TEXT_NAMES for name in candidates if name.casefold() == hint]
    return (named + sorted(candidates, key=lambda name: -sum(len(str(value)) for value in _values(table, name))))[0]
