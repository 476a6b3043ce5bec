"""The tasks to learn from and the tasks to watch: never of one source, because copies of a data set have many names."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptmii.data import load_task
from promptmii.data.corpus import corpus_reference, read_corpus
from promptmii.errors import ConfigError, DataError, nearest
from promptmii.evaluation.grid import task_sources
from promptmii.task import Task, content_key
from promptmii.train.config import TrainSettings, ValidationSettings

INDEX = "index.csv"
SPLIT = "split"
"""What a task's `source` says where a corpus has split its tasks already."""


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


def read_source(settings: TrainSettings, progress: Callable[[str], None] = lambda _: None) -> Source:
    """Every task that can be used, split by source. Raises `DataError` where none is left, `ConfigError` for a name nobody knows."""
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    names: list[str] = []
    for name, load in candidates(settings.tasks):
        names.append(name)
        if settings.only and name not in settings.only:
            continue
        progress(f"Reading {name}")
        if name in tasks:
            raise DataError(f"Two tasks have the name {name!r}. Rename one.")
        try:
            task = load()
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


def candidates(given: Sequence[str]) -> Iterator[tuple[str, Callable[[], Task]]]:
    """Names of tasks, and how to read each, with its source and licence where an index says."""
    if not given:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, or suite."
        )
    corpora = {source: corpus_reference(source) for source in given}
    for named in corpora.values():
        if named:
            yield from _in_corpus(named[0])
    for source in task_sources([source for source, named in corpora.items() if not named]):
        path = Path(source)
        name = source if source.startswith("hub:") else path.name.split(".")[0]
        yield name, _reader(source, name, _indexed(path.parent).get(name, {}))


def named_tasks(sources: str | Sequence[str], names: Sequence[str]) -> dict[str, Task]:
    """The tasks of these names, each named after its file. Raises `DataError` with the nearest name there is."""
    if not names:
        return {}
    known = dict(candidates([sources] if isinstance(sources, str) else sources))
    for name in names:
        if name not in known:
            raise DataError(f"There is no task {name!r} among the tasks given. {nearest(name, known)}")
    return {name: known[name]() for name in names}


def _in_corpus(folder: Path) -> Iterator[tuple[str, Callable[[], Task]]]:
    """The training and the validation split; the held-out one is for evaluation alone.

    A row that is no task stands under its place instead of its name, and fails when it is read, like a file that is none.
    """
    for part in ("train", "validation"):
        try:
            tasks = read_corpus(folder, part)
        except DataError:
            if part == "train":
                raise
            continue
        for reason in tasks.dropped:
            yield f"{folder}:{part}", _failing(reason)
        for number in range(len(tasks)):
            try:
                task = tasks[number]
            except (
                DataError,
                TypeError,
                AttributeError,
            ) as error:  # the latter from a row with a null where a text or a list belongs
                yield f"{folder}:{part} row {number + 1}", _failing(str(error))
                continue
            marked = replace(task, source={**task.source, SPLIT: part})
            yield task.name, lambda marked=marked: marked


def _failing(reason: str) -> Callable[[], Task]:
    def read() -> Task:
        raise DataError(reason)

    return read


def _reader(source: str, name: str, known: dict[str, str]) -> Callable[[], Task]:
    def read() -> Task:
        task = load_task(source).task
        return replace(task, name=name, source={**task.source, **known})

    return read


def _indexed(folder: Path) -> dict[str, dict[str, str]]:
    """Group and licence by task name, where an index lies beside the tasks."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            row["task_id"]: {"group": row["source_repo"], "licence": row.get("licence") or "unstated"} for row in rows
        }
    except KeyError as error:
        raise DataError(f"{path} has no column {error}; expected task_id, source_repo and licence.") from error
