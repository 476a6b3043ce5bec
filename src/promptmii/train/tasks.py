"""Split tasks into training and validation by source, because copies of a data set have many names."""

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
"""The splits of a corpus that training may read. The held-out split is for evaluation only."""


@dataclass(frozen=True)
class TaskSplit:
    """Training and validation tasks."""

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    skipped: tuple[str, ...]
    """Unusable tasks, each with the reason."""

    @property
    def key(self) -> str:
        """Content hash of the rows and the split."""
        return content_key([[task.key for task in part] for part in (self.train, self.validation)])


def group(task: Task) -> str:
    """The source of a task."""
    return task.source.get("group") or task.name


def read_split(settings: TrainSettings, progress: Progress = QUIET) -> TaskSplit:
    """All usable tasks, split by source. Raises `DataError` if none is left, `ConfigError` for an unknown name."""
    if not settings.tasks:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, or suite."
        )
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    names: list[str] = []
    wanted = {*settings.only, *settings.validation.tasks}
    for source in find_tasks(settings.tasks, splits=LEARNED):
        name = source.name
        names.append(name)
        if settings.only and name not in wanted:
            continue
        progress.step(f"Reading {name}")
        if name in tasks:
            raise DataError(f"Two tasks have the name {name!r}. Rename one.")
        try:
            task = source.read()
        except DataError as error:
            skipped.append(f"{name}: {error}")
            continue
        if reason := _unusable(task, settings):
            skipped.append(f"{name}: {reason}")
        else:
            tasks[name] = task
    for name in sorted(wanted.difference(names)):
        raise ConfigError(f"Unknown task {name!r}. {nearest(name, names)}")
    train, validation = split(list(tasks.values()), settings.validation, settings.seed)
    if not train:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(
            f"No training task is left of {len(tasks) + len(skipped)} in {', '.join(settings.tasks)}.{reasons}"
        )
    return TaskSplit(tuple(train), tuple(validation), tuple(skipped))


def split(tasks: Sequence[Task], held_out: ValidationSettings, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Training and validation tasks. A source is never on both sides.

    The settings name the validation tasks, or the corpus does, or a hash of source name and seed draws them.
    """
    of_corpus = [task for task in tasks if task.source.get(SPLIT) == "validation"]
    if held_out.tasks:
        watched = [task for task in tasks if task.name in held_out.tasks]
    elif any(SPLIT in task.source for task in tasks):
        watched = of_corpus
    else:
        sources = _shuffled({group(task) for task in tasks}, seed)
        drawn = sources[: round(len(sources) * held_out.share)]
        watched = [task for task in tasks if group(task) in drawn]
    groups = {group(task) for task in (*watched, *of_corpus)}
    # A sample, because the first tasks of a sorted corpus are alike.
    names = _shuffled({task.name for task in watched}, seed)[: held_out.most]
    return [task for task in tasks if group(task) not in groups], [task for task in watched if task.name in names]


def _shuffled(names: set[str], seed: int) -> list[str]:
    """An order that does not depend on the other names, so that more tasks change the split little."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())


def _unusable(task: Task, settings: TrainSettings) -> str | None:
    shortest = min(settings.schedule)
    if settings.most_labels and len(task.labels) > settings.most_labels:
        return f"{len(task.labels)} labels; most_labels is {settings.most_labels}"
    if len(task.train) < shortest:
        return f"{len(task.train)} training rows; the shortest prompt needs {shortest}"
    if len(task.test) < settings.query:
        return f"{len(task.test)} held-back rows; query is {settings.query}"
    return None
