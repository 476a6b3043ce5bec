"""Where datasets are fetched: processes on this machine, or a Ray cluster."""

import queue
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.corpus.listing import Candidate
from promptmii.corpus.process import Fetched, Reader
from promptmii.corpus.settings import FetchSettings
from promptmii.errors import PromptMIIError
from promptmii.files import atomic_file
from promptmii.ray_cluster import RayActors

Jobs = Sequence[tuple[Candidate, Path]]


def fetch_here(jobs: Jobs, settings: FetchSettings, workers: int) -> Generator[tuple[Candidate, Fetched]]:
    """In processes on this machine, each watched by a thread. Yields what became of each dataset, as it comes.

    Raises `EndpointError` if the hub is down, `OutputError` if a disk is full.
    """
    readers = [Reader(settings) for _ in range(workers)]
    idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def run(candidate: Candidate, path: Path) -> tuple[Candidate, Fetched]:
        reader = idle.get()
        try:
            return candidate, reader.fetch(candidate, path)
        finally:
            idle.put(reader)

    threads = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([threads.submit(run, *job) for job in jobs]):
            yield future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()


class RemoteReader:
    """A `Reader` in an actor of a Ray cluster, which sends the sample back as bytes."""

    def __init__(self, settings: FetchSettings) -> None:
        self._reader = Reader(settings)

    def fetch(self, candidate: Candidate, name: str) -> tuple[Candidate, Fetched, bytes] | PromptMIIError:
        """What became of it, with the sample if it was kept."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            try:
                fetched = self._reader.fetch(candidate, path)
            except PromptMIIError as error:  # as a value, or Ray makes a page of it
                return error
            return candidate, fetched, path.read_bytes() if fetched.kept else b""


def fetch_on_ray(jobs: Jobs, settings: FetchSettings, options: RayOptions) -> Generator[tuple[Candidate, Fetched]]:
    """See `fetch_here`. Local data must be visible on every machine; samples come back over the network."""
    memory = settings.memory_mib << 20
    cluster = RayActors(options, RemoteReader, settings, memory=memory, max_restarts=3, max_task_retries=1)
    try:
        waiting = {candidate.name: path for candidate, path in jobs}
        pool: Any = cluster.ray.util.ActorPool(cluster.actors)
        for candidate, path in jobs:
            pool.submit(_fetch, (candidate, path.name))
        while pool.has_next():
            try:
                answer: tuple[Candidate, Fetched, bytes] | PromptMIIError = pool.get_next_unordered()
            except cluster.ray.exceptions.RayActorError:
                continue  # its dataset stays in `waiting`
            if isinstance(answer, PromptMIIError):
                raise answer
            candidate, fetched, sample = answer
            path = waiting.pop(candidate.name)
            if fetched.kept:
                with atomic_file(path) as temporary:
                    temporary.write_bytes(sample)
            yield candidate, fetched
        for candidate, _ in jobs:
            if candidate.name in waiting:
                yield candidate, Fetched(False, "the worker that read it was lost", temporary=True)
    finally:
        cluster.close()


def _fetch(actor: Any, job: tuple[Candidate, str]) -> Any:
    return actor.fetch.remote(*job)
