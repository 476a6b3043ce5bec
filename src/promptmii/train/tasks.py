"""The tasks to learn from and the tasks to watch: never of one source, because copies of a data set have many names."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptmii.data.sources import SPLIT, TaskSource, find_tasks
from promptmii.errors import ConfigError, DataError, nearest
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key
from promptmii.train.settings import ValidationSettings


@dataclass(frozen=True)
class Selection:
    """Which tasks a run uses, and for what."""

    sources: tuple[str, ...]
    only: tuple[str, ...]
    """Names; without any, all."""
    most_labels: int | None
    train_rows: int
    """A task with fewer training rows is left out."""
    test_rows: int
    validation: ValidationSettings
    seed: int


@dataclass(frozen=True)
class TaskSplit:
    """What a run learns from and what it is validated on."""

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    skipped: tuple[str, ...]
    """Each task that cannot be used, with the reason."""

    @property
    def key(self) -> str:
        """Content hash of all rows and of the split."""
        return content_key([[task.key for task in part] for part in (self.train, self.validation)])


def group(task: Task) -> str:
    """The source of a task, by which it is split."""
    return task.source.get("group") or task.name


def read_split(selection: Selection, progress: Progress = QUIET) -> TaskSplit:
    """Every usable task, split by source. Raises `DataError` if none is left, `ConfigError` for an unknown name."""
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    names: list[str] = []
    for source in candidates(selection.sources):
        name = source.name
        names.append(name)
        if selection.only and name not in selection.only:
            continue
        progress.step(f"Reading {name}")
        if name in tasks:
            raise DataError(f"Two tasks have the name {name!r}. Rename one.")
        try:
            task = source.read()
            reason = _fault(task, selection)
        except DataError as error:
            task, reason = None, str(error)
        if task is None or reason:
            skipped.append(f"{name}: {reason}")
        else:
            tasks[name] = task
    for name in (*selection.only, *selection.validation.tasks):
        if name not in names:
            raise ConfigError(f"There is no task {name!r}. {nearest(name, names)}")
    train, validation = split(list(tasks.values()), selection.validation, selection.seed)
    if not selection.validation.tasks and any(task.source.get(SPLIT) for task in tasks.values()):
        train = [task for task in tasks.values() if task.source.get(SPLIT) != "validation"]
        watched = [task for task in tasks.values() if task.source.get(SPLIT) == "validation"]
        validation = _some(watched, selection.validation.most, selection.seed)
    if not train:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(
            f"No task is left to learn from, of {len(tasks) + len(skipped)} in {', '.join(selection.sources)}.{reasons}"
        )
    return TaskSplit(tuple(train), tuple(validation), tuple(skipped))


def split(tasks: Sequence[Task], held_out: ValidationSettings, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Training and validation tasks. A source is on one side as a whole, by its name and the seed alone."""
    if held_out.tasks:
        groups = {group(task) for task in tasks if task.name in held_out.tasks}
        validation = [task for task in tasks if task.name in held_out.tasks]
    else:
        ordered = sorted({group(task) for task in tasks}, key=lambda name: _lot(name, seed))
        groups = set(ordered[: round(len(ordered) * held_out.share)])
        validation = [task for task in tasks if group(task) in groups]
    return [task for task in tasks if group(task) not in groups], _some(validation, held_out.most, seed)


def _some(tasks: Sequence[Task], most: int, seed: int) -> list[Task]:
    """At most so many tasks, by lot and in their order. The first of a sorted corpus would be few kinds of task."""
    drawn = {task.name for task in sorted(tasks, key=lambda task: _lot(task.name, seed))[:most]}
    return [task for task in tasks if task.name in drawn]


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _fault(task: Task, selection: Selection) -> str | None:
    """Why the task cannot be used."""
    if selection.most_labels and len(task.labels) > selection.most_labels:
        return f"{len(task.labels)} labels; most_labels is {selection.most_labels}"
    if len(task.train) < selection.train_rows:
        return f"{len(task.train)} training rows; the shortest prompt needs {selection.train_rows}"
    if len(task.test) < selection.test_rows:
        return f"{len(task.test)} held-back rows; query is {selection.test_rows}"
    return None


def candidates(given: Sequence[str]) -> Iterator[TaskSource]:
    """Every task that the sources hold. Of a corpus, the held-out split is for evaluation alone."""
    if not given:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, or suite."
        )
    return find_tasks(given, splits=("train", "validation"))


def named_tasks(sources: str | Sequence[str], names: Sequence[str] | None = None) -> dict[str, Task]:
    """The tasks of these names, or all, each named after its file.

    Raises `DataError` with the nearest name there is.
    """
    if names is not None and not names:
        return {}
    known = {task.name: task.read for task in candidates([sources] if isinstance(sources, str) else sources)}
    for name in names or ():
        if name not in known:
            raise DataError(f"There is no task {name!r} among the tasks given. {nearest(name, known)}")
    return {name: known[name]() for name in (known if names is None else names)}
