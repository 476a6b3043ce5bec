"""The tasks to learn from and the tasks to watch: never of one source, because copies of a data set have many names."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from promptmii.data.corpus_files import Split
from promptmii.data.sources import SPLIT, find_tasks
from promptmii.errors import ConfigError, DataError, nearest
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key
from promptmii.train.settings import TrainSettings, ValidationSettings

LEARNED: tuple[Split, ...] = ("train", "validation")
"""What training may read of a corpus. The held-out split is for evaluation alone."""


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


def read_split(settings: TrainSettings, progress: Progress = QUIET) -> TaskSplit:
    """Every usable task, split by source. Raises `DataError` if none is left, `ConfigError` for an unknown name."""
    if not settings.tasks:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, or suite."
        )
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    names: list[str] = []
    named = {*settings.only, *settings.validation.tasks}
    for source in find_tasks(settings.tasks, splits=LEARNED):
        name = source.name
        names.append(name)
        if settings.only and name not in named:
            continue
        progress.step(f"Reading {name}")
        if name in tasks:
            raise DataError(f"Two tasks have the name {name!r}. Rename one.")
        try:
            task = source.read()
        except DataError as error:
            skipped.append(f"{name}: {error}")
            continue
        if reason := _fault(task, settings):
            skipped.append(f"{name}: {reason}")
        else:
            tasks[name] = task
    for name in sorted(named.difference(names)):
        raise ConfigError(f"Unknown task {name!r}. {nearest(name, names)}")
    train, validation = split(list(tasks.values()), settings.validation, settings.seed)
    if not train:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(
            f"No training task is left of {len(tasks) + len(skipped)} in {', '.join(settings.tasks)}.{reasons}"
        )
    return TaskSplit(tuple(train), tuple(validation), tuple(skipped))


def split(tasks: Sequence[Task], held_out: ValidationSettings, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Training and validation tasks. A source is on one side as a whole.

    Validation tasks are those named; or the corpus says; or the names of the sources and the seed decide.
    """
    of_corpus = [task for task in tasks if task.source.get(SPLIT) == "validation"]
    if held_out.tasks:
        watched = [task for task in tasks if task.name in held_out.tasks]
    elif any(SPLIT in task.source for task in tasks):
        watched = of_corpus
    else:
        ordered = sorted({group(task) for task in tasks}, key=lambda name: _lot(name, seed))
        chosen = ordered[: round(len(ordered) * held_out.share)]
        watched = [task for task in tasks if group(task) in chosen]
    groups = {group(task) for task in (*watched, *of_corpus)}
    # By lot, because the first of a sorted corpus would be few kinds of task.
    drawn = sorted((task.name for task in watched), key=lambda name: _lot(name, seed))[: held_out.most]
    return [task for task in tasks if group(task) not in groups], [task for task in watched if task.name in drawn]


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def _fault(task: Task, settings: TrainSettings) -> str | None:
    shortest = min(settings.schedule)
    if settings.most_labels and len(task.labels) > settings.most_labels:
        return f"{len(task.labels)} labels; most_labels is {settings.most_labels}"
    if len(task.train) < shortest:
        return f"{len(task.train)} training rows; the shortest prompt needs {shortest}"
    if len(task.test) < settings.query:
        return f"{len(task.test)} held-back rows; query is {settings.query}"
    return None
