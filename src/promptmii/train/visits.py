"""What the generator reads at each visit: a task, a fresh draw of examples, and query rows that only the reward sees.

A draw follows from the run's seed, the visit's number and the task alone. So a resumed run draws what it would have
drawn, every process draws the same, and rows need not be sent to the reward: it draws them again.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import floor

from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import counting_up, hide, renamed
from promptmii.errors import ConfigError, DataError, counted
from promptmii.inducers.writing import Writer
from promptmii.models.base import LanguageModel, Message
from promptmii.styles import Style
from promptmii.task import Episode, Example, Support, Task, content_key
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


@dataclass(frozen=True)
class Draws:
    """How visits are drawn."""

    schedule: Mapping[int, float]
    query: int
    few_labels: tuple[int, int] | None
    nameless: float
    seed: int
    spread: bool = True
    """Over the labels; else blindly."""
    fixed: bool = False
    """The same in every pass."""
    whole: bool = False
    """A visit whose prompt is too long is left out rather than shortened."""


@dataclass(frozen=True)
class Prompting:
    """How the generator is asked, in training and validation as later when it makes instructions."""

    style: Style
    budget: int | None
    longest: int
    """Tokens after which a draft is cut."""
    longest_prompt: int

    def writer(self, model: LanguageModel) -> Writer:
        """The model, asked this way."""
        limits = {"longest": self.longest, "longest_prompt": self.longest_prompt}
        return Writer(model, self.style.model_copy(update=limits), self.budget)


class Visits:
    """All visits of a run, without end: pass after pass over the tasks, each in its own order."""

    def __init__(self, tasks: Sequence[Task], draws: Draws, writer: Writer) -> None:
        """`writer` renders the prompts, exactly as it does when instructions are made (`inducers.MetaInducer`)."""
        self._tasks = tasks
        self._draws = draws
        self._writer = writer
        self._plan: list[tuple[int, int]] = []
        self._passes = passes(len(tasks), draws.schedule, draws.seed, fixed=draws.fixed)
        self._fits = cache(self._has_room)
        self.visit = lru_cache(REMEMBERED)(self._visit)

    @property
    def per_pass(self) -> float:
        """Visits of one pass, on average. Raises `DataError` if there is none."""
        draws = self._draws
        if draws.fixed:
            return len(self._kept(next(passes(len(self._tasks), draws.schedule, draws.seed, fixed=True))))
        return len(self._tasks) * sum(draws.schedule.values())

    def _has_room(self, planned: tuple[int, int]) -> bool:
        """Whether all examples of a visit fit the prompt; asked of fixed visits, which are the same in every pass."""
        position, asked = planned
        _, _, drawn = _drawn(self._tasks[position], asked, 0, self._draws, 0)
        try:
            return len(self._writer.fit(drawn)[0]) == len(drawn.examples)
        except ConfigError:
            return False

    def _kept(self, planned: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of the visits of a pass those that are not left out. Raises `DataError` if no pass will ever have one."""
        kept = list(filter(self._fits, planned)) if self._draws.whole else planned
        if self._draws.fixed and not kept:
            raise DataError(
                f"No visit is left of a pass over {counted(len(self._tasks), 'task')}: the examples of none fit the "
                "prompt (raise longest_prompt, or set overlong = 'shorten'), or every share of schedule is less than "
                "one task."
            )
        return kept

    def _visit(self, number: int) -> Visit:
        """Visit `number`, from 0."""
        while len(self._plan) <= number:
            self._plan += self._kept(next(self._passes))
        position, asked = self._plan[number]
        task = self._tasks[position]
        return draw_visit(task, asked, number, self._draws, self._writer)


def draw_visit(task: Task, asked: int, number: int, draws: Draws, writer: Writer) -> Visit:
    """The draw of a visit. Raises `ConfigError` where not one example of the task fits the prompt: see `readable`."""
    seed = 0
    for attempt in range(REDRAWS):
        seed, seen, drawn = _drawn(task, asked, number, draws, attempt)
        try:
            fitted, _ = writer.fit(drawn)
            break
        except ConfigError:
            continue  # none of these examples fits; others may
    else:
        seen, alone = least(task, draws)
        fitted, _ = writer.fit(alone)
    support = Support(seen.labels, fitted)
    return Visit(
        number,
        asked,
        Episode(task.name, support, _query(seen, draws, seed), seed),
        (writer.ask(support, fitted),),
    )


