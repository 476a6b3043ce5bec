"""Long jobs, one after another in one thread, watched and cancelled from others.

A reloaded page finds its job by its key. A job is the `Progress` of its own work.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from promptmii.errors import PromptMIIError
from promptmii.progress import Progress, Unit

State = Literal["waiting", "running", "done", "failed", "cancelled"]

LOOK = 0.12
"""Seconds between two looks at a job."""
TICK = 1.0
"""Seconds after which the clock of a step is refreshed."""
BRIEF = 0.05
"""Steps below this many seconds are not worth showing."""


class Cancelled(BaseException):
    """Raised inside work that must stop. No `except Exception` swallows it."""


@dataclass
class Step:
    """One step of a job."""

    name: str
    total: int | None
    unit: Unit
    done: int = 0
    there: int = 0
    """Units done before it began, such as the bytes of a resumed download."""
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """Since it began, or until it ended."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def share(self) -> float | None:
        """How much is finished, from 0 to 1; `None` if unknown."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def left(self) -> float | None:
        """Seconds left at the pace so far; `None` if unknown."""
        new = self.done - self.there
        return (self.total - self.done) * self.seconds / new if self.total and new > 0 else None


class Job(Progress):
    """A piece of work, its progress and its results. Its thread writes, others read.

    What its work tells it raises `Cancelled` once it is to stop.
    """

    def __init__(self, key: str, about: str, work: "Callable[[Job], Any]") -> None:
        """`about` is the trial on whose page it is shown."""
        self.key = key
        self.about = about
        self.state: State = "waiting"
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.found: list[Any] = []
        """Results to show while the work goes on."""
        self.spent: float | None = None
        """Money spent, if prices are known."""
        self.failure = ""
        self.result: Any = None
        self.version = 0
        """Grows with every change."""
        self.finished = threading.Event()
        self._work = work
        self._stop = threading.Event()

    @property
    def live(self) -> bool:
        """It waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def shown(self) -> list[Step]:
        """The steps, without those that ended at once."""
        return [step for step in self.steps if step is self.steps[-1] or step.total or step.seconds > BRIEF]

    @property
    def stopping(self) -> bool:
        """It was cancelled but still runs."""
        return self.live and self._stop.is_set()

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        self._end_step()
        self.steps.append(Step(name, total, unit))
        self._changed()

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:  # noqa: ARG002
        if self.steps:
            step = self.steps[-1]
            if not step.done and step.seconds < BRIEF:
                step.there = amount
            step.done += amount
        if money is not None:
            self.spent = (self.spent or 0.0) + money
        self._changed()

    def note(self, message: str) -> None:
        self.notes.append(message)
        self._changed()

    def show(self, *results: Any) -> None:
        """Publish partial results."""
        self.found += results
        self._changed()

    def cancel(self) -> None:
        """Stop at the next word, batch or step."""
        self._stop.set()
        self.version += 1

    def run(self) -> None:
        """Do the work and record the outcome. Work cancelled before it begins ends at once."""
        try:
            self.state = "running"
            self.version += 1
            self.result = self._work(self)
            self.state = "done"
        except Cancelled:
            self.state = "cancelled"
        except PromptMIIError as error:
            self.failure, self.state = str(error), "failed"
        except Exception as error:  # a bug: the page names it, the terminal shows where, and the thread goes on
            logging.getLogger(__name__).exception("%s failed", self.key)
            self.failure, self.state = f"{type(error).__name__}: {error}", "failed"
        finally:
            self._end_step()
            self.version += 1
            self.finished.set()

    def _changed(self) -> None:
        self.version += 1
        if self._stop.is_set():
            raise Cancelled

    def _end_step(self) -> None:
        if self.steps and self.steps[-1].ended is None:
            self.steps[-1].ended = time.monotonic()


async def watch(job: Job | None, html: Callable[[Job], str]) -> AsyncGenerator[str]:
    """Server-sent events: `job` with a piece of the page whenever the job changes, then its last state, and `ended`."""
    seen, sent = -1, 0.0
    while job:
        live = job.live  # read first: what is sent after the end is the whole
        if job.version != seen or time.monotonic() - sent > TICK:
            seen, sent = job.version, time.monotonic()
            yield _event("job", await run_in_threadpool(html, job))
        if not live:
            yield _event(job.state)
            break
        await asyncio.sleep(LOOK)
    yield _event("ended")


def _event(name: str, html: str = "") -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


class Jobs:
    """The working thread, and its jobs, finished ones included."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._loop, daemon=True).start()

    def start(self, key: str, about: str, work: Callable[[Job], Any]) -> Job:
        """Queue a job."""
        job = self._jobs[key] = Job(key, about, work)
        self._queue.put(job)
        return job

    def of(self, key: str) -> Job | None:
        """The job of that key, if this process started it."""
        return self._jobs.get(key)

    @property
    def live(self) -> list[Job]:
        """Jobs that wait or run."""
        return [job for job in self._jobs.values() if job.live]

    def _loop(self) -> None:
        while True:
            self._queue.get().run()
