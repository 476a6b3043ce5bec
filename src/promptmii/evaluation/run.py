"""Run the cells of a grid that are not recorded yet, in this process or on a Ray cluster, and record them.

Workers of a cluster hold models, not results: a finished cell goes to the driver at once. Ray restarts a worker that
dies and runs its open cells again. The workers share the limit of concurrent requests.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from promptmii.config import Endpoint, RayOptions
from promptmii.errors import ModelError, PromptMIIError
from promptmii.evaluation.bench import Bench, FinishedCell
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell, grid_tasks, plan, references
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

RESTARTS = 8
"""A worker that dies more often does not do so by accident."""


def evaluate(
    settings: EvaluateSettings,
    folder: Path,
    *,
    retry_failed: bool = False,
    forget_answers: bool = False,
    progress: Progress = QUIET,
) -> Run:
    """Run the cells of the grid that the run folder does not hold yet, and with `retry_failed` those that failed.

    With `forget_answers` the kept answers of models are deleted first, so unfinished cells pay for theirs again.

    Raises `DataError`, `ConfigError` and `ModelError` before the first cell and then leaves no new folder behind, and
    `OutputError` if the folder cannot be written or another process writes to it. A failed cell is recorded as failed.
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
            for cell in cells:
                recorder.add(cell.record, cell.query)
                _tell(cell.record, progress)
        return Run.read(folder)


def _tell(record: Record, progress: Progress) -> None:
    measured = record.instruction.measured if record.instruction else None
    if measured is None:
        progress.note(f"Failed: {record.cell.name}: {record.error}")
    progress.advance(1, f"{record.cell.name}: " + (f"macro-F1 {measured.macro_f1:.3f}" if measured else "failed"))


def _executor(settings: EvaluateSettings, endpoint: Endpoint, folder: Path) -> "Bench | RayExecutor":
    settings = settings.model_copy(update={"endpoint": endpoint})
    return RayExecutor(settings, settings.ray, folder) if settings.ray else Bench(settings, folder)


def is_open(record: Record | None, retry_failed: bool) -> bool:
    """A cell with this record is still to be run."""
    return record is None or (retry_failed and record.status == "failed")


class RemoteBench:
    """The bench of a worker process. It returns errors: not all of them survive being raised across processes."""

    def __init__(self, settings: str, folder: str, cpus: float) -> None:
        """Settings come as JSON, so that the worker validates them. Models are loaded at their first use."""
        _use_cores(cpus)
        # Machines without a shared file system do not see the run folder, and remember nothing.
        known = Path(folder) if Path(folder).is_dir() else None
        self._bench = Bench(EvaluateSettings.model_validate_json(settings), known)

    def card(self, reference: str) -> ModelCard | PromptMIIError:
        """The card of a model, or why there is none."""
        try:
            return self._bench.card(reference)
        except PromptMIIError as error:
            return error

    def run(self, job: PlannedCell, task: Task) -> FinishedCell | PromptMIIError:
        """One cell. Ray calls this on several threads."""
        try:
            return self._bench.cell(job, task)
        except PromptMIIError as error:
            return error


def _use_cores(cpus: float) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(max(1, int(cpus)))


class RayExecutor:
    """Workers on a Ray cluster, in place of the one `Bench` of this process."""

    def __init__(self, settings: EvaluateSettings, options: RayOptions, folder: Path) -> None:
        """Connect to the cluster, or start one here. Raises `ConfigError` if it is missing or too small."""
        share = max(1, settings.endpoint.concurrency // options.workers)
        # The environment of a worker elsewhere is another one.
        servers = ",".join(addresses(settings.endpoint.base_url))
        endpoint = settings.endpoint.model_copy(update={"concurrency": share, "base_url": servers})
        resolved = settings.model_copy(update={"endpoint": endpoint}).model_dump_json()
        self._at_once = settings.workers
        self._benches = RayActors(
            options,
            RemoteBench,
            *(resolved, str(folder.absolute()), options.cpus),
            max_concurrency=settings.workers + 1,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        self._benches.close()

    def card(self, reference: str) -> ModelCard:
        """See `Bench`."""
        return unwrapped(self._benches.ray.get(self._benches.actors[0].card.remote(reference)))

    def run(self, jobs: Sequence[PlannedCell], tasks: Mapping[str, Task]) -> Generator[FinishedCell]:
        """See `Bench`. Raises `ModelError` if a worker keeps dying."""
        ray = self._benches.ray
        sent = {job.cell.task: ray.put(tasks[job.cell.task]) for job in jobs}
        pool = ray.util.ActorPool(self._benches.actors * self._at_once)

        def submit(bench: Any, job: PlannedCell) -> Any:
            return bench.run.remote(job, sent[job.cell.task])

        try:
            for done in pool.map_unordered(submit, jobs):
                yield unwrapped(done)
        except ray.exceptions.RayActorError as error:
            raise ModelError(f"A worker died more than {RESTARTS} times; the last time: {error}") from error
