"""Samples one dataset configuration in a single pass, and writes the sample to disk.

A sample consists of the rows whose texts have the smallest hashes. So it is uniform over distinct texts, even if the
file is sorted by label. And two copies of a dataset give the same texts, whatever their row order, so that even small
samples show them to be copies.

This runs in a process that may be killed at any time (`workers.py`).
"""

import gzip
import hashlib
import heapq
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptmii.corpus.listing import Candidate
from promptmii.corpus.rows import MIB, READABLE, Reading, read_rows
from promptmii.corpus.settings import FetchSettings
from promptmii.data.columnar import class_names
from promptmii.data.columns import text_of
from promptmii.data.json_tables import is_rejected
from promptmii.data.labels import is_whole
from promptmii.data.readers import read_table
from promptmii.data.table import Row, Table, class_name, column_name
from promptmii.errors import ArtefactError, DataError
from promptmii.files import atomic_file
from promptmii.messages import counted
from promptmii.task import normalise_text

TEST_SPLITS = ("validation", "dev", "valid", "test")
"""Splits to test on, in order of preference. A benchmark's own test split is the last choice."""
LONGEST_CELL = 1_000_000
SAME_TEXT = 3
"""Maximum rows per text: enough to detect repeats and contradictory labels."""


class UnreadableError(Exception):
    """`datasets` cannot read a dataset; see the cause."""


def fetch(candidate: Candidate, settings: FetchSettings, path: Path) -> dict[str, Any]:
    """Sample a dataset into `path`, and return its journal details.

    Raises `DataError`, `UnreadableError` and `OSError`.
    """
    reading = Reading(settings.scan_rows, settings.scan_mib * MIB)
    builder = None if candidate.is_file else _builder(candidate)
    files = _train_and_test({"train": [str(candidate.path)]} if builder is None else _data_files(builder))
    classes = {} if builder is None else _class_names(builder)
    rows: list[tuple[str, Row]] = []
    seen = repeated = 0
    columns: set[str] = set()  # of all rows, because a JSON line may lack some
    for split, urls in files.items():
        sample = Sample(settings.rows)
        for row in _rows(builder, urls, reading):
            if any(isinstance(value, str) and len(value) > LONGEST_CELL for value in row.values()):
                reading.skipped[f"with a cell of more than {LONGEST_CELL} characters"] += 1
                continue
            if is_rejected(row):
                reading.skipped["whose answer is not 'accept'"] += 1
                continue
            named_row = _with_class_names(row, classes)
            columns.update(map(column_name, named_row))
            if all(str(named_row.get(name, "")) == value for name, value in settings.where.items()):
                sample.add(row)
        seen, repeated = seen + sample.seen, repeated + sample.repeated
        rows += [(split, _with_class_names(row, classes)) for row in sample]
    if columns and (missing := set(settings.where) - columns):
        raise DataError(f"it has no column {min(missing)!r} (fetch.where); columns: {', '.join(sorted(columns))}")
    notes = [f"{counted(count, 'row')} {reason}" for reason, count in sorted(reading.skipped.items())]
    notes += [*reading.faults, *dict.fromkeys(reading.notes)]
    if repeated:
        notes.append(f"{counted(repeated, 'row')} with a repeated text")
    if not rows:
        raise DataError(f"no rows in the splits {', '.join(files)}" + (f" ({'; '.join(notes)})" if notes else ""))
    _write_sample(path, {"classes": classes, "notes": notes}, rows)
    return {"rows": len(rows), "seen": seen, "splits": list(files), "notes": notes, "columns": sorted(columns)}


