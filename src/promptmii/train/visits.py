"""What the generator reads at each visit: a task, a fresh draw of examples, and query rows that only the reward sees.

A draw follows from the run's seed, the visit's number and the task alone. So a resumed run draws what it would have
drawn, every process draws the same, and rows need not be sent to the reward: it draws them again.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from math import floor

from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import counting_up, hide, renamed
from promptmii.errors import ConfigError, DataError, counted
from promptmii.inducers.writing import Writer
from promptmii.models.base import Message
from promptmii.styles import Style, read_style, style_for
from promptmii.task import Episode, Example, Support, Task, content_key
from promptmii.train.paper import TRL
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import TaskSplit

REDRAWS = 8
REMEMBERED = 2048
"""Draws that are kept: those of a rollout, which are asked for once per generation and once more by the reward."""


@dataclass(frozen=True)
class Visit:
    """One task as it is visited once: what the generator is asked, and what its answer is scored on."""

    number: int
    asked: int
    """Examples that the schedule asked for."""
    episode: Episode
    """Its support holds the examples that fitted."""
    chat: tuple[Message, ...]

    @property
    def shortened(self) -> bool:
        """Fewer examples than asked for, because of the prompt's limit or the task's size."""
        return len(self.episode.support.examples) < self.asked


def style_of(settings: TrainSettings) -> Style:
    """How the generator is asked, in training and validation as later when it makes instructions.

    Raises `ConfigError` for an unknown style or a template that cannot be read.
    """
    style = read_style(settings.style) if settings.style else style_for("", settings.template)
    longest = int({**TRL, **settings.trl}["max_completion_length"])  # tokens after which a draft is cut
    return style.model_copy(update={"longest": longest, "longest_prompt": settings.longest_prompt})


class Visits:
    """All visits of a run, without end: pass after pass over the tasks, each in its own order."""

    def __init__(self, tasks: Sequence[Task], settings: TrainSettings, writer: Writer) -> None:
        """`writer` renders the prompts, exactly as it does when instructions are made (`inducers.MetaInducer`)."""
        self._tasks = tasks
        self._settings = settings
        self._writer = writer
        self._plan: list[tuple[int, int]] = []
        self._passes = passes(len(tasks), settings)
        self._fits = cache(self._has_room)
        self.visit = lru_cache(REMEMBERED)(self._visit)

    @property
    def per_pass(self) -> float:
        """Visits of one pass, on average. Raises `DataError` if there is none."""
        if self._settings.fixed:
            return len(self._kept(next(passes(len(self._tasks), self._settings))))
        return len(self._tasks) * sum(self._settings.schedule.values())

    def _has_room(self, planned: tuple[int, int]) -> bool:
        """Whether all examples of a visit fit the prompt; asked of fixed visits, which are the same in every pass."""
        position, asked = planned
        _, _, drawn = _drawn(self._tasks[position], asked, 0, self._settings, 0)
        try:
            return len(self._writer.fit(drawn)[0]) == len(drawn.examples)
        except ConfigError:
            return False

    def _kept(self, planned: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of the visits of a pass those that are not left out. Raises `DataError` if no pass will ever have one."""
        kept = list(filter(self._fits, planned)) if self._settings.overlong == "drop" else planned
        if self._settings.fixed and not kept:
            raise DataError(
                f"No visit is left of a pass over {counted(len(self._tasks), 'task')}: the examples of none fit the "
                "prompt (raise longest_prompt, or set overlong = 'shorten'), or every share of schedule is less than "
                "one task."
            )
        return kept

    def _visit(self, number: int) -> Visit:
        while len(self._plan) <= number:
            self._plan += self._kept(next(self._passes))
        position, asked = self._plan[number]
        return draw_visit(self._tasks[position], asked, number, self._settings, self._writer)


def draw_visit(task: Task, asked: int, number: int, settings: TrainSettings, writer: Writer) -> Visit:
    """The draw of a visit. Raises `ConfigError` where not one example of the task fits the prompt: see `readable`."""
    seed = 0
    for attempt in range(REDRAWS):
        seed, seen, drawn = _drawn(task, asked, number, settings, attempt)
        try:
            fitted, _ = writer.fit(drawn)
            break
        except ConfigError:
            continue  # none of these examples fits; others may
    else:
        seen, alone = least(task, settings)
        fitted, _ = writer.fit(alone)
    support = Support(seen.labels, fitted)
    return Visit(
        number,
        asked,
        Episode(task.name, support, _query(seen, settings, seed), seed),
        (writer.ask(support, fitted),),
    )


