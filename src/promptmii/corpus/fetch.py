"""A sample of one configuration of one dataset, written to disk. Runs in a process that may be killed at any time
(`workers.py`).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptmii.corpus.listing import Candidate
from promptmii.corpus.rows import MIB, READABLE, Reading, read_rows
from promptmii.corpus.sample import Sample, SampleHeader, write_sample
from promptmii.corpus.settings import FetchSettings
from promptmii.data.load import read_table
from promptmii.data.table import Row, class_name
from promptmii.errors import DataError, counted

TEST_SPLITS = ("validation", "dev", "valid", "test")
"""Splits to test on; the first there is. A benchmark's test split is the last to be touched."""
LONGEST_CELL = 1_000_000


class UnreadableError(Exception):
    """`datasets` cannot read a dataset; the cause says why."""


def fetch(candidate: Candidate, settings: FetchSettings, path: Path) -> dict[str, Any]:
    """Sample a dataset into `path`; returns its details. Raises `DataError`, `UnreadableError`, `OSError`."""
    reading = Reading(settings.scan_rows, settings.scan_mib * MIB)
    builder = None if candidate.is_file else _builder(candidate)
    files = _train_and_test({"train": [str(candidate.path)]} if builder is None else _data_files(builder))
    classes = {} if builder is None else _class_names(builder)
    seen: dict[str, int] = {}
    rows: list[tuple[str, Row]] = []
    repeated = 0
    columns: set[str] = set()
    """Of any row: a line of JSON may lack some."""
    for split, urls in files.items():
        sample = Sample(settings.rows)
        for row in _rows(builder, urls, reading):
            if any(isinstance(value, str) and len(value) > LONGEST_CELL for value in row.values()):
                reading.skipped[f"with a cell of more than {LONGEST_CELL} characters"] += 1
                continue
            named = _named(row, classes)
            columns |= named.keys()
            if all(str(named.get(name, "")) == value for name, value in settings.where.items()):
                sample.add(row)
        seen[split], repeated = sample.seen, repeated + sample.repeated
        rows += [(split, _named(row, classes)) for row in sample]
    if columns and (absent := set(settings.where) - columns):
        raise DataError(f"it has no column {min(absent)!r} (fetch.where); columns: {', '.join(sorted(columns))}")
    notes = [f"{counted(count, 'row')} {reason}" for reason, count in sorted(reading.skipped.items())]
    notes += [*reading.faults, *dict.fromkeys(reading.notes)]
    if repeated:
        notes.append(f"{counted(repeated, 'row')} with a repeated text")
    if not rows:
        raise DataError(f"no rows in the splits {', '.join(files)}" + (f" ({'; '.join(notes)})" if notes else ""))
    write_sample(
        path, SampleHeader(reading.types, {name: list(values) for name, values in classes.items()}, seen, notes), rows
    )
    told = {"seen": sum(seen.values()), "splits": list(files), "notes": notes, "columns": sorted(columns)}
    return {"rows": len(rows), **told}


@contextmanager
def _foreign_errors() -> Generator[None]:
    """Turns errors of `datasets` on a dataset into `UnreadableError`. Only around calls of `datasets`."""
    import pyarrow as pa
    import yaml
    from datasets.exceptions import DatasetsError

    python = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError)
    try:
        yield
    except (DatasetsError, pa.ArrowException, yaml.YAMLError, *python) as error:
        raise UnreadableError(str(error)) from error


def _builder(candidate: Candidate) -> Any:
    """What `datasets` makes of a folder or repository: files by split, and features. It never runs their code."""
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
    other = next((split for split in files if split not in TEST_SPLITS), next(iter(files)))
    train = "train" if "train" in files else other
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
    """Whether a card says how to parse its CSV files."""
    config = getattr(builder, "config", None)
    options = (getattr(config, "names", None), getattr(config, "skiprows", None))
    return any(options) or getattr(config, "sep", ",") not in (",", "\t")


def _streamed(builder: Any, urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    """The first rows of any other kind of file, as `datasets` streams them."""
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
        features = builder.info.features or _parquet_features(builder)
    kinds = {name: kind for name, kind in features.items() if hasattr(kind, "names") and hasattr(kind, "int2str")}
    return {name: tuple(kind.names) for name, kind in kinds.items()}


def _parquet_features(builder: Any) -> Mapping[str, Any]:
    """The features that `datasets` wrote into a Parquet file, for cards that give none."""
    import datasets
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    url = next((urls[0] for urls in _data_files(builder).values() if urls), "")
    if not url.endswith(".parquet"):
        return {}
    fs, path = url_to_fs(url)
    with fs.open(path, "rb") as file:
        return datasets.Features.from_arrow_schema(pq.read_schema(file))


def _named(row: Row, classes: Mapping[str, tuple[str, ...]]) -> Row:
    """Class numbers become names; -1, which marks rows without a label, becomes none. Names stay."""
    return {key: class_name(value, classes[key]) if key in classes else value for key, value in row.items()}
