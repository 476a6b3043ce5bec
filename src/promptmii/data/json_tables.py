"""Reads tables from JSON and JSON Lines.

Accepted shapes: a list of objects, (text, label) pairs or texts; an object of columns; pandas' `to_json` in any orient;
an object of splits, `{"train": [...], "test": [...]}`; and a task file, `{"data": [...], "instruction": "...",
"labels": [...]}`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptmii.data.decoding import split_lines
from promptmii.data.table import (
    TEST_NAMES,
    TRAIN_NAMES,
    Row,
    Table,
    clean_cell,
    decode_classes,
    join_splits,
    make_table,
)
from promptmii.errors import DataError
from promptmii.messages import counted
from promptmii.task import Example

SHAPES = (
    'a list of objects, (text, label) pairs or texts, {"data": [...]}, {"train": [...], "test": [...]}, '
    "or one list of values per column"
)
_NOT_SPACE = re.compile(r"\S")
ROW_KEYS = ("data", "rows", "examples", "records", "items")
"""Keys that may hold the list of rows in an object."""


def read_json(text: str, origin: str) -> Table:
    """Read JSON, or JSON Lines and other concatenated objects despite the file ending. Raises `DataError`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        if _is_lines(text):
            return read_json_lines(text, origin)
        value = _concatenated_objects(text)
        if not value:
            raise DataError(f"{origin} is not valid JSON: {error}.") from error
    return nested_table(value, origin)


def _concatenated_objects(text: str) -> list[Any]:
    """The objects of a text that holds one after another, as jq prints them; empty if it holds anything else."""
    decode, objects = json.JSONDecoder().raw_decode, list[Any]()
    end = 0
    while start := _NOT_SPACE.search(text, end):
        try:
            value, end = decode(text, start.start())
        except ValueError:
            return []
        if not isinstance(value, dict):
            return []
        objects.append(value)
    return objects


def read_json_lines(text: str, origin: str) -> Table:
    """Read JSON Lines, or a JSON list despite the file ending. Raises `DataError` naming the first invalid line."""
    if text.lstrip().startswith("[") and not _is_lines(text):
        return read_json(text, origin)
    rows = list(json_line_rows(split_lines(text), origin))
    accepted = [row for row in rows if not is_rejected(row)]
    left_out = len(rows) - len(accepted)
    notes = (f"{counted(left_out, 'row')} left out: the answer is not 'accept'",) if left_out else ()
    return make_table(accepted, origin, notes)


def is_rejected(row: Row) -> bool:
    """Whether a row is from an export of Prodigy, and its annotator rejected or ignored it."""
    return "_task_hash" in row and row.get("answer", "accept") != "accept"


