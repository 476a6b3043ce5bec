"""Finds and reads the tasks of a source: a file, a folder, `corpus[:split]`, `hub:owner/name` or `suite`.

Evaluation, training and corpus building all use this module, so a source means the same to each of them.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from promptmii.data.columnar import is_saved_dataset
from promptmii.data.corpus_files import JOURNALS, Split, Tasks, corpus_reference, corpus_splits, read_corpus
from promptmii.data.decoding import path_name
from promptmii.data.load import LoadedTask, load_task
from promptmii.data.readers import format_of, is_compressed, read_table, supported_format
from promptmii.errors import DataError
from promptmii.messages import nearest
from promptmii.table_formats import TABLES
from promptmii.task import Task

SUITE = "suite"
"""Small bundled tasks from several domains, for evaluation."""
WRITTEN = "written"
"""Bundled tasks for training, with texts written for this package."""
INDEX = "index.csv"
"""A table next to task files that gives the origin of each: task_id, source_repo, licence."""
SPLIT = "split"
"""The key of `Task.source` that names the split of a corpus task."""

LoadTask = Callable[[str], LoadedTask]


@dataclass(frozen=True)
class TaskSource:
    """A task that has been found but not read."""

    name: str
    origin: str
    """The file, corpus or hub reference that holds the task."""
    read: Callable[[], Task]
    """Reads the task. Raises `DataError` if it is broken or missing."""


def bundled_folder(name: str) -> Path:
    """The folder of the bundled tasks `SUITE` or `WRITTEN`."""
    return Path(__file__).with_name(name)


def bundled_names() -> set[str]:
    return {task_name(path) for folder in (SUITE, WRITTEN) for path in task_files(bundled_folder(folder))}


def find_tasks(
    sources: Sequence[str], *, splits: Sequence[Split] = ("heldout",), load: LoadTask = load_task
) -> Iterator[TaskSource]:
    """Find every task of the sources, in order.

    `splits` apply to a corpus given without a split; `load` reads a file or a `hub:` reference. Raises `DataError` for
    a source without tasks, or one that does not exist.
    """
    for source in sources:
        folder = bundled_folder(source) if source in (SUITE, WRITTEN) else Path(source)
        if corpus := corpus_reference(source):
            yield from _corpus_tasks(corpus[0], (corpus[1],) if corpus[1] else splits)
        elif source.startswith("hub:"):
            yield TaskSource(source, source, partial(_load_as, source, source, {}, load))
        elif folder.is_dir() and not is_saved_dataset(folder):
            if (folder / JOURNALS / "list.jsonl").exists():  # otherwise the tables of the build would pass for tasks
                raise DataError(
                    f"{folder} is an unfinished corpus. Finish it first: run its promptmii corpus build again, "
                    "without --stage."
                )
            index = read_index(folder)
            for path in task_files(folder):
                yield _file_task(path, index, load)
        else:
            if not folder.is_dir():
                supported_format(folder)  # training skips a broken task, but must not skip a misspelt path
            yield _file_task(folder, read_index(folder.parent), load)


def read_tasks(
    sources: Sequence[str],
    *,
    splits: Sequence[Split] = ("heldout",),
    load: LoadTask = load_task,
    only: Collection[str] = (),
) -> dict[str, Task]:
    """The tasks of the sources by name, in order; if `only` is given, just the tasks it names.

    Raises `DataError` for a broken task, two tasks of the same name, or a name in `only` that does not exist.
    """
    origins: dict[str, str] = {}
    tasks: dict[str, Task] = {}
    candidates = list(find_tasks(sources, splits=splits, load=load))
    names = [candidate.name for candidate in candidates]
    for name in only:
        if name not in names:
            raise DataError(f"{', '.join(sources)}: no task {name!r}. {nearest(name, names)}")
    for candidate in candidates:
        name = candidate.name
        if only and name not in only:
            continue
        if name in tasks:
            raise DataError(
                f"Two tasks have the name {name!r}: one from {origins[name]}, one from {candidate.origin}. "
                "Rename one, or leave one out."
            )
        origins[name] = candidate.origin
        tasks[name] = candidate.read()
    return tasks


def task_files(folder: Path) -> list[Path]:
    """The data files of a folder, sorted by name, without hidden files and the index.

    Raises `DataError` if there are none.
    """
    try:
        files = [path for path in sorted(folder.iterdir()) if is_data_file(path)]
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    if not files:
        raise DataError(
            f"The folder {folder} holds no task file; expected files ending in {', '.join(TABLES)} (also .gz)."
        )
    return files


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, such as `._a.csv` from macOS, or an Excel lock file such as `~$a.xlsx`."""
    return name.startswith((".", "~$"))


