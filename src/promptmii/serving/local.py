"""Servers on this machine, for as long as they are needed."""

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
from promptmii.progress import QUIET, Progress
from promptmii.serving.server import LOOPBACK, ServerProcess, command_line

POLL = 0.5
RESTARTS = 8
"""A server that ends more often within `STEADY` seconds does not end by accident."""
STEADY = 600.0
_UNSAFE = re.compile(r"[^\w.-]+")


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


def _dealt(needs: Sequence[int], given: Sequence[int | str] | None) -> list[tuple[str, ...]]:
    """The GPUs of each server. Raises `ConfigError` if there are too few."""
    if given is None:
        shown = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        given = shown or range(sum(needs))
    devices = [str(one) for one in given]
    if sum(needs) > len(devices):
        raise ConfigError(
            f"serve: {len(needs)} servers need {sum(needs)} GPUs, and there are {len(devices)} for them "
            f"({', '.join(devices) or 'the others train'}). Lower serve.copies or serve.gpus, or name more in "
            "serve.devices."
        )
    stock = iter(devices)
    return [tuple(next(stock) for _ in range(need)) for need in needs]
