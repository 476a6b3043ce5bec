"""A corpus on disk: one Parquet file per split, one row per task, read one row group at a time.

    CORPUS/data/train-00000-of-00001.parquet, validation-..., heldout-...

`datasets.load_dataset(CORPUS, split=...)` reads these files too. The corpus that the paper's authors released can also
be read.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import pyarrow as pa
import pyarrow.parquet as pq

from promptmii.data.labels import one_line
from promptmii.errors import ArtefactError, DataError
from promptmii.files import atomic_file, private_folder, quoted
from promptmii.messages import nearest
from promptmii.task import Example, Task

Split = Literal["train", "validation", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)
SOURCE_FIELDS = ("repository", "config", "revision", "licence", "group", "columns", "template", "languages", "domain")
"""Columns on the origin of a task, named as in `Task.source`."""
SPLIT_ALIASES = {"test": "heldout"}
"""The released corpus calls its held-out split "test"."""
TASKS_PER_GROUP = 8
"""Tasks per row group, the smallest part of a file that is read."""

JOURNALS = "stages"
"""The folder in a corpus that holds the journals of its build."""

_ROWS = pa.list_(pa.struct([("text", pa.string()), ("label", pa.string())]))
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        *((name, pa.string()) for name in SOURCE_FIELDS),
        ("instruction", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("train", _ROWS),
        ("test", _ROWS),
    ]
)


def split_file(folder: Path, split: Split) -> Path:
    """The file of a split. `datasets` infers the split from the name, without a dataset card."""
    return folder / "data" / f"{split}-00000-of-00001.parquet"


def write_split(folder: Path, split: Split, tasks: Iterable[Task]) -> None:
    """Write the tasks of a split atomically. Raises `OutputError`."""
    write_tasks(split_file(folder, split), tasks)


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks to a file atomically. Raises `OutputError`."""
    rows = map(task_row, tasks)
    private_folder(path.parent)
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:
        while group := list(islice(rows, TASKS_PER_GROUP)):
            file.write_table(pa.Table.from_pylist(group, SCHEMA))


def task_row(task: Task) -> dict[str, Any]:
    """A task as a row of `SCHEMA`."""
    return {
        "name": task.name,
        **{name: task.source.get(name) for name in SOURCE_FIELDS},
        "instruction": task.instruction,
        "labels": list(task.labels),
        "train": [{"text": example.text, "label": example.label} for example in task.train],
        "test": [{"text": example.text, "label": example.label} for example in task.test],
    }


def row_task(row: Mapping[str, Any]) -> Task:
    """The task in a row of `SCHEMA`. Raises `DataError` if the row is invalid."""
    try:
        name: Any = row["name"]
        if not isinstance(name, str):
            raise TypeError("name is not a string")
        train = tuple(Example(example["text"], example["label"]) for example in row["train"])
        test = tuple(Example(example["text"], example["label"]) for example in row["test"])
        source = {field: str(row[field]) for field in SOURCE_FIELDS if row.get(field)}
        return Task(name, tuple(row["labels"]), train, test, row.get("instruction"), source)
    except (TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"The row {str(row.get('name'))[:80]!r} is not a task: a name, label, text or list is null "
            "or of another type. Build the corpus again."
        ) from error


class _RowAddress(NamedTuple):
    file: Path
    group: int
    row: int


class Tasks(Sequence[Task]):
    """The tasks of one split, read lazily, so that a corpus may be larger than memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the files' metadata only; files in the released layout are read once in full, to find unusable rows."""
        self._addresses: list[_RowAddress] = []
        dropped: list[str] = []
        for path in files:
            file = _open(path)
            is_released = set(file.schema_arrow.names) >= RELEASED_COLUMNS
            for group in range(file.num_row_groups):
                for row in range(file.metadata.row_group(group).num_rows):
                    address = _RowAddress(path, group, row)
                    try:
                        if is_released:
                            _task(address)
                        self._addresses.append(address)
                    except DataError as error:
                        dropped.append(str(error))
        self.dropped = tuple(dropped)
        """The reason for each unusable row."""

    def __len__(self) -> int:
        return len(self._addresses)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [_task(address) for address in self._addresses[index]]
        return _task(self._addresses[index])


