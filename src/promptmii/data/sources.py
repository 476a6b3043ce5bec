"""The one door to tasks: a file, a folder, `corpus[:split]`, `hub:owner/name` or `suite` becomes tasks.

Evaluation, training and corpus building all come through here, so that a source means the same to each of them.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from promptmii.data.columnar import is_saved_dataset
from promptmii.data.corpus_files import Split, Tasks, corpus_reference, corpus_splits, read_corpus
from promptmii.data.decoding import path_name
from promptmii.data.load import SUFFIXES, format_of, read_table
from promptmii.data.sample import LoadedTask, load_task
from promptmii.errors import DataError, nearest
from promptmii.task import Task

SUITE = "suite"
"""Small tasks to evaluate on, in several fields."""
WRITTEN = "written"
"""Tasks to train on, with texts written for them."""
INDEX = "index.csv"
"""A table beside task files that says where each comes from: task_id, source_repo, licence."""
SPLIT = "split"
"""The key of `Task.source` that names the split, for tasks of a corpus."""

Load = Callable[[str], LoadedTask]


@dataclass(frozen=True)
class TaskSource:
    """One task that can be read."""

    name: str
    origin: str
    """The file, corpus or reference that it comes from."""
    read: Callable[[], Task]
    """Raises `DataError` where there is no task behind the name."""


def bundled_folder(name: str) -> Path:
    """The folder of tasks that ship with this package under this name: `SUITE` or `WRITTEN`."""
    return Path(__file__).with_name(name)


def find_tasks(
    given: Sequence[str], *, splits: Sequence[Split] = ("heldout",), load: Load = load_task
) -> Iterator[TaskSource]:
    """Every task of the sources, in order. `splits` are those of a corpus that is given without one.

    `load` reads a file or a `hub:` reference. Raises `DataError` for a source that holds no task at all.
    """
    for source in given:
        folder = bundled_folder(source) if source in (SUITE, WRITTEN) else Path(source)
        if corpus := corpus_reference(source):
            yield from _corpus_tasks(corpus[0], (corpus[1],) if corpus[1] else splits)
        elif source.startswith("hub:"):
            yield TaskSource(source, source, partial(_loaded, source, source, {}, load))
        elif folder.is_dir() and not is_saved_dataset(folder):
            index = read_index(folder)
            for path in task_files(folder):
                yield _file_task(path, index, load)
        else:
            yield _file_task(folder, read_index(folder.parent), load)


def read_tasks(
    given: Sequence[str], *, splits: Sequence[Split] = ("heldout",), load: Load = load_task, only: Collection[str] = ()
) -> dict[str, Task]:
    """The tasks of the sources by name, in order; with `only`, those of these names.

    Raises `DataError`, also where two have one name, or a name is not there.
    """
    origins: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    sources = list(find_tasks(given, splits=splits, load=load))
    if missing := [name for name in only if name not in {source.name for source in sources}]:
        known = nearest(missing[0], [source.name for source in sources])
        raise DataError(f"{', '.join(given)}: no task {missing[0]!r}. {known}")
    for source in sources:
        if only and source.name not in only:
            continue
        if source.name in tasks:
            raise DataError(
                f"Two tasks have the name {source.name!r}: one from {origins[source.name]}, one from {source.origin}. "
                "Rename one, or leave one out."
            )
        origins[source.name] = source.origin
        tasks[source.name] = source.read()
    return tasks


def task_files(folder: Path) -> list[Path]:
    """The data files of a folder by name. Hidden files and the index are left out.

    Raises `DataError` where there is none.
    """
    try:
        files = [path for path in sorted(folder.iterdir()) if is_data_file(path)]
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    if not files:
        raise DataError(
            f"The folder {folder} holds no task file; expected files ending in {', '.join(_ENDINGS)} (also .gz)."
        )
    return files


_ENDINGS = tuple(suffix for suffix in SUFFIXES if suffix != ".txt")


def is_hidden(name: str) -> bool:
    """Whether a name is that of no data: a hidden one, such as `._a.csv` of macOS, or `~$a.xlsx` of an open Excel."""
    return name.startswith((".", "~$"))


def is_data_file(path: Path) -> bool:
    """Whether a file is visible and holds rows. A `.txt` file has no labels, and is often a note."""
    return not is_hidden(path.name) and path.name != INDEX and format_of(path) in _ENDINGS and path.is_file()


def task_name(path: Path) -> str:
    """The task's name for a file or dataset folder: without `.gz` and the ending of the format."""
    path = Path(os.path.abspath(path))  # so that `..` has a name too; links keep their own
    name = path_name(path.name).removesuffix(".gz")
    return name if path.is_dir() else name.removesuffix(Path(name).suffix)


def read_index(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a folder's index by task; empty if there is none. Raises `DataError` for a broken one."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    table = read_table(path)
    needed = {"task_id", "source_repo"}
    missing = needed - set(table.columns)
    if missing == needed:
        return {}  # a table of that name, but no index
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(sorted(missing))}; expected task_id, source_repo and licence."
        )
    return {str(row["task_id"]): {name: str(row[name] or "") for name in table.columns} for row in table.rows}


def _file_task(path: Path, index: Mapping[str, Mapping[str, str]], load: Load) -> TaskSource:
    name = task_name(path)
    row = index.get(name)
    known = {"group": row["source_repo"] or name, "licence": row.get("licence") or "unstated"} if row else {}
    return TaskSource(name, str(path), partial(_loaded, str(path), name, known, load))


def _loaded(source: str, name: str, known: Mapping[str, str], load: Load) -> Task:
    task = load(source).task
    return replace(task, name=name, source={**task.source, **known})


def _corpus_tasks(folder: Path, splits: Sequence[Split]) -> Iterator[TaskSource]:
    """A row that is no task is named by its place, and fails when it is read, like a broken file."""
    parts: dict[Split, Tasks] = {}
    for split in splits:
        try:
            parts[split] = read_corpus(folder, split)
        except DataError:
            if split == splits[-1] and not parts:
                raise
    if not any(len(tasks) or tasks.dropped for tasks in parts.values()):
        there = [f"{folder}:{split} ({len(read_corpus(folder, split))})" for split in corpus_splits(folder)]
        raise DataError(f"The corpus {folder} has no task in {' or '.join(parts)}. Its splits: {', '.join(there)}.")
    for split, tasks in parts.items():
        origin = f"{folder}:{split}"
        for reason in tasks.dropped:
            yield TaskSource(origin, origin, partial(_fail, reason))
        for number in range(len(tasks)):
            try:
                name = tasks[number].name
            except DataError as error:
                place = f"{origin} row {number + 1}"
                yield TaskSource(place, origin, partial(_fail, str(error)))
            else:
                yield TaskSource(name, origin, partial(_of_corpus, tasks, number, split))


def _of_corpus(tasks: Tasks, number: int, split: Split) -> Task:
    task = tasks[number]
    return replace(task, source={**task.source, SPLIT: split})


def _fail(reason: str) -> Task:
    raise DataError(reason)
