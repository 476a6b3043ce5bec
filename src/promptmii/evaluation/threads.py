"""Several cells at once in one process."""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence

from promptmii.evaluation.bench import Bench, Outcome
from promptmii.evaluation.grid import Job
from promptmii.task import Task


def on_threads(bench: Bench, jobs: Sequence[Job], tasks: Mapping[str, Task], workers: int) -> Iterator[Outcome]:
    """Outcomes as they finish. An error of one thread is raised here, and ends the others after their cell."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        while not stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put(bench.run(job, tasks[job.cell.task]))
            except BaseException as error:
                finished.put(error)

    # Daemons, so that an interrupted program does not wait for answers that nobody will read.
    for _ in range(min(workers, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in jobs:
            outcome = finished.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stopped.set()
