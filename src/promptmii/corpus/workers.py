"""Fetches datasets in processes on this machine or on a Ray cluster.

A process reads one dataset at a time, under time and memory limits. If a dataset is huge, corrupt or endless, its
process is killed and a new process reads the next one. Processes exit when the build that started them is gone.

Errors from a dataset, the hub's libraries or the operating system are returned in an `Entry`; bugs are raised.
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
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from promptmii.config import RayOptions
from promptmii.corpus.fetch import UnreadableError, fetch
from promptmii.corpus.hub import Wait, rate_limit_reset, unavailability, with_patience
from promptmii.corpus.journal import Entry
from promptmii.corpus.listing import Candidate
from promptmii.corpus.settings import FetchSettings
from promptmii.errors import (
    DataError,
    EndpointError,
    MissingDependencyError,
    ModelError,
    OutputError,
    PromptMIIError,
    required_by,
)
from promptmii.files import atomic_file, refuse_full_disk
from promptmii.messages import first_line
from promptmii.ray_cluster import RayActors, unwrapped

Jobs = Sequence[tuple[Candidate, Path]]
POLL = 0.05
STARTUP = 120.0
"""Seconds that a process may take to start."""
GRACE = 5.0
"""Seconds that an idle process may take to exit before it is killed."""


class BugError(RuntimeError):
    """A bug in promptmii, raised in a child process, with the traceback of that process."""


class Reader:
    """A process that reads datasets under limits. It starts on first use, and again after it was killed."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._process: Any = None
        self._connection: Connection | None = None
        self._busy = self._closed = False

    def fetch(self, candidate: Candidate, path: Path) -> Entry:
        """Sample a dataset into `path`. Raises `EndpointError` if the hub is down, `OutputError`, and `BugError`."""
        if self._connection is not None and not self._process.is_alive():
            self._kill()  # it was ended while it was idle, for instance by a system short of memory
        connection = self._connection or self._start()
        self._busy = True
        connection.send((candidate, path))
        answer = self._wait_for(connection)
        self._busy = False
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            self._kill()
            return _dropped(candidate, self._settings, f"reading it {answer}", temporary=True)
        return answer

    def close(self) -> None:
        """End the process. A `fetch` that runs in another thread raises `CancelledError`."""
        self._closed = True
        if self._connection is not None and not self._busy:
            self._connection.close()
            self._process.join(GRACE)  # without a connection it exits by itself, which releases its semaphores
        if self._process is not None:
            self._process.kill()

    def _start(self) -> Connection:
        if self._closed:
            raise CancelledError
        context = multiprocessing.get_context("spawn")
        connection, child_connection = context.Pipe()
        process: Any = context.Process(target=_serve, args=(child_connection, self._settings), daemon=True)
        process.start()
        self._process, self._connection = process, connection  # from now on, another thread's `close` can end it
        child_connection.close()
        started = False
        with suppress(EOFError, OSError):
            started = connection.poll(STARTUP) and connection.recv()
        if self._closed:
            process.kill()
            raise CancelledError
        if not started:
            self._kill()
            raise ModelError(f"A process to read datasets did not start within {STARTUP:.0f} s. Try again.")
        return connection

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _wait_for(self, connection: Connection) -> Entry | Exception | str:
        """The answer of the process, or the reason why there is none, as the end of a sentence."""
        deadline = time.monotonic() + self._settings.seconds
        while True:
            try:
                while connection.poll(POLL):
                    message: Entry | Exception | float = connection.recv()
                    if not isinstance(message, float | int):
                        return message
                    deadline += message  # a wait for the hub, which does not count
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
    except (OSError, IndexError, ValueError):  # process gone, or not Linux (no memory limit)
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _outcome(candidate: Candidate, reason: str = "", *, temporary: bool = False, **detail: Any) -> Entry:
    """The entry of a dataset; a `reason` means that it is dropped."""
    detail["candidate"] = candidate.model_dump(mode="json")
    return candidate.entry(reason, temporary=temporary).model_copy(update={"detail": detail})


def _dropped(
    candidate: Candidate, settings: FetchSettings, reason: str, *, temporary: bool, on_wait: Wait = lambda _: None
) -> Entry:
    """The outcome of a failed read, after asking the hub if the dataset is available. Raises `EndpointError`."""
    unavailable = None
    if candidate.path is None:
        unavailable = unavailability(candidate.repository, candidate.revision, settings.patience, on_wait)
    return _outcome(candidate, unavailable or reason, temporary=temporary or unavailable is not None)


