"""Runs what is not recorded yet, and records it."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from promptmii.config import EvaluateSettings
from promptmii.evaluation.bench import Bench, Outcome
from promptmii.evaluation.grid import Job, plan, read_tasks, references
from promptmii.instruction import write_text
from promptmii.records import Record, Run, writing
from promptmii.task import Task

Report = Callable[[Record, int, int], None]
"""Told of each finished cell: its record, how many are finished, how many there are to do."""


def unheard(_record: Record, _finished: int, _total: int) -> None:
    """The default report."""


def evaluate(
    settings: EvaluateSettings,
    folder: Path,
    *,
    retry_failed: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    report: Report = unheard,
) -> Run:
    """Run the grid into a run folder; what is recorded there is not run again, unless it failed and `retry_failed` is set.

    Raises `DataError`, `ConfigError` and `ModelError` before the first cell, and `OutputError` where the folder cannot be written or
    another process writes to it. A cell that fails is recorded as failed and stops nothing.
    """
    progress("Reading the tasks")
    tasks = read_tasks(settings)
    with writing(folder) as writer:
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        known = Run.read(folder).records
        bench = Bench(settings, folder)
        cards = {}
        for reference in references(settings):
            progress(f"Loading {reference}")
            cards[reference] = bench.model(reference).card
        todo = [job for job in plan(settings, tasks, cards) if _is_open(known.get(job.key), retry_failed)]
        for finished, outcome in enumerate(on_threads(bench, todo, tasks, settings.workers), 1):
            writer.add(outcome.record, outcome.query)
            report(outcome.record, finished, len(todo))
        return Run.read(folder)


def _is_open(record: Record | None, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record.status == "failed")


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