def read_corpus(path: str | Path, split: str = "train") -> Tasks:
    """The tasks of a split (train, validation or heldout) of a corpus folder, read lazily.

    Raises `ArtefactError` if the folder is not a corpus, `DataError` if it lacks the split.
    """
    if split not in SPLITS:
        raise DataError(f"A corpus has no split {split!r}. {nearest(split, SPLITS)}")
    files = _split_files(Path(path))
    if split not in files:
        raise DataError(f"The corpus {path} has no split {split!r}; it has {', '.join(sorted(files))}.")
    return Tasks(files[split])


def corpus_splits(path: str | Path) -> list[Split]:
    """The splits of a corpus folder. Raises `ArtefactError` if it is not a corpus."""
    files = _split_files(Path(path))
    return [split for split in SPLITS if split in files]


def _split_files(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in _files(folder):
        split = path.stem.split("-")[0]
        files.setdefault(SPLIT_ALIASES.get(split, split), []).append(path)
    if not files:
        raise ArtefactError(
            f"{folder} is not a corpus: it holds no Parquet file of tasks. "
            f"Build one with: promptmii corpus build -o {quoted(folder)}"
        )
    return files


def corpus_reference(source: str) -> tuple[Path, Split | None] | None:
    """The folder and optional split of `CORPUS_DIR[:split]`; `None` if the source is not a corpus."""
    folder, _, split = source.rpartition(":")
    if split in SPLITS and _files(Path(folder)):
        return Path(folder), split
    return (Path(source), None) if _files(Path(source)) else None


def _files(folder: Path) -> list[Path]:
    files = [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))] if folder.is_dir() else []
    return [file for file in files if not file.name.startswith(".") and _holds_tasks(file)]


def _holds_tasks(path: Path) -> bool:
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return False
    return names >= {"name", "labels", "train", "test"} or names >= RELEASED_COLUMNS


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArtefactError:
    return ArtefactError(f"{path} is not a readable Parquet file: {error}. Remove it, and build again.")


@lru_cache(maxsize=4)
def _read_group(path: Path, group: int, _modified: int) -> list[dict[str, Any]]:
    """The rows of a row group, cached until the file is modified."""
    try:
        return _open(path).read_row_group(group).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _task(address: _RowAddress) -> Task:
    row = _read_group(address.file, address.group, address.file.stat().st_mtime_ns)[address.row]
    return released_task(row) if row.keys() >= RELEASED_COLUMNS else row_task(row)


RELEASED_COLUMNS = frozenset({"dataset_name", "config_name", "train_examples", "test_examples", "label_names"})


def released_task(row: Mapping[str, Any]) -> Task:
    """The task in a row of the released corpus. Raises `DataError` if the row is unusable."""
    config = row["config_name"]
    name = row["dataset_name"] if config in (None, "", "default") else f"{row['dataset_name']}:{config}"
    train = tuple(_examples(row["train_examples"]))
    trained = {example.label for example in train}
    declared = [one_line(str(label)) for label in row["label_names"] or ()]
    # Only a list without repeats that holds every training label comes from a schema; the order of others is arbitrary.
    is_schema = len(set(declared)) == len(declared) and set(declared) >= trained
    labels = tuple(label for label in declared if label in trained) if is_schema else tuple(sorted(trained))
    test = tuple(example for example in _examples(row["test_examples"]) if example.label in trained)
    if not train or not test:
        raise DataError(f"{name} has {len(train)} training and {len(test)} test rows; a task needs both.")
    source = {
        "repository": row["dataset_name"],
        "config": config or "default",
        "group": row["dataset_name"],
        "columns": f"{row.get('input_column') or '?'} -> {row.get('label_column') or '?'}",
    }
    return Task(name, labels, train, test, source=source)


def _examples(rows: Any) -> Iterable[Example]:
    """The examples in a list of rows or, as older versions of `datasets` wrote them, in a dict of columns."""
    if isinstance(rows, Mapping):
        pairs = zip(rows["text"], rows["label"], strict=True)
    else:
        pairs = ((row["text"], row["label"]) for row in rows or ())
    for text, label in pairs:
        if text and text.strip() and label and (name := one_line(label)):
            yield Example(text, name)
