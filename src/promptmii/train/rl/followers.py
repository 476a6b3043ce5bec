"""The frozen followers of a run. Every process calls them; with `reward.serve`, the main one starts their servers."""

import asyncio
import os
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] torch documents it under this name

from promptmii.config import Endpoint, ServeSettings
from promptmii.errors import EndpointError, PromptMIIError
from promptmii.follower import Follower
from promptmii.models.wrappers import for_threads
from promptmii.progress import Progress
from promptmii.serving import served
from promptmii.serving.local import visible_devices
from promptmii.serving.process import LOOPBACK
from promptmii.train.settings import TrainSettings

PAUSE = 0.005
"""Seconds between attempts to take a slot."""


class SharedSlots:
    """A limit on the concurrent requests of all processes together. Each request runs in an `async with` block.

    The main process keeps the count in a store. A killed process never returns its slots, but its death ends the run.
    """

    def __init__(self, store: TCPStore, limit: int) -> None:
        self._store, self._limit = store, limit
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> None:
        async with self._turn:  # in each process, only the oldest waiting request polls
            while self._count(1) > self._limit:
                self._count(-1)
                await asyncio.sleep(PAUSE)

    async def __aexit__(self, *_: object) -> None:
        self._count(-1)

    def _count(self, change: int) -> int:
        try:
            return self._store.add("requests", change)
        except RuntimeError as error:
            raise EndpointError(f"The main process of this run has ended: {error}") from error


@contextmanager
def open_followers(
    settings: TrainSettings, folder: Path, state: PartialState, progress: Progress
) -> Generator[list[Follower]]:
    """Load the followers in each process. If that fails, all processes raise the `ModelError` or `ConfigError`."""
    reward, distributed, main = settings.reward, state.num_processes > 1, state.is_main_process
    main_host = os.environ.get("MASTER_ADDR", LOOPBACK)
    with ExitStack() as stack:
        store = TCPStore(main_host, 0, is_master=True, wait_for_workers=False) if distributed and main else None
        endpoint: Endpoint | PromptMIIError = settings.endpoint
        if reward.serve and main:
            serve = _on_free_gpus(reward.serve)
            host = LOOPBACK if _local_processes() == state.num_processes else main_host
            serving = served(reward.followers, serve, settings.endpoint, folder / "servers", progress, host=host)
            try:
                endpoint = stack.enter_context(serving)
            except PromptMIIError as error:  # to be raised in all processes, which wait for the addresses
                endpoint = error
        shared: list[Any] = [endpoint, store.port if store else 0]
        broadcast_object_list(shared)
        endpoint, port = shared
        if isinstance(endpoint, PromptMIIError):
            raise endpoint
        slots = None
        if distributed:
            slots = SharedSlots(store or TCPStore(main_host, port, wait_for_workers=False), endpoint.concurrency)
            if endpoint.max_cost:
                endpoint = endpoint.model_copy(update={"max_cost": endpoint.max_cost / state.num_processes})
        models = [for_threads(model) for model in map(endpoint.loader(slots=slots), reward.followers)]
        for model in models:
            stack.enter_context(closing(model))
        yield [Follower(model, reward.mode, reward.calibration) for model in models]


def _on_free_gpus(settings: ServeSettings) -> ServeSettings:
    """Place the servers on the GPUs that do not train on this machine, unless the settings name devices."""
    if settings.devices is not None or not torch.cuda.is_available():
        return settings
    devices = visible_devices() or [str(number) for number in range(torch.cuda.device_count())]
    return settings.model_copy(update={"devices": tuple(devices[_local_processes() :])})


def _local_processes() -> int:
    """Number of training processes on this machine, according to torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
