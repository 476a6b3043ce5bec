"""One server process on this machine: starts it, checks its health and ends it."""

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from promptmii.config import ServeSettings
from promptmii.errors import ConfigError
from promptmii.serving import supervisor

LOOPBACK = "127.0.0.1"
TIMEOUT = 5.0
"""Timeout of a health check, in seconds."""
LOG_TAIL = 600
"""Bytes of the log that an error quotes."""


def command_line(settings: ServeSettings, model: str, port: int, host: str = LOOPBACK, gpus: int = 0) -> list[str]:
    """The command that starts a server. Raises `ConfigError` if its program is not on this machine."""
    address = ["--host", host, "--port", str(port)]
    if settings.engine == "vllm":
        # Take sampling defaults from vLLM, not from the model's repository.
        command = ["vllm", "serve", model, *address, "--generation-config", "vllm"]
        if gpus > 1:
            command += ["--tensor-parallel-size", str(gpus)]
    elif settings.engine == "llama.cpp":
        command = [sys.executable, "-P", "-m", "promptmii.models.llama.server", model, *address]
    else:
        command = shlex.split(settings.engine)
        for name, value in {"model": model, "host": host, "port": port, "gpus": gpus}.items():
            command = [word.replace(f"{{{name}}}", str(value)) for word in command]
    if shutil.which(command[0]) is None:
        raise ConfigError(
            f"serve: the program {command[0]!r} was not found. Install it; or start the server yourself, and "
            "give endpoint.base_url; or set serve to vllm, llama.cpp or a command line with {model} and {port}."
        )
    return [*command, *settings.options]


@dataclass(eq=False)
class ServerProcess:
    """A server on one port. It restarts on the same port, so its address remains valid."""

    model: str
    command: Sequence[str]
    address: str
    log: Path
    environment: Mapping[str, str]
    settings: ServeSettings
    ready: bool = False
    """The server has answered since it was started."""
    failures: list[float] = field(default_factory=list[float])
    """Times of recent failures."""
    _supervisor: subprocess.Popen[bytes] | None = None
    _group: int = 0
    _last_answer: float = 0.0

    def start(self) -> None:
        """Start or restart the process, without waiting for an answer. Its output goes to `log`."""
        self.stop()
        with self.log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", supervisor.__file__, str(os.getpid()), *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self._supervisor.wait()  # returns at once, because the supervisor forks
        self._group = int(_stdout(self._supervisor).readline() or 0)
        self.ready, self._last_answer = False, time.monotonic()

    def fault(self) -> str | None:
        """The current fault, or `None` if the server is healthy or still loading. Sets `ready` when it answers."""
        if self._supervisor is None or _has_ended(self._supervisor, 0):
            return "ended"
        if self._answers():
            self.ready, self._last_answer = True, time.monotonic()
            return None
        silence = time.monotonic() - self._last_answer
        allowed = self.settings.silence if self.ready else self.settings.startup
        return f"has not answered for {silence:.0f} s" if silence > allowed else None

    def stop(self) -> None:
        """End the process, and wait until it has ended."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        _has_ended(process, supervisor.GRACE + TIMEOUT)
        _stdout(process).close()
        if self._group:
            with suppress(ProcessLookupError):  # the group survives if only the supervisor was killed
                os.killpg(self._group, signal.SIGKILL)

    def log_tail(self) -> str:
        """The end of the log, on one line."""
        text = self.log.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace") if self.log.exists() else ""
        return " ".join(text.split()) or "nothing"

    def _answers(self) -> bool:
        """Asks `/health`, or the model list if the server has no `/health`."""
        try:
            status = self._status(f"{self.address.removesuffix('/v1')}/health")
            return status == 200 or (status == 404 and self._status(f"{self.address}/models") == 200)
        except httpx.HTTPError:
            return False

    def _status(self, address: str) -> int:
        timeout = min(TIMEOUT, self.settings.startup, self.settings.silence)
        return httpx.get(address, timeout=timeout, trust_env=False).status_code


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout
    return process.stdout


def _has_ended(supervisor: subprocess.Popen[bytes], timeout: float) -> bool:
    """The supervisor ends within `timeout` seconds, which closes its standard output."""
    readable, _, _ = select.select([_stdout(supervisor)], [], [], timeout)
    return bool(readable)
