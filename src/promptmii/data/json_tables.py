"""JSON and JSON lines, in the shapes that people save tables in.

A list of objects, (text, label) pairs or texts; an object of columns; pandas' `to_json` in each of its orients; an
object of splits, `{"train": [...], "test": [...]}`; a task file, `{"data": [...], "instruction": "...", "labels":
[...]}`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptmii.data.decoding import split_lines
from promptmii.data.table import Row, Table, decode_classes, join_splits, make_table
from promptmii.errors import DataError, counted
from promptmii.task import Example

SHAPES = (
    'a list of objects, (text, label) pairs or texts, {"data": [...]}, {"train": [...], "test": [...]}, '
    "or one list of values per column"
)
SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval"})
ROW_KEYS = ("data", "rows", "examples", "records", "items")
"""Keys under which a list of rows may lie in an object."""


def read_json(text: str, origin: str) -> Table:
    """The table of a JSON file; lines of JSON are read too, whatever the ending says. Raises `DataError`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        if _is_lines(text):
            return read_json_lines(text, origin)
        raise DataError(f"{origin} is not valid JSON: {error}.") from error
    return nested_table(value, origin)


def read_json_lines(text: str, origin: str) -> Table:
    """The table of a file with an object per line, or of one list. Raises `DataError` naming the line that is none."""
    if text.lstrip().startswith("[") and not _is_lines(text):
        return read_json(text, origin)
    rows, notes = _accepted(list(json_line_rows(split_lines(text), origin)))
    return make_table(rows, origin, notes)


