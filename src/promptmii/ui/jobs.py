"""A queue of long jobs. One thread runs them in order; other threads watch and cancel them.

A reloaded page finds its job by key. A job is the `Progress` of its own work.
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

POLL_SECONDS = 0.12
"""Interval at which a job is checked for changes."""
REFRESH_SECONDS = 1.0
"""Interval at which an unchanged job is sent again, to update its clock."""
BRIEF = 0.05
"""Steps of fewer seconds are not shown."""


class Cancelled(BaseException):
    """Raised inside cancelled work. `except Exception` does not catch it."""


def failure_message(error: Exception) -> str:
    """What the page says about an error: the message, with the type unless promptmii wrote it."""
    return str(error) if isinstance(error, PromptMIIError) else f"{type(error).__name__}: {error}"


@dataclass
class Step:
    """One step of a job."""

    name: str
    total: int | None
    unit: Unit
    done: int = 0
    resumed: int = 0
    """Units done before the step began, such as the bytes of a resumed download."""
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """The duration so far, or in total if the step has ended."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def share(self) -> float | None:
        """The finished share, from 0 to 1, or `None` if unknown."""
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far, or `None` if unknown."""
        new = self.done - self.resumed
        return (self.total - self.done) * self.seconds / new if self.total and new > 0 else None


class Job(Progress):
    """A piece of work, its progress and its results. The worker thread writes them, other threads read.

    After `cancel`, the next progress report raises `Cancelled` in the work.
    """

    def __init__(self, key: str, trial_key: str, work: "Callable[[Job], Any]") -> None:
        """`trial_key` is the trial whose page shows the job."""
        self.key = key
        self.trial_key = trial_key
        self.state: State = "waiting"
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.partial_results: list[Any] = []
        """Results to show while the job runs."""
        self.text = ""
        """The text that the job measures, for the page's form."""
        self.spent: float | None = None
        """Money spent, or `None` if prices are unknown."""
        self.failure = ""
        self.result: Any = None
        self.version = 0
        """Increases with every change."""
        self.finished = threading.Event()
        self._work = work
        self._stop = threading.Event()

    @property
    def live(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def visible_steps(self) -> list[Step]:
        """The steps, without brief ones."""
        return [step for step in self.steps if step is self.steps[-1] or step.total or step.seconds > BRIEF]

    @property
    def stopping(self) -> bool:
        """Whether the job was cancelled but still runs."""
        return self.live and self._stop.is_set()

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        self._end_step()
        self.steps.append(Step(name, total, unit))
        self._changed()

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:  # noqa: ARG002
        if self.steps:
            step = self.steps[-1]
            if not step.done and step.seconds < BRIEF:
                step.resumed = amount
            step.done += amount
        if money is not None:
            self.spent = (self.spent or 0.0) + money
        self._changed()

    def note(self, message: str) -> None:
        self.notes.append(message)
        self._changed()

    def show(self, *results: Any) -> None:
        """Publish partial results."""
        self.partial_results += results
        self._changed()

    def cancel(self) -> None:
        """Stop the work at its next progress report."""
        self._stop.set()
        self.version += 1

    def run(self) -> None:
        """Do the work and record its outcome. A job cancelled before it starts ends at its first report."""
        try:
            self.state = "running"
            self.version += 1
            self.result = self._work(self)
            self.state = "done"
        except Cancelled:
            self.state = "cancelled"
        except Exception as error:  # also a bug: show it on the page, log its traceback, and keep the thread alive
            if not isinstance(error, PromptMIIError):
                logging.getLogger(__name__).exception("%s failed", self.key)
            self.failure, self.state = failure_message(error), "failed"
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
    """Server-sent events: `job` with HTML whenever the job changes, its final state, and `ended`."""
    version, sent = -1, 0.0
    while job:
        live = job.live  # read before rendering, so that the last event shows the finished job
        if job.version != version or time.monotonic() - sent > REFRESH_SECONDS:
            version, sent = job.version, time.monotonic()
            yield _event("job", await run_in_threadpool(html, job))
        if not live:
            yield _event(job.state)
            break
        await asyncio.sleep(POLL_SECONDS)
    yield _event("ended")


def _event(name: str, html: str = "") -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


class Jobs:
    """A worker thread and all its jobs, including finished ones."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._loop, daemon=True).start()

    def start(self, key: str, trial_key: str, work: Callable[[Job], Any]) -> Job:
        """Queue a job."""
        job = self._jobs[key] = Job(key, trial_key, work)
        self._queue.put(job)
        return job

    def of(self, key: str) -> Job | None:
        """The job with this key, if this process started it."""
        return self._jobs.get(key)

    @property
    def live(self) -> list[Job]:
        """The jobs that wait or run. Another thread may start one meanwhile."""
        return [job for job in list(self._jobs.values()) if job.live]

    def _loop(self) -> None:
        while True:
            self._queue.get().run()
