"""Where datasets are fetched: processes on this machine, or on a Ray cluster, one configuration at a time on each."""

import queue
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.data.corpus.guard import Answer, Guard
from promptmii.data.corpus.listing import Candidate
from promptmii.data.corpus.settings import FetchSettings
from promptmii.errors import PromptMIIError
from promptmii.files import atomic_file
from promptmii.ray_cluster import connect

Job = tuple[Candidate, Path]


class Here:
    """Processes on this machine, each watched by a thread."""

    def __init__(self, settings: FetchSettings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        self._guards: list[Guard] = []

    def fetch(self, jobs: Sequence[Job]) -> Iterator[tuple[Candidate, Answer]]:
        """See `stages.Fetcher`."""
        open_jobs, done = deque(jobs), queue.Queue[tuple[Candidate, Answer] | BaseException]()
        for _ in range(min(self._workers, len(jobs))):
            guard = Guard(self._settings)
            self._guards.append(guard)
            threading.Thread(target=_work, args=(guard, open_jobs, done), daemon=True).start()
        for _ in jobs:
            outcome = done.get()
            if isinstance(outcome, BaseException):
                open_jobs.clear()
                raise outcome
            yield outcome

    def close(self) -> None:
        """See `stages.Fetcher`."""
        for guard in self._guards:
            guard.close()


def _work(guard: Guard, jobs: deque[Job], done: "queue.Queue[tuple[Candidate, Answer] | BaseException]") -> None:
    while True:
        try:
            candidate, path = jobs.popleft()
        except IndexError:
            return
        try:
            done.put((candidate, guard.fetch(candidate, path)))
        except Exception as error:
            done.put(error)
            return


class RemoteGuard:
    """What runs in a worker of the cluster: the same watched process, and its sample sent back as bytes."""

    def __init__(self, settings: str) -> None:
        self._guard = Guard(FetchSettings.model_validate_json(settings))

    def fetch(self, candidate: str, name: str) -> tuple[Answer, bytes] | PromptMIIError:
        """An answer, with the sample where there is one."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            try:
                answer = self._guard.fetch(Candidate.model_validate_json(candidate), path)
            except PromptMIIError as error:
                return error
            return answer, path.read_bytes() if answer.kind == "kept" else b""


class Cluster:
    """Workers on a Ray cluster. Local data must lie where every machine sees it; samples come back over the network."""

    def __init__(self, settings: FetchSettings, options: RayOptions) -> None:
        """Connects to the cluster, or starts one here. Raises `ConfigError` where it is not there."""
        self._ray, self._leave = connect(options)
        needs = {"num_cpus": options.cpus, "memory": settings.memory_mib << 20}
        remote: Any = self._ray.remote(**needs, max_restarts=3, max_task_retries=1)(RemoteGuard)
        self._guards = [remote.remote(settings.model_dump_json()) for _ in range(options.workers)]

    def fetch(self, jobs: Sequence[Job]) -> Iterator[tuple[Candidate, Answer]]:
        """See `stages.Fetcher`."""
        open_jobs, idle, running = deque(jobs), deque(self._guards), dict[Any, tuple[Any, Job]]()
        while open_jobs or running:
            while open_jobs and idle:
                guard, job = idle.popleft(), open_jobs.popleft()
                running[guard.fetch.remote(job[0].model_dump_json(), job[1].name)] = (guard, job)
            (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
            guard, (candidate, path) = running.pop(ready)
            idle.append(guard)
            yield candidate, self._received(ready, path)

    def _received(self, ready: Any, path: Path) -> Answer:
        try:
            outcome: tuple[Answer, bytes] | PromptMIIError = self._ray.get(ready)
        except self._ray.exceptions.RayActorError as error:
            return Answer(
                "dropped", f"the worker that read it was lost: {str(error).splitlines()[0]}", {"temporary": True}
            )
        if isinstance(outcome, PromptMIIError):
            raise outcome
        answer, sample = outcome
        if answer.kind == "kept":
            with atomic_file(path) as temporary:
                temporary.write_bytes(sample)
        return answer

    def close(self) -> None:
        """See `stages.Fetcher`."""
        for guard in self._guards:
            self._ray.kill(guard)
        self._leave()