def _drawn(task: Task, asked: int, number: int, settings: TrainSettings, attempt: int) -> tuple[int, Task, Support]:
    """The seed of a draw, the task as it is shown, and the examples."""
    place = [settings.seed, "fixed", asked] if settings.fixed else [settings.seed, number]
    seed = int(content_key([*place, task.name, attempt])[:12], 16)
    seen = view(task, asked, settings, seed)
    size = min(asked, len(seen.train))
    if settings.draw == "spread":
        return seed, seen, draw_support(seen, size, seed)
    return seed, seen, Support(seen.labels, tuple(random.Random(f"support:{seed}").sample(seen.train, size)))


def _query(seen: Task, settings: TrainSettings, seed: int) -> tuple[Example, ...]:
    """The rows to score on. Fixed ones are the same however many examples were asked for."""
    own = int(content_key([settings.seed, "fixed", seen.name])[:12], 16) if settings.fixed else seed
    if settings.draw == "spread":
        return draw_query(seen, settings.query, own)
    return tuple(random.Random(f"query:{own}").sample(seen.test, min(settings.query, len(seen.test))))


def view(task: Task, asked: int, settings: TrainSettings, seed: int) -> Task:
    """The task as a visit shows it: some of its labels, perhaps without their names.

    Of few labels there are no more than the examples asked for: what no example shows could only be invented.
    """
    stream = random.Random(f"view:{seed}")
    labels = list(task.labels)
    if settings.few_labels:
        known = _tested(task)
        low, high = (min(bound, len(known), max(asked, 2)) for bound in settings.few_labels)
        labels = sorted(stream.sample(known, stream.randint(low, high)), key=labels.index)
    if stream.random() < settings.nameless:
        shown = counting_up(hide(labels, stream))
    elif len(labels) == len(task.labels):
        return task
    else:
        shown = {label: label for label in labels}
    return renamed(task, shown)


def least(task: Task, settings: TrainSettings) -> tuple[Task, Support]:
    """The task as the shortest of its visits could show it, and the one example with the fewest characters."""
    labels = task.labels if settings.few_labels is None else _tested(task)
    example = min((e for e in task.train if e.label in labels), key=lambda e: len(e.text))
    if settings.few_labels is None:
        return task, Support(task.labels, (example,))
    others = [label for label in labels if label != example.label][: settings.few_labels[0] - 1]
    shown = renamed(task, {label: label for label in labels if label in (example.label, *others)})
    return shown, Support(shown.labels, (example,))


def _tested(task: Task) -> list[str]:
    """The labels that occur in the test part."""
    tested = {example.label for example in task.test}
    return [label for label in task.labels if label in tested]


def readable(split: TaskSplit, settings: TrainSettings, writer: Writer) -> TaskSplit:
    """The split, with tasks of which no example fits the prompt among the skipped ones.

    Raises `DataError` if none is left to learn from. Every command that draws visits calls it first: `Visits` takes for
    granted that one example of each task fits.
    """
    reasons: dict[str, str] = {}
    whole = settings.model_copy(update={"few_labels": None})  # as validation shows a task
    for task, shown in (*((task, settings) for task in split.train), *((task, whole) for task in split.validation)):
        try:
            writer.fit(least(task, shown)[1])
        except (ConfigError, DataError) as error:  # none fits; or few labels are shown, and all test rows have one
            reasons[task.name] = f"{task.name}: {error}"
    train, validation = (
        tuple(task for task in part if task.name not in reasons) for part in (split.train, split.validation)
    )
    if not train:
        reason = next(iter(reasons.values()))
        raise DataError(f"No task has an example that fits the generator's prompt: raise longest_prompt. {reason}")
    return TaskSplit(train, validation, (*split.skipped, *reasons.values()))


def passes(tasks: int, settings: TrainSettings) -> Iterator[list[tuple[int, int]]]:
    """Pass after pass, the number of the task and of the examples of each visit.

    A share that is no whole number of tasks is rounded up as often as its fraction says, so few tasks follow it too.
    `fixed` passes are the same but for their order, and round down.
    """
    seed, fixed = settings.seed, settings.fixed
    for number in count():
        stream = random.Random(f"pass:{seed}:{0 if fixed else number}")
        visits: list[tuple[int, int]] = []
        for n, share in sorted(settings.schedule.items()):
            more = 0.0 if fixed else stream.random()
            visited = min(floor(tasks * share + more), tasks) if share < 1 else tasks
            visits += [(task, n) for task in stream.sample(range(tasks), visited)]
        (random.Random(f"order:{seed}:{number}") if fixed else stream).shuffle(visits)
        yield visits
