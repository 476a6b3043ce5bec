"""A dataset that is huge, corrupt or endless costs a time-out, not the run: each is read in a process that may be killed.

A process serves one dataset after the other and is only replaced when it had to be stopped, because to start one takes seconds.
It ends by itself when the build that started it is no more.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from promptmii.data.corpus.fetch import fetch, is_plain_file
from promptmii.data.corpus.hub import UnavailableError, explain, patiently
from promptmii.data.corpus.listing import Candidate
from promptmii.data.corpus.settings import FetchSettings
from promptmii.errors import DataError, EndpointError, MissingDependencyError, OutputError

POLL = 0.05
STARTUP = 120.0
"""Seconds that importing the libraries may take before the first dataset."""


class Answer(NamedTuple):
    """What became of a dataset."""

    kind: Literal["kept", "dropped", "unavailable", "hub", "disk"]
    reason: str
    detail: dict[str, Any]


class Guard:
    """One process that fetches, and what watches it."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._process: Any = None
        self._line: Connection | None = None

    def fetch(self, candidate: Candidate, path: Path) -> Answer:
        """Sample a dataset into `path`. Raises `EndpointError` where the hub is away, `OutputError` where the disk is full."""
        line = self._line or self._start()
        line.send((candidate, str(path)))
        answer = self._wait(line)
        if answer.detail.get("temporary") and candidate.path is None:
            answer = _blamed(answer, candidate, self._settings)
        if answer.kind == "hub":
            raise EndpointError(answer.reason)
        if answer.kind == "disk":
            raise OutputError(answer.reason)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._line is not None:
            self._line.close()
        self._process = self._line = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()
        if not self._line.poll(STARTUP):
            self.close()
            raise DataError(f"A process to fetch with did not start within {STARTUP:.0f} s.")
        self._line.recv()
        return self._line

    def _wait(self, line: Connection) -> Answer:
        deadline = time.monotonic() + self._settings.seconds
        while True:
            try:
                while line.poll(POLL):
                    message = line.recv()
                    if isinstance(message, Answer):
                        return message
                    deadline += message
            except (EOFError, OSError):
                code = self._process.exitcode
                self.close()
                return Answer("dropped", f"reading it ended the process (exit code {code})", {"temporary": True})
            memory = _resident_mib(self._process.pid)
            if memory > self._settings.memory_mib:
                self.close()
                return Answer(
                    "dropped",
                    f"reading it took more than {self._settings.memory_mib} MiB of memory",
                    {"temporary": True},
                )
            if time.monotonic() > deadline:
                self.close()
                return Answer("dropped", f"reading it took more than {self._settings.seconds:g} s", {"temporary": True})


def _blamed(answer: Answer, candidate: Candidate, settings: FetchSettings) -> Answer:
    """The same answer, unless the hub rather than the dataset is what takes its time."""
    try:
        explain(candidate.repository, candidate.revision, settings.patience)
    except UnavailableError as error:
        return Answer("unavailable", str(error), {})
    except EndpointError as error:
        return Answer("hub", str(error), {})
    return answer


def _resident_mib(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # ended meanwhile, or not Linux: then only time is bounded
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _serve(line: Connection, settings: FetchSettings) -> None:
    """The process: datasets in, answers out."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    line.send("ready")
    prepared = False
    while True:
        try:
            candidate, path = line.recv()
        except EOFError:
            return
        if not prepared and not is_plain_file(candidate):
            _prepare(line)
            prepared = True
        line.send(_answer(candidate, settings, Path(path), line.send))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _prepare(line: Connection) -> None:
    """Import what is needed, and let the time that the hub asks us to wait not count as the dataset's."""
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

    def waiting(response: Any) -> None:
        seconds = response.headers.get("Retry-After", "")
        if response.status_code == 429 and seconds.isdigit():
            line.send(float(seconds) + 1)

    def client() -> Any:
        made = huggingface_hub.utils._http.default_client_factory()  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage, reportAttributeAccessIssue]
        made.event_hooks["response"].append(waiting)
        return made

    huggingface_hub.set_client_factory(client)


def _answer(candidate: Candidate, settings: FetchSettings, path: Path, waiting: Callable[[float], None]) -> Answer:
    remote = candidate.path is None
    try:
        try:
            return Answer("kept", "", patiently(lambda: fetch(candidate, settings, path), settings.patience, waiting))
        except (DataError, EndpointError):
            raise
        except Exception:
            if remote:
                explain(candidate.repository, candidate.revision, settings.patience, waiting)
            raise
    except UnavailableError as error:
        return Answer("unavailable", str(error), {})
    except EndpointError as error:
        return Answer("hub", str(error), {})
    except OutputError as error:
        return Answer("disk", str(error), {})
    except Exception as error:
        return Answer("dropped", reason_of(error), {})


def reason_of(error: BaseException) -> str:
    """An error in one line: libraries write pages."""
    cause = error if isinstance(error, DataError) else error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else "no further word"
    return text if isinstance(cause, DataError) else f"{type(cause).__name__}: {text}"[:300]
