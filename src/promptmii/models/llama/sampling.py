"""How a next token is picked from logits: greedy, or with one random stream per row."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from promptmii.models.base import Sampling
from promptmii.models.llama.native import Logits
from promptmii.models.loops import loop_tokens


class Sampler:
    """Picks tokens for the rows of a batch.

    A row's random stream depends on its prompt, the seed and its ordinal among equal prompts.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], sampling: Sampling, ends: Collection[int]) -> None:
        """`prompts` has one entry per row."""
        self.ends = frozenset(ends)
        self._sampling = sampling
        self._written: list[list[int]] = [[] for _ in prompts]
        self._streams: list[np.random.Generator] = []
        seen: Counter[tuple[int, ...]] = Counter()
        for prompt in map(tuple, prompts) if sampling.temperature > 0 else ():
            digest = hashlib.sha256(repr((sampling.seed, seen[prompt], prompt)).encode()).digest()
            seen[prompt] += 1
            self._streams.append(np.random.default_rng(int.from_bytes(digest[:16], "big")))

    def __call__(self, logits: Logits, row: int) -> int:
        """The next token of a row, from its logits (V)."""
        written = self._written[row]
        if self._sampling.bar_loops and (barred := loop_tokens(written)):
            logits = logits.copy()
            logits[list(barred)] = -np.inf
        written.append(self._pick(logits, row))
        return written[-1]

    def _pick(self, logits: Logits, row: int) -> int:
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self._sampling.temperature
        chances = np.exp(scaled - scaled.max())
        if self._sampling.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            before = chances[order].cumsum() - chances[order]
            chances[order[before >= self._sampling.top_p * chances.sum()]] = 0
        reached = chances.cumsum()
        return int(np.searchsorted(reached, self._streams[row].random() * reached[-1], side="right"))
