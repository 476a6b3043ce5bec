"""One server process: its command line, whether it is well, and its end with everything that it started."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from promptmii.config import ServeSettings
from promptmii.errors import ConfigError
from promptmii.serving import warden

LOOPBACK = "127.0.0.1"
TIMEOUT = 5.0
"""Seconds for an answer, at most."""
TOLD = 600
"""Characters of a log's end that an error shows."""


def command_line(settings: ServeSettings, model: str, port: int, host: str = LOOPBACK, gpus: int = 0) -> list[str]:
    """The words that start a server. Raises `ConfigError` where the program is not on this machine."""
    where = ["--host", host, "--port", str(port)]
    match settings.engine:
        case "vllm":
            # Sampling parameters come with each request, not from the model's repository.
            words = ["vllm", "serve", model, *where, "--generation-config", "vllm"]
            words += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
        case "llama.cpp":
            words = [sys.executable, "-P", "-m", "promptmii.models.llama.serve", model, *where]
        case own:
            words = shlex.split(own)
            for name, value in {"model": model, "host": host, "port": port, "gpus": gpus}.items():
                words = [word.replace(f"{{{name}}}", str(value)) for word in words]
    if shutil.which(words[0]) is None:
        raise ConfigError(
            f"serve: the program {words[0]!r} was not found. Install it; or start the server yourself, and "
            "give endpoint.base_url; or set serve to vllm, llama.cpp or a command line with {model} and {port}."
        )
    return [*words, *settings.options]


@dataclass(eq=False)
class ServerProcess:
    """A server at one port. A restarted one is at the same port, so its address holds."""

    name: str
    command: Sequence[str]
    address: str
    log: Path
    environment: Mapping[str, str]
    patience: tuple[float, float]
    """Seconds that it may be silent until it first answers, and after that."""
    ready: bool = False
    """It has answered since it was started."""
    _warden: subprocess.Popen[bytes] | None = None
    _group: int = 0
    _heard: float = 0.0

    def start(self) -> None:
        """Start the process; it answers later. What it says goes to its log."""
        self.stop()
        with self.log.open("ab") as log:
            self._warden = subprocess.Popen(
                [sys.executable, "-I", warden.__file__, str(os.getpid()), *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self._warden.wait()  # it has detached itself
        self._group = int(_stdout(self._warden).readline() or 0)
        self.ready, self._heard = False, time.monotonic()

    def fault(self) -> str | None:
        """What is wrong with it, if anything is; while it loads, nothing is. Sets `ready` once it answers."""
        if self._warden is None or _ended(self._warden, 0):
            return "ended"
        if self._answers():
            self.ready, self._heard = True, time.monotonic()
            return None
        silent = time.monotonic() - self._heard
        return f"has not answered for {silent:.0f} s" if silent > self.patience[self.ready] else None

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        held, self._warden = self._warden, None
        if held is None:
            return
        if held.stdin:
            held.stdin.close()
        _ended(held, warden.GRACE + TIMEOUT)
        _stdout(held).close()
        if self._group:
            with suppress(ProcessLookupError):  # the group outlives a warden that was killed alone
                os.killpg(self._group, signal.SIGKILL)

    def last_words(self) -> str:
        """The end of its log, on one line."""
        text = self.log.read_bytes()[-TOLD:].decode("utf-8", "replace") if self.log.exists() else ""
        return " ".join(text.split()) or "nothing"

    def _answers(self) -> bool:
        """`/health` where there is one, else the list of models."""
        try:
            status = self._status(f"{self.address.removesuffix('/v1')}/health")
            return status == 200 or (status == 404 and self._status(f"{self.address}/models") == 200)
        except httpx.HTTPError:
            return False

    def _status(self, address: str) -> int:
        return httpx.get(address, timeout=min(TIMEOUT, *self.patience), trust_env=False).status_code


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout
    return process.stdout


def _ended(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Whether the warden is gone, or goes within so many seconds: its standard output then comes to an end."""
    readable, _, _ = select.select([_stdout(process)], [], [], patience)
    return bool(readable)
