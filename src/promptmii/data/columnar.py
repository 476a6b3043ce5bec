"""Reads columnar data whose schema may name classes: Parquet files, Arrow tables and `datasets` objects."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.data.decoding import path_name
from promptmii.data.table import Table, decode_classes, join_splits, make_table
from promptmii.errors import DataError, required_by
from promptmii.files import refuse_full_disk
from promptmii.messages import first_line

BATCH = 1024
"""Rows per decoded batch."""


def read_parquet(content: bytes, origin: str) -> Table:
    """Read a Parquet file. Raises `DataError`, or an Arrow exception for damaged pages."""
    import pyarrow.parquet as pq

    return arrow_table(pq.ParquetFile(io.BytesIO(content)).read(), origin)


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file. Raises the errors of `read_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH):
            yield from arrow_table(pa.Table.from_batches([batch]), path_name(path)).rows


def arrow_table(table: Any, origin: str) -> Table:
    """Convert an Arrow table, with the class names that `datasets` stores in its schema metadata."""
    check_distinct(table.schema.names, origin)
    return decode_classes(make_table(table.to_pylist(), origin), _stored_class_names(table.schema.metadata))


def check_distinct(columns: Sequence[Any], origin: str) -> None:
    """Raise `DataError` if two columns have the same name."""
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise DataError(f"{origin} has two columns {max(names, key=names.count)!r}. Rename one.")


def _stored_class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """The class names of each `ClassLabel` column; empty if the metadata declares none or is malformed."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        items = {column: _item_feature(feature) for column, feature in features.items()}
        classes = {column: item["names"] for column, item in items.items() if item.get("_type") == "ClassLabel"}
        return {column: names for column, names in classes.items() if isinstance(names, list)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _item_feature(feature: Any) -> Any:
    """The feature of the items if `feature` is a list type (as metadata or object), else `feature` itself."""
    if isinstance(feature, list):
        return feature[0]
    if isinstance(feature, Mapping):
        return feature.get("feature", feature)
    return getattr(feature, "feature", feature)


def datasets_table(parts: Mapping[Any, Any], origin: str) -> Table:
    """Join the datasets of several splits into one table."""
    return join_splits(
        {str(name): _dataset_table(part, f"{origin} {name}".strip()) for name, part in parts.items()}, origin
    )


def _dataset_table(dataset: Any, origin: str) -> Table:
    rows = dataset.to_list() if hasattr(dataset, "to_list") else list(dataset)  # an IterableDataset has no to_list
    return decode_classes(make_table(rows, origin), class_names(getattr(dataset, "features", None) or {}))


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The class names of each `ClassLabel` among the features of `datasets`, also of lists of them."""
    items = {column: _item_feature(feature) for column, feature in features.items()}
    return {column: tuple(item.names) for column, item in items.items() if hasattr(item, "int2str")}


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` saved the folder, as a `Dataset` or a `DatasetDict` of splits."""
    return any((folder / name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


def read_saved_dataset(folder: Path) -> Table:
    """Read a folder written by `save_to_disk`. Raises `DataError`."""
    if not is_saved_dataset(folder):
        raise DataError(
            f"{folder} is a folder without dataset_info.json; expected a file, or a folder saved by datasets."
        )
    with required_by("A folder saved by datasets", "hub"):
        import datasets
    try:
        loaded = datasets.load_from_disk(str(folder))
        return datasets_table(loaded if isinstance(loaded, dict) else {"": loaded}, str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is not a complete folder saved by datasets: {error}. Save it again.") from error


def hub_parts(address: str) -> tuple[str, str, str]:
    """Repository, configuration and revision in `owner/name[:config][@revision]`; the last two may be empty."""
    name, _, revision = address.partition("@")
    repository, _, config = name.partition(":")
    return repository, config, revision


def read_hub(reference: str) -> Table:
    """Read `hub:owner/name[:config][@revision]`. Raises `DataError`, and `OutputError` if the disk is full."""
    with required_by("hub: references", "hub"):
        import datasets
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HfHubHTTPError
    expected = "Expected hub:owner/name[:config][@revision] and a network."
    repository, config, revision = hub_parts(reference.removeprefix("hub:"))
    if not repository:
        raise DataError(f"{reference!r} is not a dataset reference. {expected}")
    try:
        loaded = datasets.load_dataset(repository, config or None, revision=revision or None)
    except (OSError, ValueError, RuntimeError, DatasetsError, HfHubHTTPError) as error:
        refuse_full_disk(error, reference)
        raise DataError(f"{reference} cannot be loaded: {first_line(error)}. {expected}") from error
    return datasets_table(loaded, reference)
