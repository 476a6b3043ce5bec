"""The models of an evaluation, each loaded once, and the cells that run on them."""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from promptmii.calibration_kinds import READS, Reads
from promptmii.data import draw_query, draw_support
from promptmii.errors import ConfigError, DataError, EndpointError, ModelError, ScoreRefusedError
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell
from promptmii.follower import Follower
from promptmii.inducers import Kit, Writer
from promptmii.instruction import Cost, Instruction
from promptmii.machine import machine
from promptmii.models.base import LanguageModel, ModelCard
from promptmii.models.cache import Cached
from promptmii.models.threads import parallel
from promptmii.models.wrappers import for_threads
from promptmii.records import Query, Record, pack_predictions
from promptmii.schema import storable
from promptmii.scoring import Scored, score
from promptmii.styles import Style, split_style, style_for
from promptmii.task import Support, Task
from promptmii.version import VERSION


@dataclass(frozen=True)
class FinishedCell:
    """A finished cell: its record, and the labelled rows unless it failed."""

    record: Record
    query: Query | None


class Bench:
    """Runs cells in this process, several at a time."""

    def __init__(self, settings: EvaluateSettings, folder: Path | None) -> None:
        """`folder` keeps the answers of all models and the adapters of fine-tuned ones; without one nothing is kept."""
        self._settings = settings
        self._folder = folder
        self._models: dict[str, LanguageModel] = {}
        self._remembering: dict[str, LanguageModel] = {}
        self._limit = settings.endpoint.limit()
        self._lock = threading.RLock()

    def model(self, reference: str) -> LanguageModel:
        """A model, loaded at the first use. Raises `ModelError`."""
        reference, _ = split_style(reference)
        with self._lock:
            if reference not in self._models:
                self._models[reference] = for_threads(self._load(reference))
            return self._models[reference]

    def _load(self, reference: str) -> LanguageModel:
        return self._settings.endpoint.load(reference, limit=self._limit)

    def card(self, reference: str) -> ModelCard:
        """The card of a model, which is loaded for it. Raises `ModelError`."""
        return self.model(reference).card

    def close(self) -> None:
        """Close the models."""
        for model in (self._models | self._remembering).values():
            model.close()

    def run(self, jobs: Sequence[PlannedCell], tasks: Mapping[str, Task]) -> Generator[FinishedCell]:
        """Cells as they finish. An error is raised here, and ends the other cells."""
        cells = parallel(lambda job: self.cell(job, tasks[job.cell.task]), jobs, self._settings.workers)
        with closing(cells):
            for _, cell in cells:
                yield cell

    def cell(self, job: PlannedCell, task: Task) -> FinishedCell:
        """Run one cell. If it cannot be measured, record it as failed with the reason; bugs and full disks raise."""
        try:
            instruction, scored = self._measure(job, task)
        except (ConfigError, DataError, ModelError, ScoreRefusedError) as error:
            if isinstance(error, EndpointError) and error.lasting:
                raise  # no other cell can do better
            return FinishedCell(
                Record(key=job.key, cell=job.cell, status="failed", error=storable(str(error)), finished=_now()), None
            )
        query = Query.of(task.name, scored.query)
        models = [self.card(name) for name in (job.cell.generator, job.cell.follower) if name]
        record = Record(
            key=job.key,
            cell=job.cell,
            status="done",
            instruction=instruction,
            spent=Cost.of(scored.usage, self._remembered(job.cell.follower).card.price),
            query=query.key,
            answers=pack_predictions(scored.predictions, instruction.labels),
            machine=machine(),
            revisions={card.reference: card.revision for card in models},
            finished=_now(),
        )
        return FinishedCell(record, query)

    def _measure(self, job: PlannedCell, task: Task) -> tuple[Instruction, Scored]:
        cell = job.cell
        method = job.settings.method(cell.method)
        support = Support(task.labels, task.train if method.reads_all else ())
        if cell.n:
            support = draw_support(task, cell.n, cell.seed)
        kit = self._kit(job, task, Follower(self._remembered(cell.follower), cell.mode, job.calibration))
        instruction = method.inducer(kit).induce(support, seed=cell.seed)
        with self._own_follower(instruction, kit.follower) as follower:
            predictor = method.predictor(replace(kit, follower=follower), support, cell.seed)
            instruction = predictor.prepare(instruction, support)
            scored = score(predictor, instruction, draw_query(task, job.settings.evaluate))
        provenance = instruction.provenance.model_copy(
            update={"source": task.source.get("origin", ""), "version": VERSION}
        )
        return instruction.model_copy(update={"provenance": provenance}).measured_as(scored.measurement()), scored

    def _kit(self, job: PlannedCell, task: Task, follower: Follower) -> Kit:
        settings = job.settings
        model = self._remembered(job.cell.generator) if job.cell.generator else follower.model
        style = style_for(job.cell.generator, settings.template) if job.cell.generator else Style()
        return Kit(
            writer=Writer(model, style, settings.budget),
            follower=follower,
            human=task.instruction,
            adapters=(self._folder or Path()) / "adapters",
        )

    @contextmanager
    def _own_follower(self, instruction: Instruction, usual: Follower) -> Generator[Follower]:
        """The follower that the method made for its instruction, or else the usual one."""
        if instruction.follower is None:
            yield usual
            return
        model = for_threads(self._load(instruction.follower))
        with closing(Cached(model, self._folder) if self._folder else model) as model:
            # Its weights have seen the support, so the support cannot calibrate it.
            kind = "none" if READS[usual.calibration] is Reads.SUPPORT else usual.calibration
            yield Follower(model, usual.mode, kind)

    def _remembered(self, reference: str) -> LanguageModel:
        """The model with its kept answers, which are only created once a cell runs."""
        if self._folder is None:
            return self.model(reference)
        reference, _ = split_style(reference)
        with self._lock:
            if reference not in self._remembering:
                self._remembering[reference] = Cached(self.model(reference), self._folder)
            return self._remembering[reference]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