def _drawn(task: Task, asked: int, number: int, draws: Draws, attempt: int) -> tuple[int, Task, Support]:
    """The seed of a draw, the task as it is shown, and the examples."""
    place = [draws.seed, "fixed", asked] if draws.fixed else [draws.seed, number]
    seed = int(content_key([*place, task.name, attempt])[:12], 16)
    seen = view(task, asked, draws, seed)
    size = min(asked, len(seen.train))
    if draws.spread:
        return seed, seen, draw_support(seen, size, seed)
    return seed, seen, Support(seen.labels, tuple(random.Random(f"support:{seed}").sample(seen.train, size)))


def _query(seen: Task, draws: Draws, seed: int) -> tuple[Example, ...]:
    """The rows to score on. Fixed ones are the same however many examples were asked for."""
    own = int(content_key([draws.seed, "fixed", seen.name])[:12], 16) if draws.fixed else seed
    if draws.spread:
        return draw_query(seen, draws.query, own)
    return tuple(random.Random(f"query:{own}").sample(seen.test, min(draws.query, len(seen.test))))


def view(task: Task, asked: int, draws: Draws, seed: int) -> Task:
    """The task as a visit shows it: some of its labels, perhaps without their names.

    Of few labels there are no more than the examples asked for: what no example shows could only be invented.
    """
    stream = random.Random(f"view:{seed}")
    labels = list(task.labels)
    if draws.few_labels:
        known = _tested(task)
        low, high = (min(bound, len(known), max(asked, 2)) for bound in draws.few_labels)
        labels = sorted(stream.sample(known, stream.randint(low, high)), key=labels.index)
    if stream.random() < draws.nameless:
        shown = counting_up(hide(labels, stream))
    elif len(labels) == len(task.labels):
        return task
    else:
        shown = {label: label for label in labels}
    return renamed(task, shown)


def least(task: Task, draws: Draws) -> tuple[Task, Support]:
    """The task as the shortest of its visits could show it, and the one example with the fewest characters."""
    labels = task.labels if draws.few_labels is None else _tested(task)
    example = min((e for e in task.train if e.label in labels), key=lambda e: len(e.text))
    if draws.few_labels is None:
        return task, Support(task.labels, (example,))
    others = [label for label in labels if label != example.label][: draws.few_labels[0] - 1]
    shown = renamed(task, {label: label for label in labels if label in (example.label, *others)})
    return shown, Support(shown.labels, (example,))


def _tested(task: Task) -> list[str]:
    """The labels that occur in the test part."""
    tested = {example.label for example in task.test}
    return [label for label in task.labels if label in tested]


def readable(split: TaskSplit, draws: Draws, writer: Writer) -> TaskSplit:
    """The split, with tasks of which no example fits the prompt among the skipped ones.

    Raises `DataError` if none is left to learn from. Every command that draws visits calls it first: `Visits` takes for
    granted that one example of each task fits.
    """
    reasons: dict[str, str] = {}
    whole = replace(draws, few_labels=None)  # as validation shows a task
    for task, shown in (*((task, draws) for task in split.train), *((task, whole) for task in split.validation)):
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


def passes(
    tasks: int, schedule: Mapping[int, float], seed: int, *, fixed: bool = False
) -> Iterator[list[tuple[int, int]]]:
    """Pass after pass, the number of the task and of the examples of each visit.

    A share that is no whole number of tasks is rounded up as often as its fraction says, so few tasks follow it too.
    `fixed` passes are the same but for their order, and round down.
    """
    number = 0
    while True:
        stream = random.Random(f"pass:{seed}:{0 if fixed else number}")
        visits: list[tuple[int, int]] = []
        for n, share in sorted(schedule.items()):
            more = 0.0 if fixed else stream.random()
            count = min(floor(tasks * share + more), tasks) if share < 1 else tasks
            visits += [(task, n) for task in stream.sample(range(tasks), count)]
        (random.Random(f"order:{seed}:{number}") if fixed else stream).shuffle(visits)
        yield visits
        number += 1
