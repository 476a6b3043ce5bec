"""A corpus on disk: one Parquet per split, one row per task, read one row group at a time.

    CORPUS/data/train-00000-of-00001.parquet, validation-..., heldout-...

`datasets.load_dataset(CORPUS)` reads the same files. The layout of the authors' released corpus is read as well.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, overload

import pyarrow as pa
import pyarrow.parquet as pq

from promptmii.errors import ArtefactError, DataError, nearest
from promptmii.files import atomic_file, private_folder
from promptmii.task import Example, Task

Split = Literal["train", "validation", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)
SOURCE_FIELDS = ("repository", "config", "revision", "licence", "group", "columns", "template", "languages", "domain")
"""Columns on the source of a task; `Task.source` has the same names."""
ALIASES = {"test": "heldout"}
"""The released corpus calls its held-out split so."""
TASKS_PER_GROUP = 8

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
    """The file of a split. The name is one that `datasets` knows without a card."""
    return folder / "data" / f"{split}-00000-of-00001.parquet"


def write_split(folder: Path, split: Split, tasks: Iterable[Task]) -> None:
    """Write the tasks of a split, complete or not at all. Raises `OutputError`."""
    write_tasks(split_file(folder, split), tasks)


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks to a file, complete or not at all. Raises `OutputError`."""
    rows = map(task_row, tasks)
    private_folder(path.parent)
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:
        while group := list(islice(rows, TASKS_PER_GROUP)):
            file.write_table(pa.Table.from_pylist(group, SCHEMA))


def task_row(task: Task) -> dict[str, Any]:
    """A task as a row of `SCHEMA`."""
    rows = {part: [{"text": e.text, "label": e.label} for e in getattr(task, part)] for part in ("train", "test")}
    source = {name: task.source.get(name) for name in SOURCE_FIELDS}
    return {"name": task.name, **source, "instruction": task.instruction, "labels": list(task.labels), **rows}


def row_task(row: Mapping[str, Any]) -> Task:
    """The task of a row of `SCHEMA`. Raises `DataError` if it is none."""
    try:
        train, test = (tuple(Example(e["text"], e["label"]) for e in row[part]) for part in ("train", "test"))
        source = {name: str(row[name]) for name in SOURCE_FIELDS if row.get(name)}
        name: Any = row["name"]
        if not isinstance(name, str):
            raise TypeError("it has no name")
        return Task(name, tuple(row["labels"]), train, test, row.get("instruction"), source)
    except (TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"The row {str(row.get('name'))[:80]!r} is no task: a null or a value of another type stands where a name, "
            "a label, a text or a list belongs. Build the corpus again."
        ) from error


class _RowPlace(NamedTuple):
    file: Path
    group: int
    row: int


class Tasks(Sequence[Task]):
    """The tasks of one split, read lazily, so that a corpus may be larger than memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Looks at the shape of the files alone; the released layout is read once, to find rows that are no task."""
        self._places: list[_RowPlace] = []
        dropped: list[str] = []
        for path in files:
            file = _open(path)
            foreign = set(file.schema_arrow.names) >= RELEASED_COLUMNS
            for group in range(file.num_row_groups):
                for row in range(file.metadata.row_group(group).num_rows):
                    place = _RowPlace(path, group, row)
                    try:
                        if foreign:
                            _task(place)
                        self._places.append(place)
                    except DataError as error:
                        dropped.append(str(error))
        self.dropped = tuple(dropped)
        """Rows that are no task, each with the reason."""

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [_task(place) for place in self._places[index]]
        return _task(self._places[index])


def read_corpus(path: str | Path, split: str = "train") -> Tasks:
    """The tasks of a split (train, validation or heldout) of a corpus folder, read lazily.

    Raises `ArtefactError` if the folder is no corpus, `DataError` if it has no such split.
    """
    if split not in SPLITS:
        raise DataError(f"A corpus has no split {split!r}. {nearest(split, SPLITS)}")
    files = _split_files(Path(path))
    if split not in files:
        raise DataError(f"The corpus {path} has no split {split!r}; it has {', '.join(sorted(files))}.")
    return Tasks(files[split])


def corpus_splits(path: str | Path) -> list[Split]:
    """The splits of a corpus folder. Raises `ArtefactError` if it is no corpus."""
    files = _split_files(Path(path))
    return [split for split in SPLITS if split in files]


def _split_files(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in _files(folder):
        name = path.stem.split("-")[0]
        files.setdefault(ALIASES.get(name, name), []).append(path)
    if not files:
        raise ArtefactError(
            f"{folder} is no corpus: it holds no Parquet file of tasks. "
            f"Build one with: promptmii corpus build -o {folder}"
        )
    return files


def corpus_reference(source: str) -> tuple[Path, Split | None] | None:
    """Folder and split of `CORPUS_DIR[:split]`, the split if one is named; `None` if the source is not a corpus."""
    folder, _, split = source.rpartition(":")
    if split in SPLITS and _files(Path(folder)):
        return Path(folder), split
    return (Path(source), None) if _files(Path(source)) else None


def _files(folder: Path) -> list[Path]:
    files = [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))] if folder.is_dir() else []
    return [file for file in files if not file.name.startswith(".") and _is_table_of_tasks(file)]


def _is_table_of_tasks(path: Path) -> bool:
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
    return ArtefactError(f"{path} is not a readable Parquet file: {error}. Build the corpus again.")


@lru_cache(maxsize=4)
def _group(path: Path, group: int, _changed: int) -> list[dict[str, Any]]:
    try:
        return _open(path).read_row_group(group).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _task(place: _RowPlace) -> Task:
    row = _group(place.file, place.group, place.file.stat().st_mtime_ns)[place.row]
    return released_task(row) if row.keys() >= RELEASED_COLUMNS else row_task(row)


RELEASED_COLUMNS = frozenset({"dataset_name", "config_name", "train_examples", "test_examples", "label_names"})


def released_task(row: Mapping[str, Any]) -> Task:
    """The task of a row in the layout of the released corpus. Raises `DataError` if it is none."""
    config = row["config_name"]
    name = row["dataset_name"] if config in (None, "", "default") else f"{row['dataset_name']}:{config}"
    train = tuple(_examples(row["train_examples"]))
    counts = Counter(example.label for example in train)
    declared = [_line(label) for label in row["label_names"] or ()]
    # A list that holds every label of the training rows is the schema's; the order of any other is an accident.
    labels = declared if len(set(declared)) == len(declared) and set(declared) >= set(counts) else sorted(counts)
    known = {label for label in labels if label in counts}
    test = tuple(example for example in _examples(row["test_examples"]) if example.label in known)
    if not train or not test:
        raise DataError(f"{name} has {len(train)} training and {len(test)} test rows; a task needs both.")
    source = {
        "repository": row["dataset_name"],
        "config": config or "default",
        "group": row["dataset_name"],
        "columns": f"{row.get('input_column') or '?'} -> {row.get('label_column') or '?'}",
    }
    return Task(name, tuple(label for label in labels if label in known), train, test, source=source)


def _examples(given: Any) -> Iterable[Example]:
    """A list of rows, or, as older versions of `datasets` wrote them, a row of lists."""
    if isinstance(given, Mapping):
        pairs = zip(given["text"], given["label"], strict=True)
    else:
        pairs = ((row["text"], row["label"]) for row in given or ())
    for text, label in pairs:
        if text and text.strip() and label and label.strip():
            yield Example(text, _line(label))


def _line(label: str) -> str:
    return " ".join(str(label).split())
