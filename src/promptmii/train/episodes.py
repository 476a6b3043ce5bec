"""What the generator reads at each visit: a task, a fresh draw of examples, and query rows that only the reward sees.

A visit's draw follows from the run's seed, its number and the task alone. So a resumed run draws what it would have drawn, every process
of a large run draws the same, and rows need not be shipped to the reward: it draws them again.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor

from promptmii.data import draw_query, draw_support
from promptmii.errors import ConfigError
from promptmii.inducers.writing import Writer
from promptmii.models.base import Message
from promptmii.task import Episode, Support, Task, content_key
from promptmii.train.config import TrainSettings

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


class Deck:
    """All visits of a run, without end: pass after pass over the tasks, each in its own order."""

    def __init__(self, tasks: Sequence[Task], settings: TrainSettings, writer: Writer) -> None:
        """`writer` renders the prompts, exactly as it does when instructions are made (`inducers.MetaInducer`)."""
        self._tasks = tasks
        self._settings = settings
        self._writer = writer
        self._plan: list[tuple[int, int]] = []
        self._passes = plan(len(tasks), settings.schedule, settings.seed)
        self.visit = lru_cache(REMEMBERED)(self._visit)

    @property
    def per_pass(self) -> float:
        """Visits of one pass, on average."""
        return len(self._tasks) * sum(self._settings.schedule.values())

    def _visit(self, number: int) -> Visit:
        """Visit `number`, from 0."""
        while len(self._plan) <= number:
            self._plan += next(self._passes)
        position, asked = self._plan[number]
        task = self._tasks[position]
        return draw_visit(task, asked, number, self._settings, self._writer)


def draw_visit(task: Task, asked: int, number: int, settings: TrainSettings, writer: Writer) -> Visit:
    """The draw of a visit. Raises `ConfigError` where not one example of the task fits the prompt: see `readable`."""
    seed = 0
    for attempt in range(REDRAWS):
        seed = int(content_key([settings.seed, number, task.name, attempt])[:12], 16)
        drawn = draw_support(task, min(asked, len(task.train)), seed)
        try:
            fitted, _ = writer.fit(drawn)
            break
        except ConfigError:
            continue  # the first example alone is too long; others may not be
    else:
        fitted, _ = writer.fit(shortest(task))
    support = Support(task.labels, fitted)
    return Visit(number, asked, Episode(task.name, support, draw_query(task, settings.query, seed), seed), (writer.ask(support, fitted),))


def shortest(task: Task) -> Support:
    """The one example with the fewest characters."""
    return Support(task.labels, (min(task.train, key=lambda example: len(example.text)),))


def readable(tasks: Sequence[Task], writer: Writer) -> tuple[list[Task], list[str]]:
    """The tasks of which at least one example fits the generator's prompt, and a reason for each other."""
    kept: list[Task] = []
    skipped: list[str] = []
    for task in tasks:
        try:
            writer.fit(shortest(task))
            kept.append(task)
        except ConfigError as error:
            skipped.append(f"{task.name}: {error}")
    return kept, skipped


def plan(tasks: int, schedule: Mapping[int, float], seed: int) -> Iterator[list[tuple[int, int]]]:
    """Pass after pass, the number of the task and of the examples of each visit.

    A share of the tasks that is no whole number is rounded up as often as its fraction says, so that few tasks follow the schedule too.
    """
    number = 0
    while True:
        stream = random.Random(f"pass:{seed}:{number}")
        visits: list[tuple[int, int]] = []
        for n, share in sorted(schedule.items()):
            count = min(floor(tasks * share + stream.random()), tasks) if share < 1 else tasks
            visits += [(task, n) for task in stream.sample(range(tasks), count)]
        stream.shuffle(visits)
        yield visits
        number += 1
