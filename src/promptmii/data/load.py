"""From whatever holds rows to a `Table`: values as they were written, `None` where nothing was.

A CSV cell is a string: "NA", "null" and "007" stay what they are, and only an empty cell is missing. Files must be UTF-8; what
is broken is named with its line.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from promptmii.errors import DataError, MissingDependencyError

Source: TypeAlias = Any
"""A path, `hub:owner/name[:config][@revision]`, a DataFrame, a `datasets.Dataset` or a slice of one, dicts, or (text, label) pairs."""

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")
FIELD_LIMIT = 1 << 24


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
    """A human's instruction for the task, where the source carries one."""


def read_table(source: Source) -> Table:
    """Read any `Source`. Raises `DataError` saying what was found, what was expected and what to do."""
    if isinstance(source, Table):
        return source
    if isinstance(source, str) and source.startswith("hub:"):
        return _from_hub(source)
    if isinstance(source, str | Path):
        return _from_path(Path(source))
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        names = [str(name) for name in source.columns]
        if len(set(names)) < len(names):
            raise DataError(f"The DataFrame has two columns {max(names, key=names.count)!r}. Rename one.")
        return _table(source.to_dict("records"), "a DataFrame")
    if hasattr(source, "features") and hasattr(source, "to_list"):
        return _from_datasets({"": source}, "a dataset")
    if isinstance(source, Mapping):
        return _from_columns(source, "columns in memory")
    if isinstance(source, Iterable):
        return _from_sequence(list(source))
    raise DataError(
        f"A {type(source).__name__} cannot be read as data; expected a path, hub:..., a DataFrame, or a list of dicts or pairs."
    )


def _from_sequence(items: Sequence[Any]) -> Table:
    if items and all(isinstance(item, Mapping) for item in items):
        return _table([dict(item) for item in items], "a list")
    if items and all(isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2 for item in items):
        return _table([{"text": text, "label": label} for text, label in items], "a list")
    if items and all(isinstance(item, str) for item in items):
        return _table([{"text": text} for text in items], "a list")
    raise DataError(
        "The list holds no rows that can be read; expected dicts, (text, label) pairs, or texts, and at least one."
    )


def _from_columns(columns: Mapping[str, Any], origin: str) -> Table:
    if not all(isinstance(values, Sequence) and not isinstance(values, str) for values in columns.values()):
        raise DataError(f"{origin}: expected one list of values per column.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{origin}: the columns have unequal lengths: {lengths}.")
    return _table([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)], origin)


def _table(rows: list[dict[str, Any]], origin: str) -> Table:
    if not rows:
        raise DataError(f"{origin} holds no rows.")
    columns = tuple(dict.fromkeys(str(name) for row in rows for name in row))
    named = ({str(name): value for name, value in row.items()} for row in rows)
    return Table(columns, tuple({name: _value(row.get(name)) for name in columns} for row in named), origin)


def _value(value: Any) -> Any:
    """`None` for what stands for nothing: None, NaN, NaT, the empty string. Half characters, as JSON can hold them, are replaced."""
    if isinstance(value, str):
        return (
            value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ) or None
    if value is None or _is_scalar_nan(value):
        return None
    if isinstance(value, bytes | Sequence | Mapping) or not hasattr(value, "item") or getattr(value, "ndim", 0):
        return value
    return value.item()  # a numpy scalar


def _is_scalar_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA and arrays have no truth value
        return not hasattr(value, "__len__")


def format_of(path: Path) -> str:
    """The ending that says how a file is read, without `.gz`; empty where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def _from_path(path: Path) -> Table:
    try:
        found = path.exists()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if not found:
        raise DataError(
            f"The file {path} does not exist. Expected a path to {', '.join(SUFFIXES)} (also .gz), or hub:owner/name."
        )
    if path.is_dir():
        return _from_saved_dataset(path)
    kind = format_of(path)
    if kind not in SUFFIXES:
        raise DataError(
            f"{path} has the ending {kind or '(none)'!r}; expected one of {', '.join(SUFFIXES)}, also with .gz."
        )
    content = _bytes(path, zipped=path.suffix.lower() == ".gz")
    if not content.strip():
        raise DataError(f"{path} is empty.")
    if kind == ".parquet":
        return _from_parquet(content, str(path))
    text = _decode(content, path)
    if kind == ".txt":
        return _table([{"text": line} for line in text.splitlines()], str(path))
    if kind in (".csv", ".tsv"):
        return _from_csv(text, str(path), "\t" if kind == ".tsv" else None)
    return _from_json(text, str(path)) if kind == ".json" else _from_json_lines(text, str(path))


def _bytes(path: Path, *, zipped: bool) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if zipped else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "Windows-1252 or Latin-1"
        raise DataError(
            f"{path} is not UTF-8: byte {error.start} (line {line}) cannot be decoded; it may be {likely}. Save it as UTF-8."
        ) from error


def _from_csv(text: str, origin: str, delimiter: str | None) -> Table:
    rows = list(csv_rows(io.StringIO(text, newline=""), origin, delimiter))
    if not rows:
        raise DataError(f"{origin} has a header and no rows.")
    return _table(rows, origin)


def csv_rows(
    lines: Iterable[str], origin: str, delimiter: str | None = None, *, skip: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a CSV, read as they are asked for. The delimiter is that of the header when none is given.

    Raises `DataError` at a row that cannot be read, or tells `skip` of it and goes on.
    """
    csv.field_size_limit(FIELD_LIMIT)
    lines = iter(lines)
    first = next(lines, "")
    chosen = delimiter or max(",;\t|", key=lambda mark: (first.count(mark), mark == ","))
    reader = csv.reader(chain([first], lines), delimiter=chosen, strict=True)
    header = [name.strip() for name in _fields(reader, origin, None) or ()]
    if len(set(header)) != len(header):
        raise DataError(f"{origin}: a column name occurs twice in the header: {', '.join(header)}.")
    while (fields := _fields(reader, origin, skip)) is not None:
        if len(fields) == len(header):
            yield dict(zip(header, fields, strict=True))
        elif fields:
            fault = (
                f"{origin}, line {reader.line_num}: {len(fields)} fields, expected {len(header)} ({', '.join(header)}). "
                f"Put texts that hold {chosen!r} or line breaks in double quotes."
            )
            if skip is None:
                raise DataError(fault)
            skip(fault)