def is_data_file(path: Path) -> bool:
    """Whether a file is visible and has a table format. `.txt` does not count: it has no labels and is often a note."""
    return not is_hidden(path.name) and path.name != INDEX and format_of(path) in TABLES and path.is_file()


def task_name(path: Path) -> str:
    """The task name for a file or dataset folder: its name without the format's ending and `.gz`."""
    path = Path(os.path.abspath(path))  # gives `..` a name; unlike resolve(), keeps the names of links
    name = path_name(path.name)
    name = Path(name).stem if is_compressed(path) else name
    return name if path.is_dir() else name.removesuffix(Path(name).suffix)


def read_index(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a folder's index by task; empty if it has no index. Raises `DataError` for a broken index."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    table = read_table(path)
    required = {"task_id", "source_repo"}
    missing = required - set(table.columns)
    if missing == required:
        return {}  # some other table that happens to be called index.csv
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(sorted(missing))}; expected task_id, source_repo and licence."
        )
    return {str(row["task_id"]): {name: str(row[name] or "") for name in table.columns} for row in table.rows}


def _file_task(path: Path, index: Mapping[str, Mapping[str, str]], load: LoadTask) -> TaskSource:
    name = task_name(path)
    row = index.get(name)
    metadata = {"group": row["source_repo"] or name, "licence": row.get("licence") or "unstated"} if row else {}
    return TaskSource(name, str(path), partial(_load_as, str(path), name, metadata, load))


def _load_as(source: str, name: str, metadata: Mapping[str, str], load: LoadTask) -> Task:
    task = load(source).task
    return replace(task, name=name, source={**task.source, **metadata})


def _corpus_tasks(folder: Path, splits: Sequence[Split]) -> Iterator[TaskSource]:
    """The tasks of the splits that exist. A broken row is named by its position and fails when it is read."""
    present = corpus_splits(folder)
    found: Sequence[Split] = [split for split in splits if split in present] or splits[-1:]  # the last one raises
    tasks_by_split: dict[Split, Tasks] = {split: read_corpus(folder, split) for split in found}
    if not any(len(tasks) or tasks.dropped for tasks in tasks_by_split.values()):
        counts = [f"{folder}:{split} ({len(read_corpus(folder, split))})" for split in present]
        wanted = " or ".join(tasks_by_split)
        raise DataError(f"The corpus {folder} has no task in {wanted}. Its splits: {', '.join(counts)}.")
    for split, tasks in tasks_by_split.items():
        origin = f"{folder}:{split}"
        for reason in tasks.dropped:
            yield TaskSource(origin, origin, partial(_fail, reason))
        for index in range(len(tasks)):
            try:
                name = tasks[index].name
            except DataError as error:
                yield TaskSource(f"{origin} row {index + 1}", origin, partial(_fail, str(error)))
            else:
                yield TaskSource(name, origin, partial(_corpus_task, tasks, index, split))


def _corpus_task(tasks: Tasks, index: int, split: Split) -> Task:
    task = tasks[index]
    return replace(task, source={**task.source, SPLIT: split})


def _fail(reason: str) -> Task:
    raise DataError(reason)
