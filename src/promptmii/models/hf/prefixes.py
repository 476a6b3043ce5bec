"""Common prefixes of chats, computed once and kept for later calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from promptmii.models.batching import common

CACHED = 4
"""Most cached prefixes: the instruction under test and a few earlier ones."""
CACHED_TOKENS = 8192
"""Most tokens of all cached prefixes together."""


@dataclass(frozen=True)
class Prefix:
    """Tokens with their keys and values (K, P, D) of each layer. An empty prefix has no layers."""

    tokens: tuple[int, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of one layer, or `None` for an empty prefix."""
        return (self.keys[index], self.values[index]) if self.tokens else None

    def cut(self, length: int) -> "Prefix":
        """The prefix of the first `length` tokens."""
        if length == len(self.tokens):
            return self
        if not length:
            return NO_PREFIX
        keys, values = (tuple(layer[:, :length] for layer in layers) for layers in (self.keys, self.values))
        return Prefix(self.tokens[:length], keys, values)

    def cache(self) -> DynamicCache:
        """A copy as a cache that transformers can extend."""
        cache = DynamicCache()
        for index, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key[None], value[None], index)
        return cache


NO_PREFIX = Prefix((), (), ())


class Prefixes:
    """Computes prefixes, starting each from the cached prefix with the longest match."""

    def __init__(self, model: Any) -> None:
        self._decoder: Any = model.get_decoder()
        self._device: torch.device = model.device
        self._cached: list[Prefix] = []

    def get(self, tokens: Sequence[int]) -> Prefix:
        """Keys and values of `tokens`."""
        tokens = tuple(tokens)
        best = max(self._cached, key=lambda prefix: common([prefix.tokens, tokens]), default=NO_PREFIX)
        start = best.cut(common([best.tokens, tokens]))
        result = start if len(start.tokens) == len(tokens) else self._extend(start, tokens)
        # A cut of a cached prefix need not be cached itself.
        if result is best or len(result.tokens) != len(start.tokens):
            self._cached = [result, *(prefix for prefix in self._cached if prefix is not result)][:CACHED]
            while len(self._cached) > 1 and sum(len(prefix.tokens) for prefix in self._cached) > CACHED_TOKENS:
                self._cached.pop()
        return result

    def _extend(self, start: Prefix, tokens: tuple[int, ...]) -> Prefix:
        cache = start.cache()
        new = torch.tensor([tokens[len(start.tokens) :]], device=self._device)
        self._decoder(input_ids=new, past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers
        return Prefix(tokens, tuple(layer.keys[0] for layer in layers), tuple(layer.values[0] for layer in layers))