def _serve(connection: Connection, settings: FetchSettings) -> None:
    """The main loop of the process. Receives datasets; sends outcomes, exceptions, and seconds of extra time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the build handles it
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    prepare = cache(partial(_prepare, connection.send))
    with suppress(EOFError, OSError):  # the build has ended
        connection.send("ready")
        while True:
            candidate, path = connection.recv()
            try:
                if not candidate.is_file:
                    prepare()
                connection.send(_read(candidate, path, settings, connection.send))
            except (EndpointError, OutputError, MissingDependencyError) as error:
                connection.send(error)
            except Exception:  # a bug in promptmii: `_read` turns errors of a dataset into outcomes
                trace = traceback.format_exc()
                connection.send(BugError(f"An error of promptmii while reading {candidate.name}:\n{trace}"))


def _read(candidate: Candidate, path: Path, settings: FetchSettings, on_wait: Wait) -> Entry:
    try:
        detail = with_patience(lambda: fetch(candidate, settings, path), settings.patience, on_wait)
    except DataError as error:
        return _outcome(candidate, str(error))
    except (EndpointError, OutputError):  # both are OSErrors too
        raise
    except (UnreadableError, OSError) as error:
        refuse_full_disk(error, candidate.name)
        return _dropped(candidate, settings, _described(error.__cause__ or error), temporary=False, on_wait=on_wait)
    return _outcome(candidate, **detail)


def _described(error: BaseException) -> str:
    kind, message = type(error).__name__, first_line(error)
    return kind if message == kind else f"{kind}: {message}"


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _prepare(on_wait: Wait) -> None:
    """Import the libraries, and make `huggingface_hub` report the waits that the hub asks for."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with required_by("Folders and repositories of datasets", "corpus"):
        import datasets
        import huggingface_hub
        from huggingface_hub.utils import logging
    import datasets.config

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    logging.set_verbosity_error()
    datasets.logging.set_verbosity_error()

    def note_wait(response: Any) -> None:
        """Report how long `huggingface_hub` sleeps after this response. It ignores a Retry-After that is a date."""
        if response.status_code != 429:
            return
        seconds = response.headers.get("Retry-After", "")
        if reset := rate_limit_reset(response.headers):
            on_wait(reset)
        elif seconds.isdigit():
            on_wait(float(seconds) + 1)

    def client() -> Any:
        http: Any = huggingface_hub.utils._http  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        hub_client = http.default_client_factory()
        hub_client.event_hooks["response"].append(note_wait)
        return hub_client

    huggingface_hub.set_client_factory(client)


def fetch_here(jobs: Jobs, settings: FetchSettings, workers: int) -> Generator[Entry]:
    """Fetch with `workers` processes on this machine, and yield each outcome as soon as it is ready.

    Raises `EndpointError` if the hub is down, `OutputError` if the disk is full.
    """
    readers = [Reader(settings) for _ in range(workers)]
    idle: queue.SimpleQueue[Reader] = queue.SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def run(candidate: Candidate, path: Path) -> Entry:
        reader = idle.get()
        try:
            return reader.fetch(candidate, path)
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
    """A `Reader` for a Ray actor. It returns samples as bytes."""

    def __init__(self, settings: FetchSettings) -> None:
        self._reader = Reader(settings)

    def fetch(self, candidate: Candidate, name: str) -> tuple[Entry, bytes] | PromptMIIError:
        """The outcome, and the sample if the dataset was kept."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            try:
                entry = self._reader.fetch(candidate, path)
            except PromptMIIError as error:  # returned, because Ray buries a raised one in a long traceback
                return error
            return entry, path.read_bytes() if entry.kept else b""


def fetch_on_ray(jobs: Jobs, settings: FetchSettings, options: RayOptions) -> Generator[Entry]:
    """Fetch on a Ray cluster. Every machine must see the local data; samples come back over the network."""
    memory = settings.memory_mib << 20
    cluster = RayActors(options, RemoteReader, settings, memory=memory, max_restarts=3, max_task_retries=1)
    try:
        pending = {candidate.name: path for candidate, path in jobs}
        pool: Any = cluster.ray.util.ActorPool(cluster.actors)
        for candidate, path in jobs:
            pool.submit(_fetch, (candidate, path.name))
        while pool.has_next():
            try:
                result: tuple[Entry, bytes] | PromptMIIError = pool.get_next_unordered()
            except cluster.ray.exceptions.RayActorError:
                continue  # its dataset stays in `pending`
            entry, sample = unwrapped(result)
            path = pending.pop(entry.name)
            if entry.kept:
                with atomic_file(path) as temporary:
                    temporary.write_bytes(sample)
            yield entry
        for candidate, _ in jobs:
            if candidate.name in pending:
                yield _outcome(candidate, "the worker that read it was lost", temporary=True)
    finally:
        cluster.close()


def _fetch(actor: Any, job: tuple[Candidate, str]) -> Any:
    return actor.fetch.remote(*job)
