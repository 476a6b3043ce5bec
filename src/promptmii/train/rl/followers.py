"""The frozen followers of a run: every process asks them; the main one starts their servers, if that is asked for."""

import os
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from promptmii.config import Endpoint, ServeSettings
from promptmii.errors import PromptMIIError
from promptmii.follower import Follower
from promptmii.models.dynamic_batching import for_threads
from promptmii.progress import Progress
from promptmii.serving import served
from promptmii.train.plan import Plan


@contextmanager
def open_followers(plan: Plan, folder: Path, state: PartialState, progress: Progress) -> Generator[list[Follower]]:
    """The followers as each of the processes asks them, loaded. Raises `ModelError`, `ConfigError` in all of them."""
    with ExitStack() as stack:
        given: list[Any] = [plan.endpoint]
        if plan.reward.serve:
            if state.is_main_process:
                serve = _beside_training(plan.reward.serve)
                serving = served(plan.reward.followers, serve, plan.endpoint, folder / "servers", progress)
                try:
                    given = [stack.enter_context(serving)]
                except PromptMIIError as error:  # the others wait for the addresses
                    given = [error]
            broadcast_object_list(given)
        if isinstance(given[0], PromptMIIError):
            raise given[0]
        endpoint: Endpoint = given[0]
        # The limit is that of all processes together; each gets equally many drafts to judge.
        share = endpoint.model_copy(update={"concurrency": max(1, endpoint.concurrency // state.num_processes)})
        models = [for_threads(share.load(reference)) for reference in plan.reward.followers]
        for model in models:
            stack.enter_context(closing(model))
        yield [Follower(model, plan.reward.mode, plan.reward.calibration) for model in models]


def _beside_training(settings: ServeSettings) -> ServeSettings:
    """With the GPUs of this machine that no training process has, unless the settings name them."""
    if settings.devices or not torch.cuda.is_available():
        return settings
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else None
    devices = shown or [str(number) for number in range(torch.cuda.device_count())]
    training = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return settings.model_copy(update={"devices": tuple(devices[training:])})
