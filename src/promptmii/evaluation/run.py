"""Run the cells of a grid that are not recorded yet, and record them."""

from contextlib import closing
from functools import partial
from pathlib import Path

from promptmii.config import Endpoint
from promptmii.evaluation.bench import Bench
from promptmii.evaluation.cluster import RayExecutor
from promptmii.evaluation.plan import EvaluateSettings, grid_tasks, plan, references
from promptmii.files import locked, write_text
from promptmii.models.base import ModelCard
from promptmii.models.cache import forget
from promptmii.progress import QUIET, Progress
from promptmii.records import Record, Recorder, Run
from promptmii.serving import served
from promptmii.styles import split_style


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


def _executor(settings: EvaluateSettings, endpoint: Endpoint, folder: Path) -> Bench | RayExecutor:
    settings = settings.model_copy(update={"endpoint": endpoint})
    return RayExecutor(settings, settings.ray, folder) if settings.ray else Bench(settings, folder)


def is_open(record: Record | None, retry_failed: bool) -> bool:
    """A cell with this record is still to be run."""
    return record is None or (retry_failed and record.status == "failed")