def _fields(reader: Iterator[list[str]], origin: str, skip: Callable[[str], None] | None) -> list[str] | None:
    """The next line of a CSV, empty where it cannot be read and is skipped; `None` at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        fault = f"{origin}, line {getattr(reader, 'line_num', '?')}: not readable as CSV: {error}."
        if skip is None:
            raise DataError(fault) from error
        skip(fault)
        return []


def _from_json(text: str, origin: str) -> Table:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{origin} is not valid JSON: {error}. For one object per line use the ending .jsonl."
        ) from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        return _from_task_file(value, origin)
    if isinstance(value, dict):
        return _from_columns(value, origin)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f'{origin}: expected a list of objects, {{"data": [...]}}, or an object of columns.')
    return _table(value, origin)


def _from_task_file(content: dict[str, Any], origin: str) -> Table:
    """`{"data": [rows], "instruction": "for a human", "labels": ["in", "order"]}`, the last two as far as they are there."""
    table = _from_json(json.dumps(content["data"]), origin)
    instruction, labels = content.get("instruction"), content.get("labels")
    if not isinstance(instruction, str | None):
        raise DataError(f"{origin}: instruction is {type(instruction).__name__}; expected a text.")
    if labels is not None and (not isinstance(labels, list) or not all(isinstance(label, str) for label in labels)):
        raise DataError(f"{origin}: labels is {labels!r}; expected a list of texts.")
    return replace(table, classes={"label": tuple(labels)} if labels else {}, instruction=instruction)


def _from_json_lines(text: str, origin: str) -> Table:
    return _table(list(json_line_rows(text.split("\n"), origin)), origin)


def json_line_rows(
    lines: Iterable[str], origin: str, *, skip: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines, read as they are asked for. Raises `DataError` at one that cannot be read, or tells `skip` of it."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            fault = (
                None
                if isinstance(row, dict)
                else f"{origin}, line {number}: expected an object, found {type(row).__name__}."
            )
        except (ValueError, RecursionError) as error:
            row, fault = {}, f"{origin}, line {number}: not valid JSON: {error}."
        if fault is None:
            yield row
        elif skip is None:
            raise DataError(fault)
        else:
            skip(fault)


def _from_parquet(content: bytes, origin: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _table(pq.read_table(io.BytesIO(content)).to_pylist(), origin)
    except pa.ArrowException as error:
        raise DataError(f"{origin} is not a readable Parquet file: {error}.") from error


def is_saved_dataset(folder: Path) -> bool:
    """A folder that `datasets` saved: a `Dataset`, or a `DatasetDict` of splits."""
    return any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


def _from_saved_dataset(folder: Path) -> Table:
    if not is_saved_dataset(folder):
        raise DataError(
            f"{folder} is a folder without dataset_info.json; expected a file, or a folder made by datasets' save_to_disk."
        )
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("Folders saved by datasets", "hub") from error
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is not a whole folder of datasets' save_to_disk: {error}. Save it again.") from error
    return _from_datasets(loaded if isinstance(loaded, dict) else {"": loaded}, str(folder))


def _from_hub(reference: str) -> Table:
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingDependencyError("hub: references", "hub") from error
    name, _, revision = reference.removeprefix("hub:").partition("@")
    repository, _, config = name.partition(":")
    if not repository:
        raise DataError(f"{reference!r} names no dataset; expected hub:owner/name[:config][@revision].")
    try:
        loaded = datasets.load_dataset(repository, config or None, revision=revision or None)
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{reference} cannot be loaded: {reason.rstrip('.')}. Expected hub:owner/name[:config][@revision] and a network."
        ) from error
    return _from_datasets(loaded, reference)


def _from_datasets(parts: Any, origin: str) -> Table:
    """`parts` maps split names to datasets. Class numbers become names; -1, which marks unlabelled rows, a missing value."""
    rows: list[dict[str, Any]] = []
    split: list[str] = []
    classes: dict[str, tuple[str, ...]] = {}
    for part, dataset in parts.items():
        names = {
            name: tuple(f.names)
            for name, f in dataset.features.items()
            if hasattr(f, "names") and hasattr(f, "int2str")
        }
        classes |= names
        for row in dataset.to_list():
            rows.append({name: _decoded(value, names.get(name)) for name, value in row.items()})
            split.append(part)
    table = _table(rows, origin)
    return Table(table.columns, table.rows, origin, classes, tuple(split) if len(parts) > 1 else None)


def _decoded(value: Any, names: tuple[str, ...] | None) -> Any:
    if names is None or value is None:
        return value
    return names[value] if 0 <= value < len(names) else None
