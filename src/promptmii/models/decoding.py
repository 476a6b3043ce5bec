"""Writing token by token: what each row has said so far, and how its next token is picked."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from promptmii.models.base import Sampling
from promptmii.models.packing import look
from promptmii.models.prefixes import Prefix

Rest: TypeAlias = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (K, T, D) of each layer."""
MOST_FEW = 16
GROWTH = 64
"""Columns that are added at a time, so that a long answer is not copied at every token."""


class Tails:
    """Keys and values of the rows being written, each after its own prompt's rest; what the prompts share is kept once.

    Rows are aligned at their last token, so a step writes one column for all of them.
    """

    def __init__(self, prefix: Prefix, rests: Sequence[Rest], owners: Sequence[int]) -> None:
        """`rests` are the prompts after the prefix; `owners` is the prompt of each row to write."""
        self._prefix = prefix
        lengths = [rest[0][0].shape[1] for rest in rests]
        self._width = max(lengths)
        first = rests[0][0][0]
        mask = torch.zeros(len(rests), self._width, dtype=first.dtype, device=first.device)
        for row, length in enumerate(lengths):
            mask[row, : self._width - length] = float("-inf")
        self._mask = mask[list(owners), None]
        self._layers = [
            tuple(self._aligned([pair[side] for pair in layer], owners) for side in (0, 1)) for layer in zip(*rests, strict=True)
        ]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `packing.Memory`: every row is one new token."""
        heads, rows, dim = query.shape
        keys, values = self._layers[layer]
        keys[:, :, self._width - 1] = key
        values[:, :, self._width - 1] = value
        grouped = query.view(key.shape[0], -1, rows, 1, dim).transpose(1, 2)
        out = look(grouped, keys[:, :, : self._width], values[:, :, : self._width], self._mask, self._prefix.layer(layer))
        return out[:, :, :, 0].transpose(0, 1).reshape(rows, heads, dim)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the others."""
        picked = torch.tensor(rows, device=self._mask.device)
        self._mask = self._mask[picked]
        self._layers = [tuple(part[:, picked] for part in layer) for layer in self._layers]

    def grow(self) -> None:
        """Make room for one more token of every row."""
        if self._width == self._layers[0][0].shape[2]:
            self._layers = [tuple(F.pad(part, (0, 0, 0, GROWTH)) for part in layer) for layer in self._layers]
        self._mask = F.pad(self._mask, (0, 1))
        self._width += 1

    def _aligned(self, parts: Sequence[torch.Tensor], owners: Sequence[int]) -> torch.Tensor:
        """(K, N, width + GROWTH, D), each row's keys or values ending at the same column."""
        shared, _, dim = parts[0].shape
        whole = parts[0].new_zeros(shared, len(owners), self._width + GROWTH, dim)
        for row, owner in enumerate(owners):
            whole[:, row, self._width - parts[owner].shape[1] : self._width] = parts[owner]
        return whole


class FewRows(TorchFunctionMode):
    """Linear layers on a handful of rows as weight times input rather than input times weight.

    The same numbers up to rounding; on processors the library's product is up to twice as fast that way round, because it
    divides the weight's rows among the threads (benchmarks/decode.py).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        rows, weight, *bias = args
        out = (weight @ rows.reshape(-1, rows.shape[-1]).t()).t().reshape(*rows.shape[:-1], -1)
        return out if not bias or bias[0] is None else out + bias[0]


def few_rows(count: int, device: torch.device) -> AbstractContextManager[object]:
    """Around a step that writes `count` rows."""
    return FewRows() if device.type == "cpu" and 2 <= count <= MOST_FEW else nullcontext()


class Draw:
    """Picks next tokens: greedy, or with one random stream per row, so that a sample does not depend on its neighbours."""

    def __init__(self, prompts: Sequence[Sequence[int]], sampling: Sampling, ends: Collection[int]) -> None:
        """A stream is the same for the same prompt, seed and ordinal among equal prompts."""
        self.ends = frozenset(ends)
        self._sampling = sampling
        self._streams: list[torch.Generator] = []
        seen: Counter[tuple[int, ...]] = Counter()
        for prompt in map(tuple, prompts) if sampling.temperature > 0 else ():
            digest = hashlib.sha256(repr((sampling.seed, seen[prompt], prompt)).encode()).digest()
            seen[prompt] += 1
            self._streams.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, from logits in the same order."""
        if self._sampling.temperature <= 0:
            return logits.argmax(-1).tolist()
        chances = torch.softmax(logits / self._sampling.temperature, dim=-1).cpu()
        if self._sampling.top_p < 1:
            ordered, order = chances.sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= self._sampling.top_p] = 0
            chances = torch.zeros_like(chances).scatter_(-1, order, ordered)
        return [int(torch.multinomial(chances[at], 1, generator=self._streams[row])) for at, row in enumerate(rows)]
