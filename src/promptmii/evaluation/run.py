"""Run the cells of a grid that are not recorded yet, in this process or on a Ray cluster, and record them.

Cluster workers hold models but no results: they send a finished cell to the driver at once. Ray restarts workers that
die and reruns their unfinished cells. The workers share the limit of concurrent requests.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from promptmii.config import Endpoint, RayOptions
from promptmii.errors import ModelError, PromptMIIError
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell, grid_tasks, plan, references
from promptmii.evaluation.runner import CellRunner, FinishedCell
from promptmii.files import locked, write_text
from promptmii.models.base import ModelCard
from promptmii.models.cache import forget
from promptmii.models.http.config import addresses
from promptmii.progress import QUIET, Progress
from promptmii.ray_cluster import RayActors, unwrapped
from promptmii.records import Record, Recorder, Run
from promptmii.serving import served
from promptmii.styles import split_style
from promptmii.task import Task

MAX_RESTARTS = 8
"""A worker that dies more often has a systematic fault."""


def evaluate(
    settings: EvaluateSettings,
    folder: Path,
    *,
    retry_failed: bool = False,
    forget_answers: bool = False,
    progress: Progress = QUIET,
) -> Run:
    """Run the cells of the grid that the run folder lacks, and with `retry_failed` those that failed.

    Returns the records of the grid's cells, without those of other grids in the folder.

    `forget_answers` deletes the cached answers of models first, so unfinished cells pay for all their calls.

    Raises `DataError`, `ConfigError` and `ModelError` before the first cell, and then leaves no new folder behind.
    Raises `OutputError` if the folder cannot be written or another process writes to it. A cell that fails is recorded.
    """
    progress.step("Reading the tasks")
    tasks = grid_tasks(settings)
    models = [split_style(reference)[0] for reference in references(settings)]
    serving = partial(served, models, settings.serve, settings.endpoint, folder / "servers", progress, ray=settings.ray)
    with locked(folder), serving() as endpoint, closing(_executor(settings, endpoint, folder)) as executor:
        cards: dict[str, ModelCard] = {}
        for reference in references(settings):
            progress.step(f"Loading {reference}")
            cards[reference] = executor.card(reference)
        jobs = plan(settings, tasks, cards)
        if forget_answers:
            forget(folder)
        recorder = Recorder(folder)
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        todo = [job for job in jobs if is_open(recorder.run.records.get(job.key), retry_failed)]
        progress.step("Running the cells", len(todo), "cells")
        with closing(executor.run(todo, tasks)) as cells:
            for record, query in cells:
                recorder.add(record, query)
                _report(record, progress)
        run, keys = Run.read(folder), {job.key for job in jobs}
        return replace(run, records={key: record for key, record in run.records.items() if key in keys})


def _report(record: Record, progress: Progress) -> None:
    measured = record.instruction.measured if record.instruction else None
    if measured is None:
        progress.note(f"Failed: {record.cell.name}: {record.error}")
    outcome = f"macro-F1 {measured.macro_f1:.3f}" if measured else "failed"
    progress.advance(1, f"{record.cell.name}: {outcome}")


def _executor(settings: EvaluateSettings, endpoint: Endpoint, folder: Path) -> "CellRunner | RayExecutor":
    settings = settings.model_copy(update={"endpoint": endpoint})
    return RayExecutor(settings, settings.ray, folder) if settings.ray else CellRunner(settings, folder)


def is_open(record: Record | None, retry_failed: bool) -> bool:
    """Whether a cell with this record still has to run."""
    return record is None or (retry_failed and record.status == "failed")


class RemoteRunner:
    """The runner in a worker process. It returns errors, because some cannot be raised across processes."""

    def __init__(self, settings: str, folder: str, cpus: float) -> None:
        """Settings come as JSON, so that the worker validates them."""
        _use_cores(cpus)
        # A machine without a shared file system does not see the run folder, so it caches nothing.
        cache_folder = Path(folder) if Path(folder).is_dir() else None
        self._runner = CellRunner(EvaluateSettings.model_validate_json(settings), cache_folder)

    def card(self, reference: str) -> ModelCard | PromptMIIError:
        """The card of a model, or the error of loading it."""
        try:
            return self._runner.card(reference)
        except PromptMIIError as error:
            return error

    def run(self, job: PlannedCell, task: Task) -> FinishedCell | PromptMIIError:
        """Run one cell. Ray calls this on several threads."""
        try:
            return self._runner.cell(job, task)
        except PromptMIIError as error:
            return error


def _use_cores(cpus: float) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(max(1, int(cpus)))


class RayExecutor:
    """Runs cells on a Ray cluster, with the interface of `CellRunner`."""

    def __init__(self, settings: EvaluateSettings, options: RayOptions, folder: Path) -> None:
        """Connect to the cluster, or start a local one. Raises `ConfigError` if it is missing or too small."""
        share = max(1, settings.endpoint.concurrency // options.workers)
        # Remote workers have a different environment, so the address must not depend on it.
        servers = ",".join(addresses(settings.endpoint.base_url))
        endpoint = settings.endpoint.model_copy(update={"concurrency": share, "base_url": servers})
        resolved = settings.model_copy(update={"endpoint": endpoint}).model_dump_json()
        self._cells_per_worker = settings.workers
        self._runners = RayActors(
            options,
            RemoteRunner,
            resolved,
            str(folder.absolute()),
            options.cpus,
            max_concurrency=settings.workers + 1,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started here."""
        self._runners.close()

    def card(self, reference: str) -> ModelCard:
        """See `CellRunner`."""
        return unwrapped(self._runners.ray.get(self._runners.actors[0].card.remote(reference)))

    def run(self, jobs: Sequence[PlannedCell], tasks: Mapping[str, Task]) -> Generator[FinishedCell]:
        """See `CellRunner`. Raises `ModelError` if a worker keeps dying."""
        ray = self._runners.ray
        task_refs = {job.cell.task: ray.put(tasks[job.cell.task]) for job in jobs}
        pool = ray.util.ActorPool(self._runners.actors * self._cells_per_worker)

        def submit(runner: Any, job: PlannedCell) -> Any:
            return runner.run.remote(job, task_refs[job.cell.task])

        try:
            for result in pool.map_unordered(submit, jobs):
                yield unwrapped(result)
        except ray.exceptions.RayActorError as error:
            raise ModelError(f"A worker died more than {MAX_RESTARTS} times; the last time: {error}") from error
