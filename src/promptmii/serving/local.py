"""Servers on this machine that live as long as a run needs them."""

import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from promptmii.config import ServeSettings
from promptmii.errors import ConfigError, ModelError
from promptmii.files import private_folder
from promptmii.messages import counted
from promptmii.progress import QUIET, Progress
from promptmii.serving.process import LOOPBACK, ServerProcess, command_line

POLL = 0.5
RESTARTS = 8
"""Maximum restarts of a server within `STEADY` seconds."""
STEADY = 600.0
_UNSAFE = re.compile(r"[^\w.-]+")


class LocalServers:
    """Servers that start and end together, and restart when they fail."""

    def __init__(
        self,
        models: Mapping[str, str],
        settings: ServeSettings,
        progress: Progress = QUIET,
        logs: Path | None = None,
        host: str = LOOPBACK,
    ) -> None:
        """Start the servers and wait until all answer.

        `models` maps references to names; `logs` is a folder for the logs, by default a temporary one. Raises
        `ConfigError` if a server cannot be started here, `ModelError` if one ends or never answers.
        """
        if os.name != "posix":
            raise ConfigError("serve needs Linux or macOS. Start the server yourself, and give endpoint.base_url.")
        self._progress = progress
        self._closing = threading.Event()
        self._servers: list[ServerProcess] = []
        references = [reference for reference in models for _ in range(settings.copies)]
        devices = _assign_devices([settings.needs(reference) for reference in references], settings.devices)
        copies = [
            (reference, port, gpus, command_line(settings, models[reference], port, host, len(gpus)))
            for reference, port, gpus in zip(references, _free_ports(host, len(references)), devices, strict=True)
        ]
        # Not earlier, so that settings that are refused leave no folder behind.
        folder = private_folder(logs) if logs else Path(tempfile.mkdtemp(prefix="promptmii-serve-"))
        self._temporary = None if logs else folder
        addresses: dict[str, list[str]] = {}
        for reference, port, gpus, command in copies:
            model, address = models[reference], f"http://{host}:{port}/v1"
            log = folder / f"{_UNSAFE.sub('_', model)}-{port}.log"
            environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
            self._servers.append(ServerProcess(model, command, address, log, environment, settings))
            addresses.setdefault(reference, []).append(address)
        self.addresses = {reference: ",".join(listed) for reference, listed in addresses.items()}
        """By reference; a comma-separated list if there are several copies."""
        with ExitStack() as undo:
            undo.callback(self._stop)
            self._start()
            undo.pop_all()
        self._watcher = threading.Thread(target=self._watch, name="promptmii-servers", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._closing.set()
        self._watcher.join()
        self._stop()
        failed = any(server.failures for server in self._servers)
        if self._temporary and not failed:  # a note may refer to the log of a failed server
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self) -> None:
        self._progress.step("Starting servers: " + ", ".join(dict.fromkeys(server.model for server in self._servers)))
        for server in self._servers:
            server.start()
        while waiting := [server for server in self._servers if not server.ready]:
            for server in waiting:
                if fault := server.fault():
                    raise ModelError(
                        f"The server of {server.model} {fault} before it was ready. Last output: {server.log_tail()} "
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
        while not self._closing.wait(POLL):
            for server in self._servers:
                fault = server.fault()
                if fault and not self._closing.is_set():
                    self._restart(server, fault)

    def _restart(self, server: ServerProcess, fault: str) -> None:
        if len(server.failures) > RESTARTS:  # given up before
            return
        now = time.monotonic()
        server.failures = [*(failure for failure in server.failures if now - failure < STEADY), now]
        problem = f"The server of {server.model} at {server.address} {fault}"
        if len(server.failures) > RESTARTS:
            self._progress.note(f"{problem}, for the {RESTARTS + 1}th time; it is not started again: see {server.log}")
            server.stop()
            return
        self._progress.note(f"{problem}; starting it again")
        server.start()


def _free_ports(host: str, count: int) -> list[int]:
    """Distinct free ports. All sockets stay open until the last port is found."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind((host, 0))
        return [bound.getsockname()[1] for bound in sockets]


def visible_devices() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES; an empty list if it is not set."""
    return [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]


def _assign_devices(needs: Sequence[int], devices: Sequence[int | str] | None) -> list[tuple[str, ...]]:
    """The GPUs of each server. Raises `ConfigError` if there are too few."""
    if devices is None:
        devices = visible_devices() or range(sum(needs))
    available = [str(device) for device in devices]
    if sum(needs) > len(available):
        raise ConfigError(
            f"serve needs {counted(sum(needs), 'GPU')} for {counted(len(needs), 'server')}, but only {len(available)} "
            f"are available ({', '.join(available) or 'the others train'}). Lower serve.copies or serve.gpus, or name "
            "more in serve.devices."
        )
    remaining = iter(available)
    return [tuple(next(remaining) for _ in range(need)) for need in needs]
