"""Where datasets are fetched: processes on this machine, or a Ray cluster."""

import queue
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.corpus.listing import Candidate
from promptmii.corpus.process import Outcome, Reader
from promptmii.corpus.settings import FetchSettings
from promptmii.errors import PromptMIIError
from promptmii.files import atomic_file
from promptmii.ray_cluster import RayActors

Job = tuple[Candidate, Path]


class LocalWorkers:
    """Processes on this machine, each watched by a thread."""

    def __init__(self, settings: FetchSettings, workers: int) -> None:
        self._readers = [Reader(settings) for _ in range(workers)]

    def fetch(self, jobs: Sequence[Job]) -> Iterator[tuple[Candidate, Outcome]]:
        """Outcomes as they come. Raises `EndpointError` if the hub is down, `OutputError` if a disk is full."""
        idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        for reader in self._readers:
            idle.put(reader)

        def run(job: Job) -> tuple[Candidate, Outcome]:
            reader = idle.get()
            try:
                return job[0], reader.fetch(*job)
            finally:
                idle.put(reader)

        threads = ThreadPoolExecutor(len(self._readers))
        try:
            for future in as_completed([threads.submit(run, job) for job in jobs]):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the processes."""
        for reader in self._readers:
            reader.close()


class RemoteReader:
    """A `Reader` in an actor of a Ray cluster, which sends the sample back as bytes."""

    def __init__(self, settings: FetchSettings) -> None:
        self._reader = Reader(settings)

    def fetch(self, candidate: Candidate, name: str) -> tuple[Candidate, Outcome, bytes] | PromptMIIError:
        """What became of it, with the sample if it was kept."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            try:
                outcome = self._reader.fetch(candidate, path)
            except PromptMIIError as error:  # as a value, or Ray makes a page of it
                return error
            return candidate, outcome, path.read_bytes() if outcome.kept else b""


class RayWorkers:
    """Actors on a Ray cluster. Local data must be visible on every machine; samples come back over the network."""

    def __init__(self, settings: FetchSettings, options: RayOptions) -> None:
        """Join the cluster, or start one here. Raises `ConfigError`."""
        memory = settings.memory_mib << 20
        self._actors = RayActors(options, RemoteReader, settings, memory=memory, max_restarts=3, max_task_retries=1)

    def fetch(self, jobs: Sequence[Job]) -> Iterator[tuple[Candidate, Outcome]]:
        """See `LocalWorkers.fetch`."""
        ray = self._actors.ray
        waiting = {candidate.name: (candidate, path) for candidate, path in jobs}
        pool = ray.util.ActorPool(self._actors.actors)
        for candidate, path in jobs:
            pool.submit(_submit, (candidate, path.name))
        while pool.has_next():
            try:
                answer: tuple[Candidate, Outcome, bytes] | PromptMIIError = pool.get_next_unordered()
            except ray.exceptions.RayActorError:
                continue  # its dataset stays in `waiting`
            if isinstance(answer, PromptMIIError):
                raise answer
            candidate, outcome, sample = answer
            _, path = waiting.pop(candidate.name)
            if outcome.kept:
                with atomic_file(path) as temporary:
                    temporary.write_bytes(sample)
            yield candidate, outcome
        for candidate, _ in waiting.values():
            yield candidate, Outcome(False, "the worker that read it was lost", temporary=True)

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        self._actors.close()


def _submit(actor: Any, job: tuple[Candidate, str]) -> Any:
    return actor.fetch.remote(*job)
