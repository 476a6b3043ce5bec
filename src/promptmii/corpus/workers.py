"""Where datasets are fetched: processes on this machine, or a Ray cluster.

A process reads datasets one by one, under limits of time and memory. A dataset that is huge, corrupt or endless costs
itself, not the build: its process is killed, and a new one reads the next. The process ends by itself when the build
that started it is gone.

What goes wrong with a dataset, in the hub's libraries or in the operating system becomes a `Fetched`; a bug of
promptmii is raised.
"""

import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.corpus.fetch import UnreadableError, fetch
from promptmii.corpus.hub import Wait, unavailability, with_patience
from promptmii.corpus.listing import Candidate
from promptmii.corpus.settings import FetchSettings
from promptmii.errors import (
    DataError,
    EndpointError,
    MissingDependencyError,
    ModelError,
    OutputError,
    PromptMIIError,
    first_line,
)
from promptmii.files import atomic_file
from promptmii.ray_cluster import RayActors, unwrapped

Jobs = Sequence[tuple[Candidate, Path]]
POLL = 0.05
STARTUP = 120.0
"""Seconds in which the process must have started."""
GRACE = 5.0
"""Seconds that an idle process has to end by itself."""


@dataclass(frozen=True)
class Fetched:
    """What became of a dataset."""

    kept: bool
    reason: str = ""
    temporary: bool = False
    """Dropped for a reason that may pass."""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


class BugError(RuntimeError):
    """An error of promptmii in another process, with the traceback from there."""


class Reader:
    """The process, started when it is first needed, and what watches it."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._process: Any = None
        self._line: Connection | None = None
        self._busy = self._closed = False

    def fetch(self, candidate: Candidate, path: Path) -> Fetched:
        """Sample a dataset into `path`. Raises `EndpointError` if the hub is down, `OutputError`, and `BugError`."""
        line = self._line or self._start()
        self._busy = True
        line.send((candidate, path))
        answer = self._answer(line)
        self._busy = False
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            self._kill()
            return _dropped(candidate, self._settings, f"reading it {answer}", temporary=True)
        return answer

    def close(self) -> None:
        """End the process. A `fetch` in another thread raises `CancelledError`."""
        self._closed = True
        if self._line is not None and not self._busy:
            self._line.close()
            self._process.join(GRACE)  # it ends by itself, and releases its semaphores
        if self._process is not None:
            self._process.kill()

    def _start(self) -> Connection:
        if self._closed:
            raise CancelledError
        context = multiprocessing.get_context("spawn")
        line, theirs = context.Pipe()
        process: Any = context.Process(target=_serve, args=(theirs, self._settings), daemon=True)
        process.start()
        self._process, self._line = process, line  # now that `close` in another thread can end it
        theirs.close()
        started = False
        with suppress(EOFError, OSError):
            started = line.poll(STARTUP) and line.recv()
        if self._closed:
            process.kill()
            raise CancelledError
        if not started:
            self._kill()
            raise ModelError(f"A process to read datasets did not start within {STARTUP:.0f} s. Try again.")
        return line

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()
        if self._line is not None:
            self._line.close()
        self._line = None

    def _answer(self, line: Connection) -> Fetched | Exception | str:
        deadline = time.monotonic() + self._settings.seconds
        while True:
            try:
                while line.poll(POLL):
                    message: Fetched | Exception | float = line.recv()
                    if not isinstance(message, float | int):
                        return message
                    deadline += message
            except (EOFError, OSError):
                if self._closed:
                    raise CancelledError from None
                self._process.join()
                return f"ended the process (exit code {self._process.exitcode})"
            if _memory_mib(self._process.pid) > self._settings.memory_mib:
                return f"took more than {self._settings.memory_mib} MiB of memory"
            if time.monotonic() > deadline:
                return f"took more than {self._settings.seconds:g} s"


def _memory_mib(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # ended meanwhile, or not Linux, where only time is limited
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _dropped(
    candidate: Candidate, settings: FetchSettings, reason: str, *, temporary: bool, on_wait: Wait = lambda _: None
) -> Fetched:
    """After a failed read, ask whether the hub is at fault. Raises `EndpointError` if it is down."""
    gone = None
    if candidate.path is None:
        gone = unavailability(candidate.repository, candidate.revision, settings.patience, on_wait)
    return Fetched(False, gone or reason, temporary or gone is not None)


def _serve(line: Connection, settings: FetchSettings) -> None:
    """The process: datasets in, outcomes or exceptions out, and a number for each wait that does not count."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the build decides
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    prepare = cache(partial(_prepare, line.send))
    with suppress(EOFError, OSError):  # the build has ended
        line.send("ready")
        while True:
            candidate, path = line.recv()
            try:
                if not candidate.is_file:
                    prepare()
                line.send(_read(candidate, path, settings, line.send))
            except (EndpointError, OutputError, MissingDependencyError) as error:
                line.send(error)
            except Exception:  # a bug of ours: what a dataset can do wrong became an outcome in `_read`
                trace = traceback.format_exc()
                line.send(BugError(f"An error of promptmii while reading {candidate.name}:\n{trace}"))


def _read(candidate: Candidate, path: Path, settings: FetchSettings, on_wait: Wait) -> Fetched:
    try:
        detail = with_patience(lambda: fetch(candidate, settings, path), settings.patience, on_wait)
    except DataError as error:
        return Fetched(False, str(error))
    except (EndpointError, OutputError):  # both are OSErrors too
        raise
    except (UnreadableError, OSError) as error:
        return _dropped(candidate, settings, _named(error.__cause__ or error), temporary=False, on_wait=on_wait)
    return Fetched(True, detail=detail)


def _named(error: BaseException) -> str:
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _prepare(on_wait: Wait) -> None:
    """Import the libraries, and report the waits that the hub asks `huggingface_hub` for."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
        import huggingface_hub
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise MissingDependencyError("Folders and repositories of datasets", "corpus") from error
    import datasets.config

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    logging.set_verbosity_error()
    datasets.logging.set_verbosity_error()

    def note_wait(response: Any) -> None:
        seconds = response.headers.get("Retry-After", "")
        if response.status_code == 429 and seconds.isdigit():
            on_wait(float(seconds) + 1)

    def client() -> Any:
        http: Any = huggingface_hub.utils._http  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        made = http.default_client_factory()
        made.event_hooks["response"].append(note_wait)
        return made

    huggingface_hub.set_client_factory(client)


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
            candidate, fetched, sample = unwrapped(answer)
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
