"""Reads files, folders, hub references and in-memory data into a `Table`."""

import csv
import gzip
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from promptmii.data.columnar import (
    arrow_table,
    check_distinct,
    datasets_table,
    read_hub,
    read_parquet,
    read_saved_dataset,
)
from promptmii.data.decoding import check_is_data, decode, path_name, split_lines
from promptmii.data.delimited import read_delimited
from promptmii.data.json_tables import nested_table, read_json, read_json_lines
from promptmii.data.spreadsheet import read_workbook
from promptmii.data.table import Table, join_splits, make_table, require_rows
from promptmii.errors import DataError
from promptmii.messages import first_line

Source: TypeAlias = Any
"""A path, `hub:owner/name[:config][@revision]`, a DataFrame (pandas, polars), an Arrow table, a `Dataset` or
`DatasetDict` of `datasets`, a mapping of columns or of splits, or a sequence of dicts, (text, label) pairs, `Example`s
or texts."""


TEXT_READERS: Mapping[str, Callable[[str, str], Table]] = {
    ".csv": read_delimited,
    ".tsv": lambda text, origin: read_delimited(text, origin, "\t"),
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".txt": lambda text, origin: make_table([{"text": line} for line in split_lines(text)], origin),
}
"""Readers of text formats by file ending; each takes the text and its origin."""
BINARY_READERS: Mapping[str, Callable[[bytes, str], Table]] = {".parquet": read_parquet, ".xlsx": read_workbook}
SUFFIXES = (*TEXT_READERS, *BINARY_READERS)
SEQUENCE = "a list"
"""The origin of rows from a sequence in memory, such as a list, an array or a Series."""
MAX_PATH = 1000
"""Characters of the longest path that is taken for one if no file has it."""


def read_table(source: Source) -> Table:
    """Read any `Source`. Raises `DataError` if it cannot be read or holds no rows."""
    return source if isinstance(source, Table) else require_rows(_read(source))


def _read(source: Source) -> Table:
    if isinstance(source, str) and source.startswith("hub:"):
        return read_hub(source)
    if isinstance(source, str | Path):
        path = Path(source)
        with data_errors(path):
            return _read_file(path)
    return _read_memory(source)


def _read_memory(source: Any) -> Table:
    if hasattr(source, "collect_schema"):  # polars; checked first because `columns` of a lazy frame is expensive
        source = source.collect() if hasattr(source, "collect") else source
        return make_table(source.to_dicts(), "a DataFrame")
    if hasattr(source, "to_pylist") and hasattr(source, "schema"):
        return arrow_table(source, "an Arrow table")
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return _pandas_table(source)
    if hasattr(source, "column_names") and not isinstance(source, Mapping):
        return datasets_table({"": source}, "a dataset")
    if isinstance(source, Mapping):
        if any(map(_is_table, source.values())):
            return join_splits({str(name): _read_memory(part) for name, part in source.items()}, "splits in memory")
        return nested_table(source, "columns in memory")
    if hasattr(source, "tolist"):
        source = source.tolist()
    if hasattr(source, "read"):
        raise DataError("An open file cannot be read as data, because its format is unknown; give its path.")
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return nested_table(list(source), SEQUENCE)
    raise DataError(
        f"A {type(source).__name__} cannot be read as data; expected a path, hub:..., a DataFrame, a Dataset, or a "
        "list of dicts or (text, label) pairs."
    )


def _is_table(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("collect_schema", "column_names", "columns"))


def _pandas_table(frame: Any) -> Table:
    index_names = getattr(frame.index, "names", ())
    named_levels = [name for name in index_names if name is not None and name not in frame.columns]
    if named_levels:
        frame = frame.reset_index(named_levels)
    check_distinct(frame.columns, "The DataFrame")
    return make_table(frame.to_dict("records"), "a DataFrame")


def format_of(path: Path) -> str:
    """The file ending that determines the format, without `.gz`; empty if the file has none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and is_compressed(path):
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


@contextmanager
def data_errors(path: Path) -> Generator[None]:
    """Convert the errors of readers and their libraries to a `DataError` that names the file. Refuses a text."""
    import pyarrow as pa

    if _is_text(path):
        shown = str(path)[:60] + ("…" if len(str(path)) > 60 else "")
        raise DataError(f"There is no file {shown!r}. Give the path of a table, or texts in a list or a .txt file.")
    try:
        yield
    except DataError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is not a complete gzip file: {error}. If it is not compressed, remove .gz from its name."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except (ValueError, ArithmeticError, RecursionError, MemoryError, csv.Error, pa.ArrowException) as error:
        kind = format_of(path) or "data"
        raise DataError(
            f"{path} is not a readable {kind} file: {first_line(error)}. Save or export it again."
        ) from error


def _is_text(path: Path) -> bool:
    """Whether a text was given in place of a path: several lines, too much for a name, or words without an ending."""
    name = str(path)
    if os.path.exists(name):  # unlike Path.exists, for a name that is too long
        return False
    return "\n" in name or len(name) > MAX_PATH or (" " in name and not re.search(r"\.\w+$", name))


def supported_format(path: Path) -> str:
    """The format of an existing file. Raises `DataError` for a missing file or an unknown ending."""
    if not path.exists():
        address = " Addresses are not opened: download the file first." if re.match(r"\w{2,}:/", str(path)) else ""
        raise DataError(
            f"The file {path} does not exist.{address} Expected a path to {', '.join(SUFFIXES)} (also .gz), or "
            "hub:owner/name."
        )
    suffix = format_of(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} has the ending {suffix or '(none)'!r}; expected one of {', '.join(SUFFIXES)}, also with .gz."
        )
    return suffix


def is_compressed(path: Path) -> bool:
    """Whether a file's name ends in `.gz`."""
    return path.suffix.lower() == ".gz"


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file to read its content, decompressed if it is compressed."""
    return cast("BinaryIO", gzip.open(path)) if is_compressed(path) else path.open("rb")


def read_decompressed(path: Path) -> bytes:
    """The content of a file, decompressed if it is compressed."""
    with open_decompressed(path) as file:
        return file.read()


def _read_file(path: Path) -> Table:
    if path.is_dir():
        return read_saved_dataset(path)
    suffix, origin = supported_format(path), path_name(path)
    content = read_decompressed(path)
    if not content.strip():
        raise DataError(f"{path} is empty.")
    check_is_data(content, origin)
    if suffix in BINARY_READERS:
        return BINARY_READERS[suffix](content, origin)
    text = decode(content, origin)
    if not text.strip():
        raise DataError(f"{path} is empty.")
    return TEXT_READERS[suffix](text, origin)