class Sample:
    """Up to `size` distinct texts, each with its first few rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._largest: list[int] = []
        """Heap of negated hashes. The first one belongs to the text that is replaced next."""
        self._rows: dict[int, list[Row]] = {}
        self.seen = 0
        """Number of rows offered."""
        self.repeated = 0
        """Number of rows rejected because the sample had `SAME_TEXT` rows with the same text."""

    def add(self, row: Row) -> None:
        self.seen += 1
        key = _text_hash(row)
        rows = self._rows.get(key)
        if rows is not None:
            if len(rows) < SAME_TEXT:
                rows.append(row)
            else:
                self.repeated += 1
        elif len(self._largest) < self._size:
            heapq.heappush(self._largest, -key)
            self._rows[key] = [row]
        elif key < -self._largest[0]:
            del self._rows[-heapq.heapreplace(self._largest, -key)]
            self._rows[key] = [row]

    def __iter__(self) -> Iterator[Row]:
        """The sampled rows, ordered by text hash."""
        for key in sorted(self._rows):
            yield from self._rows[key]


def _text_hash(row: Row) -> int:
    """Hash the longest text, which is the same in copies of a dataset with other column names."""
    texts = [text for value in row.values() if (text := text_of(value)) is not None]
    longest = max(texts, key=len, default=None)
    key = normalise_text(longest) if longest is not None else repr(sorted(row.items(), key=str))
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _write_sample(path: Path, header: dict[str, Any], rows: Iterable[tuple[str, Row]]) -> None:
    # Store no name or time in the archive, so that equal samples give equal files.
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as compressed,
    ):
        for value in (header, *rows):
            # A whole decimal may number a label.
            line = json.dumps(value, default=lambda v: int(v) if is_whole(v) else str(v), separators=(",", ":"))
            compressed.write(f"{line}\n".encode())


def read_sample(path: Path, name: str) -> Table:
    """Read a sample as a table. Raises `DataError` if it has no rows, `ArtefactError` if the file is damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header = json.loads(file.readline())
            pairs = [json.loads(line) for line in file]
        classes = {column: tuple(names) for column, names in header["classes"].items()}
        notes = tuple(header["notes"])
    except (OSError, EOFError, ValueError, TypeError, LookupError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}. Remove it, and build again.") from error
    table = read_table([row for _, row in pairs])
    splits = tuple(split for split, _ in pairs)
    return replace(table, origin=name, classes=classes, split=splits if len(set(splits)) > 1 else None, notes=notes)


@contextmanager
def _foreign_errors() -> Generator[None]:
    """Turn errors into `UnreadableError`. Use this only around calls to `datasets`."""
    try:
        yield
    except Exception as error:  # each archive and table format has a library with errors of its own
        raise UnreadableError(str(error)) from error


def _builder(candidate: Candidate) -> Any:
    """The `datasets` builder of a folder or repository, which knows its files and features. Runs no dataset code."""
    import datasets

    datasets.disable_progress_bars()
    revision = None if candidate.path else candidate.revision
    with _foreign_errors():
        return datasets.load_dataset_builder(
            candidate.path or candidate.repository, candidate.config, revision=revision
        )


def _data_files(builder: Any) -> dict[str, list[str]]:
    files: Mapping[Any, Sequence[Any]] = builder.config.data_files or {}
    return {str(split): [str(url) for url in urls] for split, urls in files.items()}


def _train_and_test(files: Mapping[str, list[str]]) -> dict[str, list[str]]:
    if not files:
        raise DataError("it has no data files")
    fallback = next((split for split in files if split not in TEST_SPLITS), next(iter(files)))
    train = "train" if "train" in files else fallback
    test = next((split for split in TEST_SPLITS if split in files and split != train), None)
    return {"train": files[train]} | ({"test": files[test]} if test else {})


def _rows(builder: Any, urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    if all(url.lower().endswith(READABLE) for url in urls) and not _has_csv_options(builder):
        yield from read_rows(urls, reading)
    elif builder is not None:
        yield from _streamed(builder, urls, reading)
    elif Path(urls[0]).stat().st_size > reading.size:
        raise DataError(
            f"it has more than {reading.size // MIB} MiB, and a file of this kind is read whole; "
            "save it as .jsonl or .parquet"
        )
    else:
        yield from (dict(row) for row in read_table(urls[0]).rows)


def _has_csv_options(builder: Any) -> bool:
    """True if the card sets options for its CSV files."""
    config = getattr(builder, "config", None)
    options = (getattr(config, "names", None), getattr(config, "skiprows", None))
    return any(options) or getattr(config, "sep", ",") not in (",", "\t")


def _streamed(builder: Any, urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    """The first rows of a split in any other format, streamed by `datasets`."""
    name = next(split for split, files in _data_files(builder).items() if files == urls)
    with _foreign_errors():
        for count, row in enumerate(builder.as_streaming_dataset(split=name)):
            if count >= reading.rows:
                reading.notes.append(f"only the first {count} rows were read: this kind of file has no other entry")
                return
            yield {
                key: value for key, value in row.items() if isinstance(value, str | int | float | bool | list | None)
            }


def _class_names(builder: Any) -> dict[str, tuple[str, ...]]:
    with _foreign_errors():
        return class_names(builder.info.features or _parquet_features(builder))


def _parquet_features(builder: Any) -> Mapping[str, Any]:
    """The features that `datasets` stored in a Parquet file, for a card without them."""
    import datasets
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    url = next((urls[0] for urls in _data_files(builder).values() if urls), "")
    if not url.endswith(".parquet"):
        return {}
    fs, path = url_to_fs(url)
    with fs.open(path, "rb") as file:
        return datasets.Features.from_arrow_schema(pq.read_schema(file))


def _with_class_names(row: Row, classes: Mapping[str, tuple[str, ...]]) -> Row:
    """Replace class numbers by names, and -1, which marks unlabelled rows, by None. Class names stay as they are."""
    return {key: class_name(value, classes[key]) if key in classes else value for key, value in row.items()}