def json_line_rows(
    lines: Iterable[str], origin: str, *, skip: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Stream the objects of JSON Lines.

    An invalid line raises `DataError`; with `skip`, the message goes to `skip` and reading continues.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            hint = "; a file of objects of several lines needs the ending .json" if line.strip() == "{" else ""
            fault = f"not valid JSON: {error}{hint}"
        else:
            if isinstance(row, dict):
                yield row
                continue
            fault = f"expected an object, found {type(row).__name__}"
        message = f"{origin}, line {number}: {fault}."
        if skip is None:
            raise DataError(message)
        skip(message)


def nested_table(value: Any, origin: str) -> Table:
    """Convert lists and mappings, from JSON or from memory. Raises `DataError`."""
    if isinstance(value, Mapping):
        return _mapping_table(value, origin)
    if _is_list(value):
        return make_table(_list_rows(value, origin), origin)
    raise DataError(f"{origin}: expected {SHAPES}; found {type(value).__name__}.")


def _is_lines(text: str) -> bool:
    """Whether a text has several lines and the first is a JSON object or list."""
    first, *others = split_lines(text.strip())
    try:
        return bool(others) and isinstance(json.loads(first), dict | list)
    except ValueError:
        return False


def _list_rows(items: Sequence[Any], origin: str) -> list[Mapping[Any, Any]]:
    if all(isinstance(item, Mapping) for item in items):
        return list(items)
    others = [item for item in items if not isinstance(item, str)]
    if len(others) < len(items) and all(clean_cell(item) is None for item in others):  # missing texts
        return [{"text": text} for text in items]
    if all(isinstance(item, Example) for item in items):
        return [{"text": item.text, "label": item.label} for item in items]
    if all(_is_list(item) and len(item) == 2 for item in items):
        return [{"text": text, "label": label} for text, label in items]
    raise DataError(f"{origin}: the list holds something other than objects, (text, label) pairs or texts.")


def _mapping_table(value: Mapping[str, Any], origin: str) -> Table:
    has_split = any(str(key).casefold() in (*TRAIN_NAMES, *TEST_NAMES) for key in value)
    if len(value) and all(_is_split(key, part, has_split) for key, part in value.items()):
        return join_splits({str(key): nested_table(part, f"{origin}, {key}") for key, part in value.items()}, origin)
    if _is_list(value.get("columns")) and _is_list(value.get("data")):  # pandas, orient="split"
        return make_table([_named_cells(value["columns"], row, origin) for row in value["data"]], origin)
    for key in ROW_KEYS:
        if _is_list(value.get(key)) and (key == "data" or len(value[key])) and not _is_columns(value):
            return _task_file(value, key, origin)
    if value and all(isinstance(part, Mapping) for part in value.values()):
        return make_table(_indexed_rows(value), origin)
    return make_table(_column_rows(value, origin), origin)


def _is_split(key: Any, value: Any, has_split: bool) -> bool:
    """Whether a value can be one split of several.

    Under the name of a split, any list or mapping can. Otherwise it must be a list of objects, or also of pairs if
    another key (`has_split`) names a split.
    """
    if str(key).casefold() in (*TRAIN_NAMES, *TEST_NAMES):
        return _is_list(value) or isinstance(value, Mapping)
    if key in ROW_KEYS or not _is_list(value) or not len(value):
        return False
    return all(isinstance(row, Mapping) or (has_split and _is_list(row)) for row in value)


def _is_columns(value: Mapping[str, Any]) -> bool:
    """Whether a mapping has one list of scalars per column; a column may be called "data"."""
    columns = list(value.values())
    if len(columns) < 2 or not all(_is_list(cells) and len(cells) for cells in columns):
        return False
    has_nested = any(isinstance(cell, Mapping) or _is_list(cell) for cells in columns for cell in cells)
    return not has_nested and len({len(cells) for cells in columns}) == 1


def _task_file(content: Mapping[str, Any], key: str, origin: str) -> Table:
    """The rows under `key`, with the human instruction and the ordered labels that a task file may add."""
    table = nested_table(content[key], origin)
    instruction, labels = content.get("instruction"), content.get("labels")
    if not isinstance(instruction, str | None):
        raise DataError(f"{origin}: instruction is {type(instruction).__name__}; expected a text.")
    if labels is not None and (not isinstance(labels, list) or not all(isinstance(label, str) for label in labels)):
        raise DataError(f"{origin}: labels is {labels!r}; expected a list of texts.")
    if labels and "label" in table.columns:
        named = any(str(row["label"]) in labels for row in table.rows)
        values = {str(row["label"]) for row in table.rows}
        if not named and str(len(labels)) in values and "0" not in values:
            raise DataError(
                f"{origin}: the rows number labels from 1, but labels count from 0. Write names in the rows."
            )
        classes = {"label": tuple(labels)}
        table = replace(table, classes=classes) if named else decode_classes(table, classes)  # else numbered
    elif labels:
        table = replace(
            table, notes=(*table.notes, "the list of labels is not used, because no column is called 'label'")
        )
    return replace(table, instruction=instruction)


def _named_cells(columns: Sequence[Any], row: Any, origin: str) -> dict[str, Any]:
    if not _is_list(row) or len(row) != len(columns):
        raise DataError(f"{origin}: a row of data does not have the {len(columns)} cells that columns names.")
    return dict(zip(map(str, columns), row, strict=True))


def _indexed_rows(value: Mapping[Any, Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """The rows of `{column: {index: cell}}`, as pandas writes a table, or of `{index: {column: cell}}`.

    The index is the level whose keys are all numbers. If that holds for both levels or neither, a table has more rows
    than columns.
    """
    outer = list(value)
    inner = list(dict.fromkeys(key for part in value.values() for key in part))
    outer_numbered, inner_numbered = (all(str(key).isdecimal() for key in keys) for keys in (outer, inner))
    outer_is_index = len(outer) > len(inner) if outer_numbered == inner_numbered else outer_numbered
    if outer_is_index:
        return list(value.values())
    return [{column: cells.get(index) for column, cells in value.items()} for index in inner]


def _column_rows(columns: Mapping[Any, Any], origin: str) -> list[dict[Any, Any]]:
    """The rows of a mapping from column names to lists, arrays or Series."""
    lists: dict[Any, list[Any]] = {}
    for name, values in columns.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise DataError(f"{origin}: {str(name)[:60]!r} is not a list; expected {SHAPES}.")
        of_arrow = getattr(values, "to_pylist", None)
        lists[name] = of_arrow() if of_arrow else list(values)
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{origin}: the columns have unequal lengths: {lengths}.")
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
