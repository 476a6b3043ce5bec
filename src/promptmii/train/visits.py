"""Visits: each is a task with examples sampled for the generator, and query rows that only the reward sees.

A sample depends only on the run's seed, the visit's number and the task. So all processes and a resumed run sample the
same rows, and the reward can sample them again instead of receiving them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from math import floor

from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import hide_names, rename_labels, sort_by_name
from promptmii.errors import ConfigError, DataError
from promptmii.inducers.writing import Writer
from promptmii.messages import counted
from promptmii.models.base import Message
from promptmii.styles import OURS, Style, read_style
from promptmii.task import Episode, Example, Support, Task, content_key
from promptmii.train.paper import TRL
from promptmii.train.settings import BestOfSettings, TrainSettings, VisitSettings
from promptmii.train.tasks import TaskSplit

REDRAWS = 8
"""Attempts to sample examples that fit the prompt."""
CACHED_VISITS = 2048
"""Visits to cache, enough for a rollout: each is needed once per draft and again for the reward."""


@dataclass(frozen=True)
class Visit:
    """One visit to a task: the generator's prompt, and the rows to score its drafts on."""

    number: int
    scheduled: int
    """Number of examples that the schedule asks for."""
    episode: Episode
    """Its support holds only the examples that fit the prompt."""
    chat: tuple[Message, ...]

    @property
    def shortened(self) -> bool:
        """It has fewer examples than scheduled, because of the prompt's limit or the task's size."""
        return len(self.episode.support.examples) < self.scheduled


def style_of(settings: TrainSettings | BestOfSettings) -> Style:
    """The style of the generator's prompts in training, validation and later use.

    Raises `ConfigError` for an unknown style, a template that cannot be read, or a template with an imported style.
    """
    style = read_style(settings.style or OURS, settings.template)
    longest = int(settings.trl.get("max_completion_length", TRL["max_completion_length"]))  # where a draft is cut
    return style.model_copy(update={"longest": longest, "longest_prompt": settings.longest_prompt})


PlannedVisit = tuple[int, int]
"""The index of a task, and a number of examples."""


class Visits:
    """The endless sequence of visits: pass after pass over the tasks, each in a new order."""

    def __init__(self, tasks: Sequence[Task], settings: VisitSettings, writer: Writer) -> None:
        """`writer` renders the prompts as it does for users (`inducers.MetaInducer`)."""
        self._tasks = tasks
        self._settings = settings
        self._writer = writer
        self._plan: list[PlannedVisit] = []
        self._passes = passes(len(tasks), settings)
        self._fits = cache(self._fits_prompt)
        self.visit = lru_cache(CACHED_VISITS)(self._visit)
        """The visit with a number, counted from 0."""

    @property
    def per_pass(self) -> float:
        """Average visits per pass. Raises `DataError` if a pass has none."""
        if self._settings.fixed:
            return len(self._usable(next(passes(len(self._tasks), self._settings))))
        return len(self._tasks) * sum(self._settings.schedule.values())

    def _fits_prompt(self, planned: PlannedVisit) -> bool:
        """True if all examples of a fixed visit fit the prompt."""
        index, n = planned
        _, _, support = _sample(self._tasks[index], n, 0, self._settings, 0)
        try:
            return len(self._writer.fit(support)[0]) == len(support.examples)
        except ConfigError:
            return False

    def _usable(self, planned: list[PlannedVisit]) -> list[PlannedVisit]:
        """The visits of a pass without those dropped as overlong. Raises `DataError` if every pass is empty."""
        usable = list(filter(self._fits, planned)) if self._settings.overlong == "drop" else planned
        if self._settings.fixed and not usable:
            raise DataError(
                f"No visit is left of a pass over {counted(len(self._tasks), 'task')}. Either no visit's examples fit "
                "the prompt (raise longest_prompt, or set overlong = 'shorten'), or every share of schedule is less "
                "than one task."
            )
        return usable

    def _visit(self, number: int) -> Visit:
        while len(self._plan) <= number:
            self._plan += self._usable(next(self._passes))
        index, n = self._plan[number]
        return draw_visit(self._tasks[index], n, number, self._settings, self._writer)


def draw_visit(task: Task, n: int, number: int, settings: VisitSettings, writer: Writer) -> Visit:
    """Draw a visit with n examples. Raises `ConfigError` if no example of the task fits the prompt: see `readable`."""
    seed = 0
    for attempt in range(REDRAWS):
        seed, shown, support = _sample(task, n, number, settings, attempt)
        try:
            examples, _ = writer.fit(support)
            break
        except ConfigError:
            continue  # other examples may fit
    else:
        shown, shortest = shortest_support(task, settings)
        examples, _ = writer.fit(shortest)
    support = Support(shown.labels, examples)
    episode = Episode(task.name, support, _query(shown, settings, seed), seed)
    return Visit(number, n, episode, (writer.request(support, examples),))


