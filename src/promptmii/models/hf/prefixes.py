"""What chats have in common: found by comparing tokens, computed once, and remembered for the next call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from promptmii.models.batching import common

REMEMBERED = 4
"""Prefixes that are kept: an instruction under test, and a few before it."""
REMEMBERED_TOKENS = 8192


@dataclass(frozen=True)
class Prefix:
    """Tokens with their keys and values, per layer (K, P, D). Without tokens there are no layers either."""

    tokens: tuple[int, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of one layer; `None` where there are no tokens."""
        return (self.keys[index], self.values[index]) if self.tokens else None

    def cut(self, length: int) -> "Prefix":
        """Its beginning."""
        if length == len(self.tokens):
            return self
        if not length:
            return NO_PREFIX
        halves = (tuple(part[:, :length] for part in half) for half in (self.keys, self.values))
        return Prefix(self.tokens[:length], *halves)

    def cache(self) -> DynamicCache:
        """A copy for transformers to go on from."""
        cache = DynamicCache()
        for index, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key[None], value[None], index)
        return cache


NO_PREFIX = Prefix((), (), ())


class Prefixes:
    """Computes prefixes, starting from the one remembered that goes furthest."""

    def __init__(self, model: Any) -> None:
        self._decoder: Any = model.get_decoder()
        self._device: torch.device = model.device
        self._kept: list[Prefix] = []

    def get(self, tokens: Sequence[int]) -> Prefix:
        """Keys and values of `tokens`."""
        wanted = tuple(tokens)
        best = max(self._kept, key=lambda known: common([known.tokens, wanted]), default=NO_PREFIX)
        start = best.cut(common([best.tokens, wanted]))
        found = start if len(start.tokens) == len(wanted) else self._extend(start, wanted)
        # Cut from a longer one it is remembered in that one already.
        if found is best or len(found.tokens) != len(start.tokens):
            self._kept = [found, *(known for known in self._kept if known is not found)][:REMEMBERED]
            while len(self._kept) > 1 and sum(len(known.tokens) for known in self._kept) > REMEMBERED_TOKENS:
                self._kept.pop()
        return found

    def _extend(self, start: Prefix, tokens: tuple[int, ...]) -> Prefix:
        cache = start.cache()
        rest = torch.tensor([tokens[len(start.tokens) :]], device=self._device)
        self._decoder(input_ids=rest, past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers
        return Prefix(tokens, tuple(layer.keys[0] for layer in layers), tuple(layer.values[0] for layer in layers))
