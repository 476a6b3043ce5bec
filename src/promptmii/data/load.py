"""Reads anything that holds rows into a `Table`: files, folders, hub references and values in memory."""

import csv
import gzip
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from promptmii.data.columnar import arrow_table, datasets_table, read_hub, read_parquet, read_saved_dataset
from promptmii.data.decoding import decode, path_name, split_lines
from promptmii.data.delimited import read_delimited
from promptmii.data.json_tables import nested_table, read_json, read_json_lines
from promptmii.data.spreadsheet import read_workbook
from promptmii.data.table import Table, make_table
from promptmii.errors import DataError, first_line

Source: TypeAlias = Any
"""A path, `hub:owner/name[:config][@revision]`, a DataFrame (pandas, polars), an Arrow table, a `Dataset` or
`DatasetDict` of `datasets`, a mapping of columns or of splits, or a sequence of dicts, (text, label) pairs, `Example`s
or texts."""


def _read_lines(text: str, origin: str) -> Table:
    return make_table([{"text": line} for line in split_lines(text)], origin)


TEXT_READERS: Mapping[str, Callable[[str, str], Table]] = {
    ".csv": read_delimited,
    ".tsv": lambda text, origin: read_delimited(text, origin, "\t"),
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".txt": _read_lines,
}
"""By the ending of a file: from its text and its name to a table."""
BINARY_READERS: Mapping[str, Callable[[bytes, str], Table]] = {".parquet": read_parquet, ".xlsx": read_workbook}
SUFFIXES = (*TEXT_READERS, *BINARY_READERS)


def read_table(source: Source) -> Table:
    """Read any `Source`. Raises `DataError` saying what was given, what was expected and what to do."""
    if isinstance(source, Table):
        return source
    if isinstance(source, str) and source.startswith("hub:"):
        return read_hub(source)
    if isinstance(source, str | Path):
        return _read_path(Path(source))
    return _read_memory(source)


def _read_memory(source: Any) -> Table:
    if hasattr(source, "collect_schema"):  # polars, lazy or not: `columns` of a lazy frame would read it twice
        source = source.collect() if hasattr(source, "collect") else source
        return make_table(source.to_dicts(), "a DataFrame")
    if hasattr(source, "to_pylist") and hasattr(source, "schema"):
        return arrow_table(source, "an Arrow table")
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        kept = [name for name in getattr(source.index, "names", ()) if name is not None and name not in source.columns]
        source = source.reset_index(kept) if kept else source
        names = [str(name) for name in source.columns]
        if len(set(names)) < len(names):
            raise DataError(f"The DataFrame has two columns {max(names, key=names.count)!r}. Rename one.")
        return make_table(source.to_dict("records"), "a DataFrame")
    if hasattr(source, "column_names") and not isinstance(source, Mapping):
        return datasets_table({"": source}, "a dataset")
    if isinstance(source, Mapping):
        if source and all(hasattr(part, "column_names") for part in source.values()):
            return datasets_table(source, "a dataset")
        if source and all(hasattr(part, "columns") for part in source.values()):
            source = {name: list(read_table(part).rows) for name, part in source.items()}
        return nested_table(source, "columns in memory")
    if hasattr(source, "tolist"):
        source = source.tolist()
    if hasattr(source, "read"):
        raise DataError("An open file cannot be read as data, for its format is unknown; give its path.")
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return nested_table(list(source), "a list")
    raise DataError(
        f"A {type(source).__name__} cannot be read as data; expected a path, hub:..., a DataFrame, a Dataset, or a "
        "list of dicts or (text, label) pairs."
    )


def format_of(path: Path) -> str:
    """The ending that says how to read a file, without `.gz`; empty if there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def _read_path(path: Path) -> Table:
    with data_errors(path):
        return _read_file(path)


@contextmanager
def data_errors(path: Path) -> Generator[None]:
    """Turn every fault of a file into a `DataError` that names it; readers and their libraries raise many."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except (ValueError, ArithmeticError, RecursionError, MemoryError, csv.Error, pa.ArrowException) as error:
        kind = format_of(path) or "data"
        raise DataError(
            f"{path} is not a readable {kind} file: {first_line(error)}. Save or export it again."
        ) from error


def supported_format(path: Path) -> str:
    """The ending that says how to read a file. Raises `DataError` for a missing file or an unknown ending."""
    if not path.exists():
        raise DataError(
            f"The file {path} does not exist. Expected a path to {', '.join(SUFFIXES)} (also .gz), or hub:owner/name."
        )
    kind = format_of(path)
    if kind not in SUFFIXES:
        raise DataError(
            f"{path} has the ending {kind or '(none)'!r}; expected one of {', '.join(SUFFIXES)}, also with .gz."
        )
    return kind


def read_unpacked(path: Path) -> bytes:
    """The content, unpacked."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix.lower() == ".gz" else content


def _read_file(path: Path) -> Table:
    if path.is_dir():
        return read_saved_dataset(path)
    kind = supported_format(path)
    content = read_unpacked(path)
    if not content.strip():
        raise DataError(f"{path} is empty.")
    if kind in BINARY_READERS:
        return BINARY_READERS[kind](content, path_name(path))
    text = decode(content, path_name(path))
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return TEXT_READERS[kind](text, path_name(path))
