"""What picking next tokens takes in every engine on this machine: a random stream per row, and no loops."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from promptmii.models.base import Sampling
from promptmii.models.batching import Tokens

LONGEST = 48
"""Tokens of the longest phrase that counts."""
ALONE = 8
"""Times that a single token may stand in a row, as the zeros of a number do; a phrase may stand twice."""
PLAUSIBLE = 0.1
"""Least chance of a token, as a part of the likeliest one's, under a contrast: what is absurd in both could win."""


class RowSampler:
    """What the rows of a batch have written, and the random stream of each.

    A row's stream depends on its prompt, the seed and its ordinal among equal prompts, never on its neighbours.
    """

    def __init__(self, prompts: Sequence[Tokens], sampling: Sampling, ends: Collection[int]) -> None:
        """`prompts` has one entry per row."""
        self.ends = frozenset(ends)
        self.sampling = sampling
        self._written: list[list[int]] = [[] for _ in prompts]
        self._streams: list[np.random.Generator] = []
        seen: Counter[tuple[int, ...]] = Counter()
        for prompt in map(tuple, prompts) if sampling.temperature > 0 else ():
            digest = hashlib.sha256(repr((sampling.seed, seen[prompt], prompt)).encode()).digest()
            seen[prompt] += 1
            self._streams.append(np.random.default_rng(int.from_bytes(digest[:16], "big")))

    def barred(self, row: int) -> list[int]:
        """Tokens that may not come next in this row."""
        return sorted(loop_tokens(self._written[row])) if self.sampling.bar_loops else []

    def draw(self, row: int) -> float:
        """The next random number of a row, between 0 and 1."""
        return float(self._streams[row].random())

    def keep(self, row: int, token: int) -> int:
        """The token, which the row has written now."""
        self._written[row].append(token)
        return token


def loop_tokens(written: Sequence[int]) -> set[int]:
    """The tokens that would let a phrase at the end of the text stand in a row once too often.

    Greedy text of small models can fall into such a loop ("late, late, late, ...").
    """
    barred: set[int] = set()
    for period in range(1, min(LONGEST, len(written) // 2) + 1):
        length = ALONE if period == 1 else 2 * period
        tail = written[-length:]
        phrase = period == 1 or len(set(tail)) > 1
        if phrase and len(tail) == length and tail[period:] == tail[:-period]:
            barred.add(tail[0])
    return barred
