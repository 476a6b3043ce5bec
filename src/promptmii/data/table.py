"""Rows with named columns: what every reader makes, whatever it reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, cast

from promptmii.errors import DataError

Row: TypeAlias = dict[str, Any]

# Names by which people call the columns of texts and labels, the likeliest first.
TEXT_NAMES = (
    *("text", "sentence", "content", "review", "tweet", "utterance", "message", "comment", "body", "description"),
    *("question", "query", "input", "title", "subject", "headline"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion", "topic", "tag", "type", "y"),
)


_NOTHING = ("", "\\N")
"""Cells without a value. Databases write \\N; "NA" and "null" may be texts and labels."""


@dataclass(frozen=True)
class Table:
    """Rows with named columns."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    """Every row has every column; `None` is a missing value."""
    origin: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Class names of the columns whose schema declares them; values are decoded already."""
    split: tuple[str, ...] | None = None
    """The split of each row, where the source has splits."""
    instruction: str | None = None
    """A human's instruction for the task, if the source has one."""
    notes: tuple[str, ...] = ()
    """Notes on what the reader decided or left out."""


def make_table(rows: Iterable[Mapping[Any, Any]], origin: str, notes: tuple[str, ...] = ()) -> Table:
    """A table of rows that may differ in their columns. Raises `DataError` if there is no row."""
    cleaned = [clean_row(row) for row in rows]
    columns = tuple(dict.fromkeys(name for row in cleaned for name in row))
    if not columns:
        raise DataError(f"{origin} holds no rows.")
    return Table(columns, tuple({name: row.get(name) for name in columns} for row in cleaned), origin, notes=notes)


def clean_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row with plain names and cells; what stands for nothing is `None`."""
    return {_name(name): _cell(value) for name, value in row.items()}


@lru_cache(maxsize=4096)
def _name(name: Any) -> str:
    return _plain_text(str(name))


def join_splits(parts: Mapping[str, Table], origin: str) -> Table:
    """One table of several splits. Raises `DataError` if none holds a row."""
    rows = [row for table in parts.values() for row in table.rows]
    split = tuple(name for name, table in parts.items() for _ in table.rows)
    classes = {name: names for table in parts.values() for name, names in table.classes.items()}
    table = make_table(rows, origin)
    return Table(table.columns, table.rows, origin, classes, split if len(parts) > 1 else None)


def decode_classes(table: Table, classes: Mapping[str, Sequence[str]]) -> Table:
    """The table with class numbers as names. A number outside the classes, such as -1 for "unlabelled", is missing."""
    known = {name: tuple(map(str, names)) for name, names in classes.items() if name in table.columns}
    if not known:
        return table
    rows = tuple(row | {name: class_name(row[name], names) for name, names in known.items()} for row in table.rows)
    return Table(table.columns, rows, table.origin, known, table.split, table.instruction, table.notes)


def class_name(value: Any, names: Sequence[str]) -> Any:
    """The name of a class number, `None` for one outside the classes; what is a name or no number stays.

    Of a list of numbers, their names.
    """
    if isinstance(value, list):
        return [class_name(number, names) for number in cast("list[Any]", value)]
    if isinstance(value, str) and value in names:
        return value
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return value
    return names[number] if 0 <= number < len(names) else None


def _cell(value: Any) -> Any:
    """A plain value; bytes that are UTF-8 become text.

    `None` for what stands for nothing: None, NaN, NaT, the empty string, the \\N of a database, a list of one of them.
    """
    if type(value) is str and value.isascii():  # most cells
        return None if value in _NOTHING else value
    if isinstance(value, bytes | bytearray):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, str):
        return _plain_text(value) or None
    if value is None or _is_scalar_nan(value):
        return None
    if isinstance(value, Sequence | Mapping):
        return None if isinstance(value, list | tuple) and len(value) == 1 and _cell(value[0]) is None else value
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return value.tolist()
    return value.item() if hasattr(value, "item") else value  # a numpy scalar


def _plain_text(text: str) -> str:
    """The text with half characters, which JSON can hold, replaced: no encoding takes them."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_scalar_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA and arrays have no truth value
        return not hasattr(value, "__len__")
