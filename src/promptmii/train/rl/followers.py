"""The frozen followers of a run: every process asks them; the main one starts their servers, if that is asked for."""

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
"""Seconds between two looks for a free slot."""


class SharedSlots:
    """One limit on the requests that all processes of a run have under way: `async with` it around each.

    They are counted in a store that the main process serves. A process that is killed takes its requests with it into
    the count, but it also ends the run, and the store with it.
    """

    def __init__(self, store: TCPStore, most: int) -> None:
        self._store, self._most = store, most
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> None:
        async with self._turn:  # of the requests of one process the oldest alone looks
            while self._count(1) > self._most:
                self._count(-1)
                await asyncio.sleep(PAUSE)

    async def __aexit__(self, *_: object) -> None:
        self._count(-1)

    def _count(self, more: int) -> int:
        try:
            return self._store.add("requests", more)
        except RuntimeError as error:
            raise EndpointError(f"The main process of this run has ended: {error}") from error


@contextmanager
def open_followers(
    settings: TrainSettings, folder: Path, state: PartialState, progress: Progress
) -> Generator[list[Follower]]:
    """The followers as each of the processes asks them, loaded. Raises `ModelError`, `ConfigError` in all of them."""
    reward, several, main = settings.reward, state.num_processes > 1, state.is_main_process
    host = os.environ.get("MASTER_ADDR", LOOPBACK)  # of the main process
    with ExitStack() as stack:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False) if several and main else None
        told: list[Any] = [settings.endpoint, store.port if store else 0]
        if reward.serve and main:
            serve = _beside_training(reward.serve)
            reached = LOOPBACK if _on_this_machine() == state.num_processes else host
            serving = served(reward.followers, serve, settings.endpoint, folder / "servers", progress, host=reached)
            try:
                told[0] = stack.enter_context(serving)
            except PromptMIIError as error:  # the others wait for the addresses
                told[0] = error
        broadcast_object_list(told)
        if isinstance(told[0], PromptMIIError):
            raise told[0]
        endpoint: Endpoint = told[0]
        slots = None
        if several:
            slots = SharedSlots(store or TCPStore(host, told[1], wait_for_workers=False), endpoint.concurrency)
            if endpoint.max_cost:
                endpoint = endpoint.model_copy(update={"max_cost": endpoint.max_cost / state.num_processes})
        limit = endpoint.limit()
        loaded = [for_threads(endpoint.load(name, limit=limit, slots=slots)) for name in reward.followers]
        for model in loaded:
            stack.enter_context(closing(model))
        yield [Follower(model, reward.mode, reward.calibration) for model in loaded]


def _beside_training(settings: ServeSettings) -> ServeSettings:
    """With the GPUs of this machine that no training process has, unless the settings name them."""
    if settings.devices is not None or not torch.cuda.is_available():
        return settings
    devices = visible_devices() or [str(number) for number in range(torch.cuda.device_count())]
    return settings.model_copy(update={"devices": tuple(devices[_on_this_machine() :])})


def _on_this_machine() -> int:
    """Processes of the run, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
