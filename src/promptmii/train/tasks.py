"""Split tasks into training and validation by source, because copies of a dataset go by many names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from promptmii.data.corpus_files import Split
from promptmii.data.sample import random_rank
from promptmii.data.sources import SPLIT, bundled_names, find_tasks
from promptmii.errors import ConfigError, DataError
from promptmii.messages import nearest
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key
from promptmii.train.settings import BestOfSettings, HeldOutSettings, TrainSettings, VisitSettings

TRAINING_SPLITS: tuple[Split, ...] = ("train", "validation")
"""The splits of a corpus that training may read. The held-out split is only for evaluation."""


@dataclass(frozen=True)
class TaskSplit:
    """Training and validation tasks."""

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    skipped: tuple[str, ...]
    """Unusable tasks, each with the reason."""

    @property
    def key(self) -> str:
        """Content hash of the tasks and the split."""
        return content_key([[task.key for task in part] for part in (self.train, self.validation)])


def group(task: Task) -> str:
    """The source of a task."""
    return task.source.get("group") or task.name


def read_split(settings: TrainSettings | BestOfSettings, progress: Progress = QUIET) -> TaskSplit:
    """Read and split the usable tasks.

    Raises `DataError` if none is left for training, `ConfigError` for unknown names.
    """
    if not settings.tasks:
        raise ConfigError(
            "tasks names no source; expected a corpus folder, folders of task files, task files, written or suite."
        )
    sources = list(find_tasks(settings.tasks, splits=TRAINING_SPLITS))
    names = [source.name for source in sources]
    held_out = settings.validation.model_copy(update={"tasks": applicable(settings.validation.tasks, names)})
    wanted = {*settings.only, *held_out.tasks}
    if unknown := sorted(wanted.difference(names)):
        raise ConfigError(f"Unknown task {unknown[0]!r}. {nearest(unknown[0], names)}")
    skipped: list[str] = []
    tasks: dict[str, Task] = {}
    for name, source in zip(names, sources, strict=True):
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
        if reason := _reason_unusable(task, settings):
            skipped.append(f"{name}: {reason}")
        else:
            tasks[name] = task
    train, validation = split(list(tasks.values()), held_out, settings.seed)
    if not train:
        reasons = f" Skipped: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(
            f"No training task is left of the {len(tasks) + len(skipped)} in {', '.join(settings.tasks)}.{reasons}"
        )
    return TaskSplit(tuple(train), tuple(validation), tuple(skipped))


def applicable(names: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
    """The names of validation tasks, without bundled tasks that the run does not use: a recipe's, given `--tasks`."""
    return tuple(name for name in names if name in found or name not in bundled_names())


def split(tasks: Sequence[Task], held_out: HeldOutSettings, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Split tasks into training and validation, never with a source on both sides.

    The validation tasks are those that `held_out` names, else those of the corpus's validation split, else a random
    share of the sources, determined by the seed.
    """
    corpus_validation = [task for task in tasks if task.source.get(SPLIT) == "validation"]
    if held_out.tasks:
        candidates = [task for task in tasks if task.name in held_out.tasks]
    elif any(SPLIT in task.source for task in tasks):
        candidates = corpus_validation
    else:
        sources = _shuffled({group(task) for task in tasks}, seed)
        least = int(held_out.share > 0 and len(sources) > 1)  # a small share would leave none, and so no best weights
        selected = sources[: max(least, round(len(sources) * held_out.share))]
        candidates = [task for task in tasks if group(task) in selected]
    held_out_groups = {group(task) for task in (*candidates, *corpus_validation)}
    # A random sample, because the first tasks of a sorted corpus are alike.
    names = _shuffled({task.name for task in candidates}, seed)[: held_out.most]
    train = [task for task in tasks if group(task) not in held_out_groups]
    return train, [task for task in candidates if task.name in names]


def _shuffled(names: set[str], seed: int) -> list[str]:
    """The names ordered by their hash, so that adding tasks changes the split only a little."""
    return sorted(names, key=lambda name: random_rank(name, seed))


def _reason_unusable(task: Task, settings: VisitSettings) -> str | None:
    shortest = min(settings.schedule)
    if settings.most_labels and len(task.labels) > settings.most_labels:
        return f"{len(task.labels)} labels; most_labels is {settings.most_labels}"
    if len(task.train) < shortest:
        return f"{len(task.train)} training rows; the shortest prompt needs {shortest}"
    if len(task.test) < settings.query:
        return f"{len(task.test)} test rows; query is {settings.query}"
    return None
