"""Common prefixes of chats, computed once and cached for the next call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from promptmii.models.batching import common

REMEMBERED = 4
"""Cached prefixes: the instruction under test and a few earlier ones."""
REMEMBERED_TOKENS = 8192


@dataclass(frozen=True)
class Prefix:
    """Tokens with their keys and values, per layer (K, P, D). Without tokens there are no layers either."""

    tokens: tuple[int, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of one layer, or `None` for an empty prefix."""
        return (self.keys[index], self.values[index]) if self.tokens else None

    def cut(self, length: int) -> "Prefix":
        """The first `length` tokens."""
        if length == len(self.tokens):
            return self
        if not length:
            return NO_PREFIX
        halves = (tuple(part[:, :length] for part in half) for half in (self.keys, self.values))
        return Prefix(self.tokens[:length], *halves)

    def cache(self) -> DynamicCache:
        """A copy that transformers can extend."""
        cache = DynamicCache()
        for index, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key[None], value[None], index)
        return cache


NO_PREFIX = Prefix((), (), ())


class Prefixes:
    """Computes prefixes, each from the cached one with the longest match."""

    def __init__(self, model: Any) -> None:
        self._decoder: Any = model.get_decoder()
        self._device: torch.device = model.device
        self._cached: list[Prefix] = []

    def get(self, tokens: Sequence[int]) -> Prefix:
        """Keys and values of `tokens`."""
        wanted = tuple(tokens)
        best = max(self._cached, key=lambda prefix: common([prefix.tokens, wanted]), default=NO_PREFIX)
        start = best.cut(common([best.tokens, wanted]))
        result = start if len(start.tokens) == len(wanted) else self._extend(start, wanted)
        # A cut of a longer cached prefix is in the cache already.
        if result is best or len(result.tokens) != len(start.tokens):
            self._cached = [result, *(prefix for prefix in self._cached if prefix is not result)][:REMEMBERED]
            while len(self._cached) > 1 and sum(len(prefix.tokens) for prefix in self._cached) > REMEMBERED_TOKENS:
                self._cached.pop()
        return result

    def _extend(self, start: Prefix, tokens: tuple[int, ...]) -> Prefix:
        cache = start.cache()
        rest = torch.tensor([tokens[len(start.tokens) :]], device=self._device)
        self._decoder(input_ids=rest, past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers
        return Prefix(tokens, tuple(layer.keys[0] for layer in layers), tuple(layer.values[0] for layer in layers))
