"""Parquet, Arrow and what `datasets` keeps: columns with a schema, which may name classes."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.data.decoding import path_name
from promptmii.data.table import Table, decode_classes, join_splits, make_table
from promptmii.errors import DataError, MissingDependencyError, first_line

BATCH = 1024
"""Rows that are decoded at a time."""


def read_parquet(content: bytes, origin: str) -> Table:
    """The table of a Parquet file. Raises `DataError`, or what Arrow raises for damaged pages."""
    import pyarrow.parquet as pq

    return arrow_table(pq.ParquetFile(io.BytesIO(content)).read(), origin)


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, lazily. Raises as `read_parquet` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH):
            if batch.num_rows:
                yield from arrow_table(pa.Table.from_batches([batch]), path_name(path)).rows


def arrow_table(table: Any, origin: str) -> Table:
    """The rows of an Arrow table; `datasets` and the hub keep class names in the metadata of its schema."""
    names = [str(name) for name in table.schema.names]
    if len(set(names)) < len(names):
        raise DataError(f"{origin} has two columns {max(names, key=names.count)!r}. Rename one.")
    return decode_classes(make_table(table.to_pylist(), origin), _declared(table.schema.metadata))


def _declared(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {name: _of_one(kind) for name, kind in features.items()}
        return {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ):  # no such metadata, or no classes in it
        return {}


def _of_one(kind: Any) -> Any:
    """The feature of a list's members, as metadata or an object; any other as it is."""
    if isinstance(kind, list):
        return kind[0]
    return kind.get("feature", kind) if isinstance(kind, Mapping) else getattr(kind, "feature", kind)


def datasets_table(parts: Mapping[Any, Any], origin: str) -> Table:
    """One table of the datasets of each split."""
    return join_splits(
        {str(name): _dataset_table(part, f"{origin} {name}".strip()) for name, part in parts.items()}, origin
    )


def _dataset_table(dataset: Any, origin: str) -> Table:
    features = getattr(dataset, "features", None) or {}
    kinds = {name: _of_one(kind) for name, kind in features.items()}
    classes = {name: kind.names for name, kind in kinds.items() if hasattr(kind, "int2str")}
    rows = dataset.to_list() if hasattr(dataset, "to_list") else list(dataset)  # the latter is an IterableDataset
    return decode_classes(make_table(rows, origin), classes)


def is_saved_dataset(folder: Path) -> bool:
    """A folder that `datasets` saved: a `Dataset`, or a `DatasetDict` of splits."""
    return any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


def read_saved_dataset(folder: Path) -> Table:
    """The dataset that `save_to_disk` saved. Raises `DataError`."""
    if not is_saved_dataset(folder):
        raise DataError(
            f"{folder} is a folder without dataset_info.json; expected a file, or a folder that datasets saved."
        )
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("A folder saved by datasets", "hub") from error
    try:
        loaded = datasets.load_from_disk(str(folder))
        return datasets_table(loaded if isinstance(loaded, dict) else {"": loaded}, str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is not a whole folder that datasets saved: {error}. Save it again.") from error


def read_hub(reference: str) -> Table:
    """`hub:owner/name[:config][@revision]`. Raises `DataError`."""
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingDependencyError("hub: references", "hub") from error
    expected = "Expected hub:owner/name[:config][@revision] and a network."
    name, _, revision = reference.removeprefix("hub:").partition("@")
    repository, _, config = name.partition(":")
    if not repository:
        raise DataError(f"{reference!r} is not a dataset reference. {expected}")
    try:
        loaded = datasets.load_dataset(repository, config or None, revision=revision or None)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise DataError(f"{reference} cannot be loaded: {first_line(error)}. {expected}") from error
    return datasets_table(loaded, reference)
