"""The table of rows and named columns that every reader returns."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias, cast

from promptmii.errors import DataError

Row: TypeAlias = dict[str, Any]

# Usual names of text and label columns, the most likely first.
TEXT_NAMES = (
    *("text", "sentence", "content", "review", "tweet", "utterance", "message", "comment", "body", "description"),
    *("question", "query", "input", "title", "subject", "headline"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion", "topic", "tag", "type", "y"),
)
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names of test splits, in order of preference."""

_MISSING = ("", "\\N")
"""Missing values as text. Databases write \\N; "NA" and "null" are not here because they may be texts or labels."""


@dataclass(frozen=True)
class Table:
    """Rows with named columns."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    """Every row has every column; `None` is a missing value."""
    origin: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The class names of columns whose schema declares them. The rows hold names already, not class numbers."""
    split: tuple[str, ...] | None = None
    """The split of each row, if the source has splits."""
    instruction: str | None = None
    """A human instruction for the task, if the source has one."""
    notes: tuple[str, ...] = ()
    """Notes on what the reader decided or left out."""


def make_table(rows: Iterable[Mapping[Any, Any]], origin: str, notes: tuple[str, ...] = ()) -> Table:
    """Build a table from rows that may differ in their columns."""
    cleaned = [clean_row(row) for row in rows]
    columns = tuple(dict.fromkeys(name for row in cleaned for name in row))
    return Table(columns, tuple({name: row.get(name) for name in columns} for row in cleaned), origin, notes=notes)


def require_rows(table: Table) -> Table:
    """The table. Raises `DataError` if it is empty."""
    if not table.columns:
        raise DataError(f"{table.origin} holds no rows.")
    return table


def clean_row(row: Mapping[Any, Any]) -> Row:
    """A row with text names, plain cells, and `None` for missing values."""
    return {column_name(name): clean_cell(value) for name, value in row.items()}


@lru_cache(maxsize=4096, typed=True)  # 1, 1.0 and True are equal
def column_name(name: Any) -> str:
    """The name of a column as valid Unicode."""
    return _without_surrogates(str(name))


def join_splits(parts: Mapping[str, Table], origin: str) -> Table:
    """Join the tables of several splits. Empty ones are left out, with a note."""
    tables = {name: table for name, table in parts.items() if table.columns}
    empty = [f"the split {name!r} is empty" for name in parts if name not in tables]
    joined = make_table((row for table in tables.values() for row in table.rows), origin)
    return replace(
        joined,
        classes={column: names for table in tables.values() for column, names in table.classes.items()},
        split=tuple(name for name, table in tables.items() for _ in table.rows) if len(tables) > 1 else None,
        instruction=next((table.instruction for table in tables.values() if table.instruction), None),
        notes=(*(note for table in tables.values() for note in table.notes), *empty),
    )


def decode_classes(table: Table, classes: Mapping[str, Sequence[str]]) -> Table:
    """Replace class numbers by names. Numbers outside the classes, such as -1 for "unlabelled", become `None`."""
    decoded = {column: tuple(map(str, names)) for column, names in classes.items() if column in table.columns}
    if not decoded:
        return table
    rows = tuple(
        row | {column: class_name(row[column], names) for column, names in decoded.items()} for row in table.rows
    )
    return replace(table, rows=rows, classes=decoded)


def class_name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class number, or `None` if no class has it. Names, fractions and other values are unchanged.

    A list of numbers becomes a list of names.
    """
    if isinstance(value, list):
        return [class_name(number, names) for number in cast("list[Any]", value)]
    if isinstance(value, str) and value in names:
        return value
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return value
    if not isinstance(value, str) and number != value:
        return value
    return names[number] if 0 <= number < len(names) else None


def is_number(text: str) -> bool:
    """True for a finite number, such as "-1.5" or "1e3"."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def clean_cell(value: Any) -> Any:
    """A plain Python value. UTF-8 bytes become text, arrays and sets lists, numpy scalars Python scalars.

    A member of an Enum becomes its value, or its name if the value is neither a text nor that of an IntEnum.

    Missing values become `None`: NaN, NaT, an empty string, the \\N of databases, and a list of one of these.
    """
    if type(value) is str and value.isascii():  # the fast path for most cells
        return None if value in _MISSING else value
    if isinstance(value, bytes | bytearray):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, Enum):
        return clean_cell(value.value if isinstance(value.value, str) or isinstance(value, int) else value.name)
    if isinstance(value, str):
        text = _without_surrogates(str.__str__(value))  # a plain str, also of a numpy string
        return None if text in _MISSING else text
    if value is None or _is_scalar_nan(value):
        return None
    if isinstance(value, set | frozenset):
        return clean_cell(sorted(cast("set[Any]", value), key=str))
    if isinstance(value, Sequence | Mapping):
        return None if isinstance(value, list | tuple) and len(value) == 1 and clean_cell(value[0]) is None else value
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return clean_cell(value.tolist())
    return value.item() if hasattr(value, "item") else value  # a numpy scalar


def _without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced: JSON allows them, but they cannot be encoded."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_scalar_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # pandas.NA and arrays have no truth value; sNaN has no order
        return not hasattr(value, "__len__")