def json_line_rows(
    lines: Iterable[str], origin: str, *, skip: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines, lazily.

    Raises `DataError` at one that cannot be read, or tells `skip` of it and goes on.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            fault = None if isinstance(row, dict) else f"expected an object, found {type(row).__name__}"
        except (ValueError, RecursionError) as error:
            row, fault = {}, f"not valid JSON: {error}"
        if fault is None:
            yield row
        elif skip is None:
            raise DataError(f"{origin}, line {number}: {fault}.")
        else:
            skip(f"{origin}, line {number}: {fault}.")


def nested_table(value: Any, origin: str) -> Table:
    """The table in lists and mappings, from JSON or from memory. Raises `DataError`."""
    if isinstance(value, Mapping):
        return _mapping_table(value, origin)
    if _is_list(value):
        return make_table(_list_rows(value, origin), origin)
    raise DataError(f"{origin}: expected {SHAPES}; found {type(value).__name__}.")


def _is_lines(text: str) -> bool:
    """Whether the first of several lines is a value of JSON."""
    first, *others = split_lines(text.strip())
    try:
        return bool(others) and isinstance(json.loads(first), dict | list)
    except ValueError:
        return False


def _accepted(rows: list[Row]) -> tuple[list[Row], tuple[str, ...]]:
    """The rows without those in which an annotator of Prodigy accepted nothing; a note says how many there were."""
    if not all("_task_hash" in row and "answer" in row for row in rows):
        return rows, ()
    kept = [row for row in rows if row["answer"] == "accept"]
    left_out = len(rows) - len(kept)
    return kept, (f"{counted(left_out, 'row')} left out: the answer is not 'accept'",) if left_out else ()


def _list_rows(items: Sequence[Any], origin: str) -> list[Mapping[Any, Any]]:
    if all(isinstance(item, Mapping) for item in items):
        return list(items)
    if all(isinstance(item, str) for item in items):
        return [{"text": text} for text in items]
    if all(isinstance(item, Example) for item in items):
        return [{"text": item.text, "label": item.label} for item in items]
    if all(_is_list(item) and len(item) == 2 for item in items):
        return [{"text": text, "label": label} for text, label in items]
    raise DataError(f"{origin}: the list holds something other than objects, (text, label) pairs or texts.")


def _mapping_table(value: Mapping[str, Any], origin: str) -> Table:
    splits = any(str(name).casefold() in SPLIT_NAMES for name in value)
    if len(value) and all(_is_part(name, part, splits) for name, part in value.items()):
        return join_splits({str(name): nested_table(part, f"{origin}, {name}") for name, part in value.items()}, origin)
    if _is_list(value.get("columns")) and _is_list(value.get("data")):  # pandas, orient="split"
        return make_table([_row_of(value["columns"], row, origin) for row in value["data"]], origin)
    for key in ROW_KEYS:
        if _is_list(value.get(key)) and (key == "data" or len(value[key])) and not _is_columns(value):
            return _task_file(value, key, origin)
    if value and all(isinstance(part, Mapping) for part in value.values()):
        return make_table(_indexed_rows(value), origin)
    return make_table(_column_rows(value, origin), origin)


def _is_part(name: Any, part: Any, splits: bool) -> bool:
    """One split of several: anything under the name of a split, else a list of objects or, beside splits, of pairs."""
    if str(name).casefold() in SPLIT_NAMES:
        return _is_list(part) or isinstance(part, Mapping)
    if name in ROW_KEYS or not _is_list(part) or not len(part):
        return False
    return all(isinstance(row, Mapping) or (splits and _is_list(row)) for row in part)


def _is_columns(value: Mapping[str, Any]) -> bool:
    """One list of plain values per column, where a column may be called "data"."""
    return (
        len(value) > 1
        and all(
            _is_list(part) and len(part) and not any(isinstance(cell, Mapping) or _is_list(cell) for cell in part)
            for part in value.values()
        )
        and len({len(part) for part in value.values()}) == 1
    )


def _task_file(content: Mapping[str, Any], key: str, origin: str) -> Table:
    """Rows with what else a task file may say: an instruction for a human, and the labels in their order."""
    table = nested_table(content[key], origin)
    instruction, labels = content.get("instruction"), content.get("labels")
    if not isinstance(instruction, str | None):
        raise DataError(f"{origin}: instruction is {type(instruction).__name__}; expected a text.")
    if labels is not None and (not isinstance(labels, list) or not all(isinstance(label, str) for label in labels)):
        raise DataError(f"{origin}: labels is {labels!r}; expected a list of texts.")
    if labels and "label" in table.columns:
        named = any(str(row["label"]) in labels for row in table.rows)
        classes = {"label": tuple(labels)}
        table = replace(table, classes=classes) if named else decode_classes(table, classes)
    return replace(table, instruction=instruction)


def _row_of(columns: Sequence[Any], row: Any, origin: str) -> dict[str, Any]:
    if not _is_list(row) or len(row) != len(columns):
        raise DataError(f"{origin}: a row of data does not have the {len(columns)} cells that columns names.")
    return dict(zip(map(str, columns), row, strict=True))


def _indexed_rows(value: Mapping[Any, Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """`{column: {index: cell}}`, as pandas writes a table, or `{index: {column: cell}}`.

    An index is made of numbers; where neither or both are, there are more rows than columns.
    """
    outer, inner = list(value), list(dict.fromkeys(key for part in value.values() for key in part))
    numbers = [all(str(key).isdecimal() for key in keys) for keys in (outer, inner)]
    if numbers == [True, False] or (numbers[0] == numbers[1] and len(outer) > len(inner)):
        return list(value.values())
    return [{name: part.get(index) for name, part in value.items()} for index in inner]


def _column_rows(columns: Mapping[Any, Any], origin: str) -> list[dict[Any, Any]]:
    lists = {name: _values(values) for name, values in columns.items()}
    if strays := [name for name, values in lists.items() if values is None]:
        raise DataError(f"{origin}: {str(strays[0])[:60]!r} holds no list; expected {SHAPES}.")
    known = {name: values for name, values in lists.items() if values is not None}
    lengths = {name: len(values) for name, values in known.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{origin}: the columns have unequal lengths: {lengths}.")
    return [dict(zip(known, cells, strict=True)) for cells in zip(*known.values(), strict=True)]


def _values(values: Any) -> list[Any] | None:
    """The values of a column: a list, an array, a Series."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return None
    return list(values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
