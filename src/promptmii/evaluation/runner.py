"""Run the cells of an evaluation in this process, with models that are loaded once."""

import os
import platform
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from promptmii.calibration_kinds import READS, Reads
from promptmii.data import draw_query, draw_support
from promptmii.errors import ConfigError, DataError, EndpointError, ModelError, ScoreRefusedError
from promptmii.evaluation.plan import EvaluateSettings, PlannedCell
from promptmii.follower import Follower
from promptmii.inducers import Kit, Writer
from promptmii.instruction import Cost, Instruction
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

FinishedCell = tuple[Record, Query | None]
"""The record of a finished cell, and its query unless it failed."""


class CellRunner:
    """Runs cells in this process, several at a time."""

    def __init__(self, settings: EvaluateSettings, folder: Path | None) -> None:
        """`folder` caches the answers of models and stores trained adapters. Without one, nothing is cached."""
        self._settings = settings
        self._folder = folder
        self._models: dict[str, LanguageModel] = {}
        self._load = settings.endpoint.loader()
        self._lock = threading.Lock()

    def model(self, reference: str) -> LanguageModel:
        """The model, loaded at its first use. Raises `ModelError`."""
        reference, _ = split_style(reference)
        with self._lock:
            if reference not in self._models:
                self._models[reference] = self._open(reference)
            return self._models[reference]

    def _open(self, reference: str) -> LanguageModel:
        model = for_threads(self._load(reference))
        return Cached(model, self._folder) if self._folder else model

    def card(self, reference: str) -> ModelCard:
        """The card of a model. Loads the model, and raises `ModelError`."""
        return self.model(reference).card

    def close(self) -> None:
        """Close the models."""
        for model in self._models.values():
            model.close()

    def run(self, jobs: Sequence[PlannedCell], tasks: Mapping[str, Task]) -> Generator[FinishedCell]:
        """Yield cells as they finish. An error ends all cells and is raised here.

        After a refusal by a server, the other cells end by their own refusals, so that no paid answer is lost.
        """
        cells = parallel(lambda job: self.cell(job, tasks[job.cell.task]), jobs, self._settings.workers)
        with closing(cells):
            for _, cell in cells:
                yield cell

    def cell(self, job: PlannedCell, task: Task) -> FinishedCell:
        """Run one cell, and record as failed one that cannot be measured. Bugs and full disks raise."""
        try:
            instruction, scored = self._measure(job, task)
        except (ConfigError, DataError, ModelError, ScoreRefusedError) as error:
            if isinstance(error, EndpointError) and error.lasting:
                raise  # it would fail every other cell too
            message = storable(str(error))
            return Record(key=job.key, cell=job.cell, status="failed", error=message, finished=_now()), None
        query = Query.of(task.name, scored.query)
        models = [self.card(name) for name in (job.cell.generator, job.cell.follower) if name]
        record = Record(
            key=job.key,
            cell=job.cell,
            status="done",
            instruction=instruction,
            spent=Cost.of(scored.usage, self.card(job.cell.follower).price),
            query=query.key,
            answers=pack_predictions(scored.predictions, instruction.labels),
            machine=_machine(),
            revisions={card.reference: card.revision for card in models},
            finished=_now(),
        )
        return record, query

    def _measure(self, job: PlannedCell, task: Task) -> tuple[Instruction, Scored]:
        cell = job.cell
        method = job.settings.method(cell.method)
        support = Support(task.labels, task.train if method.reads_all else ())
        if cell.n:
            support = draw_support(task, cell.n, cell.seed)
        kit = self._kit(job, task, Follower(self.model(cell.follower), cell.mode, job.calibration))
        instruction = method.inducer(kit).induce(support, seed=cell.seed)
        with self._follower_of(instruction, kit.follower) as follower:
            predictor = method.predictor(replace(kit, follower=follower), support, cell.seed)
            instruction = predictor.prepare(instruction, support)
            scored = score(predictor, instruction, draw_query(task, job.settings.evaluate))
        instruction = instruction.with_provenance(source=task.source.get("origin", ""), version=VERSION)
        return instruction.measured_as(scored.measurement()), scored

    def _kit(self, job: PlannedCell, task: Task, follower: Follower) -> Kit:
        settings = job.settings
        model = self.model(job.cell.generator) if job.cell.generator else follower.model
        style = style_for(job.cell.generator, settings.template) if job.cell.generator else Style()
        return Kit(
            writer=Writer(model, style, settings.budget),
            follower=follower,
            human=task.instruction,
            adapters=(self._folder or Path()) / "adapters",
        )

    @contextmanager
    def _follower_of(self, instruction: Instruction, default: Follower) -> Generator[Follower]:
        """The follower that the method trained for its instruction, or else the default."""
        if instruction.follower is None:
            yield default
            return
        with closing(self._open(instruction.follower)) as model:
            # It was trained on the support, so the support cannot calibrate it.
            kind = "none" if READS[default.calibration] is Reads.SUPPORT else default.calibration
            yield Follower(model, default.mode, kind)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def _machine() -> str:
    """The processor, threads and memory, and the GPU if torch is loaded and has one."""
    parts = [f"{_processor()}, {os.cpu_count()} threads"]
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
