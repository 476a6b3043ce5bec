"""The same grid on a Ray cluster: one bench per worker process, one writer on the driver.

Workers hold models, not results: an outcome is sent to the driver as soon as it is there, and what a lost worker had
not sent is given to another. The requests under way to servers are limited in sum, each worker having its share.
"""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.errors import ModelError, PromptMIIError
from promptmii.evaluation.bench import Bench, Outcome
from promptmii.evaluation.plan import Job
from promptmii.evaluation.settings import EvaluateSettings
from promptmii.models.base import ModelCard
from promptmii.models.http.config import addresses
from promptmii.ray_cluster import RayActors
from promptmii.task import Task

CHUNK = 16
"""Cells that a worker is given at a time: enough to write for several at once, few enough to end together."""
LOST_WORKERS = 8
"""More than this many lost in a row, without one outcome between them, is no accident."""


class RemoteBench:
    """What runs in a worker process. `settings` come as JSON, so that workers validate what they are given."""

    def __init__(self, settings: str, folder: str, cpus: float) -> None:
        """Models are loaded at their first use."""
        self._settings = EvaluateSettings.model_validate_json(settings)
        _use_cores(cpus)
        # Machines without a shared file system do not see the run folder, and remember nothing.
        self._bench = Bench(self._settings, Path(folder) if Path(folder).is_dir() else None)

    def card(self, reference: str) -> ModelCard | PromptMIIError:
        """The card of a model, or why there is none."""
        try:
            return self._bench.model(reference).card
        except PromptMIIError as error:
            return error

    def run(self, jobs: Sequence[Job], tasks: Mapping[str, Task]) -> Iterator[Outcome]:
        """Outcomes as they finish."""
        yield from self._bench.run(jobs, tasks)


def _use_cores(cpus: float) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(max(1, int(cpus)))


class Cluster:
    """Workers on a Ray cluster; a `Workplace`."""

    def __init__(self, settings: EvaluateSettings, options: RayOptions, folder: Path) -> None:
        """Connects to the cluster, or starts one here. Raises `ConfigError` where it is not there or too small."""
        share = max(1, settings.endpoint.concurrency // options.workers)
        # The environment of a worker elsewhere is another one.
        servers = ",".join(addresses(settings.endpoint.base_url))
        endpoint = settings.endpoint.model_copy(update={"concurrency": share, "base_url": servers})
        workers_settings = settings.model_copy(update={"endpoint": endpoint}).model_dump_json()
        self._benches = RayActors(options, RemoteBench, workers_settings, str(folder.absolute()), options.cpus)

    def close(self) -> None:
        """End the workers, and the cluster where it was started here."""
        self._benches.close()

    def card(self, reference: str) -> ModelCard:
        """What is known of a model. Raises `ModelError`."""
        card: ModelCard | PromptMIIError = self._benches.ray.get(self._benches.actors[0].card.remote(reference))
        if isinstance(card, PromptMIIError):
            raise card
        return card

    def run(self, jobs: Sequence[Job], tasks: Mapping[str, Task]) -> Generator[Outcome]:
        """Outcomes as they arrive. Raises `ModelError` when workers die one after the other."""
        chunks = deque(_chunks(jobs))
        ray, idle = self._benches.ray, deque(self._benches.actors)
        running: dict[Any, tuple[Any, dict[str, Job]]] = {}
        lost = 0
        while chunks or running:
            while chunks and idle:
                chunk, bench = chunks.popleft(), idle.popleft()
                wanted = {job.cell.task: tasks[job.cell.task] for job in chunk}
                stream = bench.run.options(num_returns="streaming").remote(chunk, wanted)
                running[stream] = (bench, {job.key: job for job in chunk})
            (stream, *_), _ = ray.wait(list(running), num_returns=1)
            bench, open_jobs = running[stream]
            try:
                outcome: Outcome = ray.get(next(stream))
            except StopIteration:
                del running[stream]
                idle.append(bench)
            except ray.exceptions.RayActorError as error:
                del running[stream]
                lost += 1
                if lost > LOST_WORKERS:
                    raise ModelError(
                        f"{lost} workers died without a finished cell between them; the last: {error}"
                    ) from error
                chunks.append(list(open_jobs.values()))
                idle.append(self._benches.add())
            else:
                lost = 0
                del open_jobs[outcome.record.key]
                yield outcome


def _chunks(jobs: Sequence[Job]) -> list[list[Job]]:
    return [list(jobs[first : first + CHUNK]) for first in range(0, len(jobs), CHUNK)]
