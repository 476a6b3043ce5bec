"""How far training has moved the weights, on the drafts that were learned from last."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from promptmii.train.rl.likelihoods import can_share, draft_logps

COPIED = 5e8
"""Trained parameters up to which the values of the start are kept."""
DRIFTED = 16
"""Drafts of a rollout that are measured."""


class Drift:
    """log P now - log P at the start, per token."""

    def __init__(self, trained: Any) -> None:
        """`trained` has the weights of the start."""
        self._moving = [weights for weights in trained.parameters() if weights.requires_grad]
        small = sum(weights.numel() for weights in self._moving) <= COPIED
        self._start = [weights.detach().clone() for weights in self._moving] if small else []

    def of(self, model: Any, rollout: Sequence[tuple[list[int], list[int]]], temperature: float) -> dict[str, float]:
        """The curve's value for prompts and drafts as tokens; empty where it cannot be measured."""
        drafts = [pair for pair in rollout[:DRIFTED] if pair[1]]
        if not drafts or not self._start or not can_share(model):
            return {}
        with torch.no_grad():
            now = _sum(model, drafts, temperature)
            with self._as_at_the_start():
                then = _sum(model, drafts, temperature)
        return {"kl_to_start": (now - then) / sum(len(draft) for _, draft in drafts)}

    @contextmanager
    def _as_at_the_start(self) -> Generator[None]:
        own = [weights.data for weights in self._moving]
        try:
            for weights, value in zip(self._moving, self._start, strict=True):
                weights.data = value
            yield
        finally:
            for weights, value in zip(self._moving, own, strict=True):
                weights.data = value


def _sum(model: Any, drafts: Sequence[tuple[list[int], list[int]]], temperature: float) -> float:
    prompts, texts = zip(*drafts, strict=True)
    return sum(float(logps.sum()) for logps, _ in draft_logps(model, prompts, texts, temperature))
