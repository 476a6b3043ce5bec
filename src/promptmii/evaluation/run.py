"""Runs what is not recorded yet, and records it."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from promptmii.evaluation.bench import Bench, Outcome
from promptmii.evaluation.cluster import Cluster
from promptmii.evaluation.plan import Job, grid_tasks, plan, references
from promptmii.evaluation.settings import EvaluateSettings
from promptmii.files import write_text
from promptmii.models.base import ModelCard
from promptmii.progress import QUIET, Progress
from promptmii.records import Record, Run, writing
from promptmii.task import Task


class Workplace(Protocol):
    """Where cells are run."""

    def card(self, reference: str) -> ModelCard:
        """What is known of a model, which is loaded for it. Raises `ModelError`."""
        ...

    def run(self, jobs: Sequence[Job], tasks: Mapping[str, Task]) -> Generator[Outcome]:
        """Outcomes as they finish, in any order."""
        ...

    def close(self) -> None:
        """Give back what was taken."""
        ...


class Here:
    """This process."""

    def __init__(self, settings: EvaluateSettings, folder: Path) -> None:
        self._bench = Bench(settings, folder)

    def card(self, reference: str) -> ModelCard:
        """See `Workplace`."""
        return self._bench.model(reference).card

    def run(self, jobs: Sequence[Job], tasks: Mapping[str, Task]) -> Generator[Outcome]:
        """See `Workplace`."""
        return self._bench.run(jobs, tasks)

    def close(self) -> None:
        """See `Workplace`."""
        self._bench.close()


def evaluate(
    settings: EvaluateSettings,
    folder: Path,
    *,
    retry_failed: bool = False,
    progress: Progress = QUIET,
) -> Run:
    """Run the grid into a run folder; what is recorded there is not run again, unless it failed and `retry_failed` is set.

    Raises `DataError`, `ConfigError` and `ModelError` before the first cell, and `OutputError` where the folder cannot be written or
    another process writes to it. A cell that fails is recorded as failed and stops nothing.
    """
    progress.step("Reading the tasks")
    tasks = grid_tasks(settings)
    with writing(folder) as writer, closing(_workplace(settings, folder)) as place:
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        cards: dict[str, ModelCard] = {}
        for reference in references(settings):
            progress.step(f"Loading {reference}")
            cards[reference] = place.card(reference)
        known = Run.read(folder).records
        todo = [job for job in plan(settings, tasks, cards) if is_open(known.get(job.key), retry_failed)]
        progress.step("Running the cells", len(todo), "cells")
        with closing(place.run(todo, tasks)) as outcomes:
            for outcome in outcomes:
                writer.add(outcome.record, outcome.query)
                _tell(outcome.record, progress)
        return Run.read(folder)


def _tell(record: Record, progress: Progress) -> None:
    measured = record.instruction.measured if record.instruction else None
    if measured is None:
        progress.note(f"Failed: {record.cell.name}: {record.error}")
    progress.advance(1, f"{record.cell.name}: " + (f"macro-F1 {measured.macro_f1:.3f}" if measured else "failed"))


def _workplace(settings: EvaluateSettings, folder: Path) -> Workplace:
    return Cluster(settings, settings.ray, folder) if settings.ray else Here(settings, folder)


def is_open(record: Record | None, retry_failed: bool) -> bool:
    """A cell with this record is still to be run."""
    return record is None or (retry_failed and record.status == "failed")
