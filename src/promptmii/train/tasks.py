"""The tasks to learn from and the tasks to watch: never of one source, because copies of a data set have many names."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptmii.data.sources import SPLIT, TaskSource, find_tasks
from promptmii.errors import ConfigError, DataError, nearest
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key
from promptmii.train.settings import TrainSettings, ValidationSettings


@dataclass(frozen=True)
class Source:
    """What a run learns from and what it is watched on."""

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


def read_source(settings: TrainSettings, progress: Progress = QUIET) -> Source:
    """Every task that can be used, split by source. Raises `DataError` where none is left, `ConfigError` for a name nobody knows."""
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    names: list[str] = []
    for source in candidates(settings.tasks):
        name = source.name
        names.append(name)
        if settings.only and name not in settings.only:
            continue
        progress.step(f"Reading {name}")
        if name in tasks:
            raise DataError(f"Two tasks have the name {name!r}. Rename one.")
        try:
            task = source.read()
            reason = _fault(task, settings)
        except DataError as error:
            task, reason = None, str(error)
        if task is None or reason:
            skipped.append(f"{name}: {reason}")
        else:
            tasks[name] = task
    for name in (*settings.only, *settings.validation.tasks):
        if name not in names:
            raise ConfigError(f"There is no task {name!r}. {nearest(name, names)}")
    train, validation = split(list(tasks.values()), settings.validation, settings.seed)
    if not settings.validation.tasks and any(task.source.get(SPLIT) for task in tasks.values()):
        train = [task for task in tasks.values() if task.source.get(SPLIT) != "validation"]
        watched = [task for task in tasks.values() if task.source.get(SPLIT) == "validation"]
        validation = _some(watched, settings.validation.most, settings.seed)
    if not train:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(
            f"No task is left to learn from, of {len(tasks) + len(skipped)} in {', '.join(settings.tasks)}.{reasons}"
        )
    return Source(tuple(train), tuple(validation), tuple(skipped))


def split(tasks: Sequence[Task], held_out: ValidationSettings, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Training and validation tasks. A source is on one side as a whole; which one follows from its name and the seed alone."""
    if held_out.tasks:
        groups = {group(task) for task in tasks if task.name in held_out.tasks}
        validation = [task for task in tasks if task.name in held_out.tasks]
    else:
        ordered = sorted({group(task) for task in tasks}, key=lambda name: _lot(name, seed))
        groups = set(ordered[: round(len(ordered) * held_out.share)])
        validation = [task for task in tasks if group(task) in groups]
    return [task for task in tasks if group(task) not in groups], _some(validation, held_out.most, seed)


def _some(tasks: Sequence[Task], most: int, seed: int) -> list[Task]:
    """At most so many of the tasks, by lot and in their order: the first of a sorted corpus would be few kinds of task."""
    drawn = {task.name for task in sorted(tasks, key=lambda task: _lot(task.name, seed))[:most]}
    return [task for task in tasks if task.name in drawn]


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _fault(task: Task, settings: TrainSettings) -> str | None:
    """Why the task cannot be used."""
    least = min(settings.schedule)
    if settings.most_labels and len(task.labels) > settings.most_labels:
        return f"{len(task.labels)} labels; most_labels is {settings.most_labels}"
    if len(task.train) < least:
        return f"{len(task.train)} training rows; the shortest prompt needs {least}"
    if len(task.test) < settings.query:
        return f"{len(task.test)} held-back rows; query is {settings.query}"
    return None


def candidates(given: Sequence[str]) -> Iterator[TaskSource]:
    """Every task that the sources hold. Of a corpus, the held-out split is for evaluation alone."""
    if not given:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, or suite."
        )
    return find_tasks(given, splits=("train", "validation"))


def named_tasks(sources: str | Sequence[str], names: Sequence[str]) -> dict[str, Task]:
    """The tasks of these names, each named after its file. Raises `DataError` with the nearest name there is."""
    if not names:
        return {}
    known = {task.name: task.read for task in candidates([sources] if isinstance(sources, str) else sources)}
    for name in names:
        if name not in known:
            raise DataError(f"There is no task {name!r} among the tasks given. {nearest(name, known)}")
    return {name: known[name]() for name in names}
