"""One configuration of one dataset becomes a sample on disk. Runs in a process of its own (`guard.py`), which may be killed at any time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.data.corpus.listing import Candidate
from promptmii.data.corpus.raw import Header, write_raw
from promptmii.data.corpus.rows import MIB, READABLE, Reading, Row, read_files
from promptmii.data.corpus.sampling import Sample
from promptmii.data.corpus.settings import FetchSettings
from promptmii.data.load import read_table
from promptmii.errors import DataError

HELD_BACK = ("validation", "dev", "valid", "test")
"""Splits to measure on, the first that is there: a benchmark's test part is the last to be touched."""
LONGEST_CELL = 1_000_000


def fetch(candidate: Candidate, settings: FetchSettings, path: Path) -> dict[str, Any]:
    """Sample a dataset into `path`; returns what to note of it. Raises `DataError` where it cannot be used."""
    reading = Reading(settings.rows, settings.scan_mib * MIB)
    source = _builder(candidate) if candidate.config or not is_plain_file(candidate) else None
    files = _chosen({"train": [str(candidate.path)]} if source is None else _data_files(source))
    classes = {} if source is None else _class_names(source)
    seen: dict[str, int] = {}
    rows: list[tuple[str, Row]] = []
    repeated = 0
    for split, urls in files.items():
        limits = Reading(
            settings.scan_rows, settings.scan_mib * MIB, reading.types, reading.skipped, reading.notes, reading.examples
        )
        sample = Sample(settings.rows)
        for row in _rows(source, split, urls, limits):
            if any(isinstance(value, str) and len(value) > LONGEST_CELL for value in row.values()):
                reading.skipped[f"with a cell of more than {LONGEST_CELL} characters"] += 1
            else:
                sample.add(row)
        seen[split], repeated = sample.seen, repeated + sample.repeated
        rows += [(split, _decoded(row, classes)) for row in sample]
    notes = (
        [f"{count} rows {reason}" for reason, count in sorted(reading.skipped.items())]
        + reading.examples
        + reading.notes
    )
    if repeated:
        notes.append(f"{repeated} rows left out whose text had been seen before")
    if not rows:
        raise DataError(f"no rows in the splits {', '.join(files)}" + (f" ({'; '.join(notes)})" if notes else ""))
    header = Header(reading.types, {name: list(values) for name, values in classes.items()}, seen, notes)
    write_raw(path, header, rows)
    return {
        "rows": len(rows),
        "seen": sum(seen.values()),
        "splits": list(files),
        "notes": notes,
        "columns": sorted({k for _, r in rows for k in r}),
    }


def is_plain_file(candidate: Candidate) -> bool:
    """Whether it is a single file rather than something that `datasets` must be asked about."""
    return candidate.path is not None and Path(candidate.path).is_file()


def _builder(candidate: Candidate) -> Any:
    """What `datasets` makes of a folder or repository: files by split, and features. It runs no code of theirs."""
    import datasets

    datasets.disable_progress_bars()
    if candidate.path:
        return datasets.load_dataset_builder(candidate.path, candidate.config)
    return datasets.load_dataset_builder(candidate.repository, candidate.config, revision=candidate.revision)


def _data_files(source: Any) -> dict[str, list[str]]:
    files: Mapping[str, Sequence[str]] = source.config.data_files or {}
    return {str(split): [str(url) for url in urls] for split, urls in files.items()}


def _chosen(files: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The part to learn from, and one to measure on where there is one."""
    if not files:
        raise DataError("it has no data files")
    train = (
        "train" if "train" in files else next((split for split in files if split not in HELD_BACK), next(iter(files)))
    )
    test = next((split for split in HELD_BACK if split in files and split != train), None)
    return {"train": list(files[train])} | ({"test": list(files[test])} if test else {})


def _rows(source: Any, split: str, urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    if all(url.lower().endswith(READABLE) for url in urls) and not _has_own_dialect(source):
        yield from read_files(urls, reading)
    elif source is None:
        if Path(urls[0]).stat().st_size > reading.size:
            raise DataError(
                f"a file of this kind is read whole, and it has more than {reading.size // MIB} MiB; save it as .jsonl or .parquet"
            )
        yield from (dict(row) for row in read_table(urls[0]).rows)
    else:
        yield from _streamed(source, split, urls, reading)


def _has_own_dialect(source: Any) -> bool:
    """Whether a card says how its CSV is to be read."""
    config = getattr(source, "config", None)
    return (
        bool(getattr(config, "names", None))
        or getattr(config, "sep", ",") not in (",", "\t")
        or bool(getattr(config, "skiprows", None))
    )


def _streamed(source: Any, split: str, urls: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Any other kind of file, as `datasets` streams it."""
    parts = _data_files(source)
    name = next(name for name, files in parts.items() if list(files) == list(urls)) if split not in parts else split
    dataset = source.as_streaming_dataset(split=name)
    for count, row in enumerate(dataset):
        if count >= reading.rows:
            reading.notes.append(
                f"only the first {count} rows were read: this kind of file cannot be entered elsewhere"
            )
            return
        yield {key: value for key, value in row.items() if isinstance(value, str | int | float | bool | list | None)}


def _class_names(source: Any) -> dict[str, tuple[str, ...]]:
    features = source.info.features or _features_of_files(source)
    return {
        name: tuple(kind.names)
        for name, kind in features.items()
        if hasattr(kind, "names") and hasattr(kind, "int2str")
    }


def _features_of_files(source: Any) -> Mapping[str, Any]:
    """The features that `datasets` wrote into a Parquet file, where the card says none."""
    import datasets
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    url = next((urls[0] for urls in _data_files(source).values() if urls), "")
    if not url.endswith(".parquet"):
        return {}
    fs, path = url_to_fs(url)
    with fs.open(path, "rb") as file:
        schema = pq.read_schema(file)
    return datasets.Features.from_arrow_schema(schema)


def _decoded(row: Row, classes: Mapping[str, tuple[str, ...]]) -> Row:
    """Class numbers become names; -1, which marks rows without a label, becomes none. Names that are written already stay."""
    return {key: _name(value, classes[key]) if key in classes else value for key, value in row.items()}


def _name(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, str) and value in names:
        return value
    try:
        number = int(value)
    except (TypeError, ValueError):
        return value
    return names[number] if 0 <= number < len(names) else None