def _sample(task: Task, n: int, number: int, settings: VisitSettings, attempt: int) -> tuple[int, Task, Support]:
    """The seed of an attempt, the task as shown, and the sampled examples."""
    origin = [settings.seed, "fixed", n] if settings.fixed else [settings.seed, number]
    seed = int(content_key([*origin, task.name, attempt])[:12], 16)
    shown = _view(task, n, settings, seed)
    size = min(n, len(shown.train))
    if settings.draw == "spread":
        return seed, shown, draw_support(shown, size, seed)
    examples = random.Random(f"support:{seed}").sample(shown.train, size)
    return seed, shown, Support(shown.labels, tuple(examples))


def _query(shown: Task, settings: VisitSettings, seed: int) -> tuple[Example, ...]:
    """The rows to score on. With `fixed`, they do not depend on the number of examples."""
    if settings.fixed:
        seed = int(content_key([settings.seed, "fixed", shown.name])[:12], 16)
    if settings.draw == "spread":
        return draw_query(shown, settings.query, seed)
    return tuple(random.Random(f"query:{seed}").sample(shown.test, min(settings.query, len(shown.test))))


def _view(task: Task, n: int, settings: VisitSettings, seed: int) -> Task:
    """The task as a visit shows it: with few labels if so set, and sometimes with hidden label names.

    At most n labels are shown, because a label without an example could only be guessed.
    """
    rng = random.Random(f"view:{seed}")
    labels = list(task.labels)
    if settings.few_labels:
        candidates = _test_labels(task)
        most = min(len(candidates), max(n, 2))
        low, high = (min(bound, most) for bound in settings.few_labels)
        labels = sorted(rng.sample(candidates, rng.randint(low, high)), key=labels.index)
    if rng.random() < settings.nameless:
        return rename_labels(task, sort_by_name(hide_names(labels, rng)))
    return task if len(labels) == len(task.labels) else rename_labels(task, {label: label for label in labels})


def shortest_support(task: Task, settings: VisitSettings) -> tuple[Task, Support]:
    """The task with as few labels as a visit may show, and its shortest example alone as the support.

    Raises `DataError` if a visit can show no example or too few labels.
    """
    labels = task.labels if settings.few_labels is None else _test_labels(task)
    rows = [row for row in task.train if row.label in labels]
    if not rows:
        raise DataError("no training row has a label of the test rows, and few_labels shows no others")
    example = min(rows, key=lambda row: len(row.text))
    if settings.few_labels is None:
        return task, Support(task.labels, (example,))
    others = [label for label in labels if label != example.label][: settings.few_labels[0] - 1]
    shown = rename_labels(task, {label: label for label in labels if label in (example.label, *others)})
    return shown, Support(shown.labels, (example,))


def _test_labels(task: Task) -> list[str]:
    """The labels that the test rows have, in the task's order."""
    present = {example.label for example in task.test}
    return [label for label in task.labels if label in present]


def readable(split: TaskSplit, settings: VisitSettings, writer: Writer) -> TaskSplit:
    """Skip tasks that have no example that fits the prompt. `Visits` relies on this.

    Raises `DataError` if no training task is left.
    """
    reasons: dict[str, str] = {}
    all_labels = settings.model_copy(update={"few_labels": None})  # validation shows all labels
    for tasks, shown in ((split.train, settings), (split.validation, all_labels)):
        for task in tasks:
            try:
                writer.fit(shortest_support(task, shown)[1])
            except (ConfigError, DataError) as error:  # no example fits, or the test rows have too few labels to show
                reasons[task.name] = f"{task.name}: {error}"
    train = tuple(task for task in split.train if task.name not in reasons)
    validation = tuple(task for task in split.validation if task.name not in reasons)
    if not train:
        reason = next(iter(reasons.values()))
        raise DataError(f"No task has an example that fits the generator's prompt: raise longest_prompt. {reason}")
    return TaskSplit(train, validation, (*split.skipped, *reasons.values()))


def passes(tasks: int, settings: VisitSettings) -> Iterator[list[PlannedVisit]]:
    """Endless passes over the tasks.

    A fractional number of tasks is rounded up with the probability of its fraction, so that even a few tasks follow
    the schedule on average. `fixed` passes round down, and differ only in their order.
    """
    seed, fixed = settings.seed, settings.fixed
    for number in count():
        rng = random.Random(f"pass:{seed}:{0 if fixed else number}")
        visits: list[PlannedVisit] = []
        for n, share in sorted(settings.schedule.items()):
            fraction = 0.0 if fixed else rng.random()
            visited = min(floor(tasks * share + fraction), tasks) if share < 1 else tasks
            visits += [(task, n) for task in rng.sample(range(tasks), visited)]
        (random.Random(f"order:{seed}:{number}") if fixed else rng).shuffle(visits)
        yield visits
