"""Servers on this machine, for as long as they are needed: how they start, whether they are well, and their end."""

import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from promptmii.config import ServeSettings
from promptmii.errors import ConfigError, ModelError
from promptmii.files import private_folder
from promptmii.progress import QUIET, Progress
from promptmii.serving import warden

LOOPBACK = "127.0.0.1"
TIMEOUT = 5.0
"""Seconds for an answer, at most."""
TOLD = 600
"""Characters of a log's end that an error shows."""
POLL = 0.5
RESTARTS = 8
"""A server that ends more often within `STEADY` seconds does not end by accident."""
STEADY = 600.0
_UNSAFE = re.compile(r"[^\w.-]+")


def command_line(settings: ServeSettings, model: str, port: int, host: str = LOOPBACK, gpus: int = 0) -> list[str]:
    """The words that start a server. Raises `ConfigError` where the program is not on this machine."""
    where = ["--host", host, "--port", str(port)]
    match settings.engine:
        case "vllm":
            # Sampling parameters come with each request, not from the model's repository.
            words = ["vllm", "serve", model, *where, "--generation-config", "vllm"]
            words += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
        case "llama.cpp":
            words = [sys.executable, "-P", "-m", "promptmii.models.llama.server", model, *where]
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


class LocalServers:
    """Started together, watched by a thread that starts again what ends, and ended together."""

    def __init__(
        self,
        models: Mapping[str, str],
        settings: ServeSettings,
        progress: Progress = QUIET,
        logs: Path | None = None,
        host: str = LOOPBACK,
    ) -> None:
        """`models` are their names by reference; `logs` is a folder, or a temporary one. Returns once all answer.

        Raises `ConfigError` for what cannot be started here, `ModelError` for a server that ends or never answers.
        """
        if os.name != "posix":
            raise ConfigError("serve needs Linux or macOS. Start the server yourself, and give endpoint.base_url.")
        kept = private_folder(logs) if logs else Path(tempfile.mkdtemp(prefix="promptmii-serve-"))
        self._temporary = None if logs else kept
        self._progress = progress
        self._over = threading.Event()
        self._ended: dict[str, list[float]] = {}
        self._servers: list[ServerProcess] = []
        self.addresses: dict[str, str] = {}
        """By reference; several copies are separated by commas."""
        copies = [reference for reference in models for _ in range(settings.copies)]
        devices = _dealt([settings.needs(reference) for reference in copies], settings.devices)
        for reference, port, given in zip(copies, _free_ports(host, len(copies)), devices, strict=True):
            name, address = models[reference], f"http://{host}:{port}/v1"
            command = command_line(settings, name, port, host, len(given))
            log = kept / f"{_UNSAFE.sub('_', name)}-{port}.log"
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(given)} if given else {}
            patience = (settings.startup, settings.silence)
            self._servers.append(ServerProcess(name, command, address, log, visible, patience))
            before = self.addresses.get(reference)
            self.addresses[reference] = f"{before},{address}" if before else address
        with ExitStack() as undo:
            undo.callback(self._stop)
            self._start()
            undo.pop_all()
        self._watcher = threading.Thread(target=self._watch, name="promptmii-servers", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End them."""
        self._over.set()
        self._watcher.join()
        self._stop()
        if self._temporary and not self._ended:  # nobody was told of a log
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self) -> None:
        self._progress.step("Starting servers: " + ", ".join(dict.fromkeys(server.name for server in self._servers)))
        for server in self._servers:
            server.start()
        while waiting := [server for server in self._servers if not server.ready]:
            for server in waiting:
                if fault := server.fault():
                    raise ModelError(
                        f"The server of {server.name} {fault} before it was ready. Last output: {server.last_words()} "
                        f"(full log: {server.log})"
                    )
            time.sleep(POLL)

    def _stop(self) -> None:
        threads = [threading.Thread(target=server.stop) for server in self._servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(POLL):
            for server in self._servers:
                fault = server.fault()
                if fault and not self._over.is_set():
                    self._again(server, fault)

    def _again(self, server: ServerProcess, fault: str) -> None:
        now = time.monotonic()
        ended = [when for when in self._ended.get(server.address, ()) if now - when < STEADY]
        if len(ended) > RESTARTS:
            return
        self._ended[server.address] = [*ended, now]
        said = f"The server of {server.name} at {server.address} {fault}"
        if len(ended) == RESTARTS:
            self._progress.note(f"{said}, for the {RESTARTS + 1}th time; it is not started again: see {server.log}")
            server.stop()
            return
        self._progress.note(f"{said}; starting it again")
        server.start()


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody listens on now; all are held until all are known, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]


def visible_devices() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names; none where it leaves that open."""
    return [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]


def _dealt(needs: Sequence[int], given: Sequence[int | str] | None) -> list[tuple[str, ...]]:
    """The GPUs of each server. Raises `ConfigError` if there are too few."""
    if given is None:
        given = visible_devices() or range(sum(needs))
    devices = [str(one) for one in given]
    if sum(needs) > len(devices):
        raise ConfigError(
            f"serve: {len(needs)} servers need {sum(needs)} GPUs, and there are {len(devices)} for them "
            f"({', '.join(devices) or 'the others train'}). Lower serve.copies or serve.gpus, or name more in "
            "serve.devices."
        )
    stock = iter(devices)
    return [tuple(next(stock) for _ in range(need)) for need in needs]


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout
    return process.stdout


def _ended(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Whether the warden is gone, or goes within so many seconds: its standard output then comes to an end."""
    readable, _, _ = select.select([_stdout(process)], [], [], patience)
    return bool(readable)
