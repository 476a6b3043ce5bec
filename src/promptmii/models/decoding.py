"""Writing token by token: what each row has said so far, and how its next token is picked."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from promptmii.models.base import Sampling
from promptmii.models.packing import Packed, look
from promptmii.models.prefixes import Prefix

GROWTH = 64
"""Columns that are added at a time, so that a long answer is not copied at every token."""


class Tails:
    """Keys and values of the rows being written, each after its own prompt's rest; what the prompts share is kept once.

    Rows are aligned at their last token, so a step writes one column for all of them.
    """

    def __init__(self, prefix: Prefix, rows: Sequence[tuple[Sequence[int], Packed]], owners: Sequence[int]) -> None:
        """`rows` are packed prompts with their numbers; `owners` is the prompt of each row to write."""
        self._prefix = prefix
        self._width = max(max(packed.queries) for _, packed in rows)
        order = [prompt for chunk, _ in rows for prompt in chunk]
        device = rows[0][1].tokens.device
        picked = torch.tensor([order.index(owner) for owner in owners], device=device)
        indices = [self._index(packed).to(device) for _, packed in rows]
        self._mask = torch.cat([torch.where(index < 0, float("-inf"), 0.0) for index in indices])[picked][:, None]
        layers = zip(*(packed.kept or () for _, packed in rows), strict=True)
        self._layers = [
            tuple(
                torch.cat([self._aligned(pair[side], index) for pair, index in zip(layer, indices, strict=True)], dim=1)[:, picked]
                for side in (0, 1)
            )
            for layer in layers
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

    def _index(self, packed: Packed) -> torch.Tensor:
        """(N, width) positions in the packed row, -1 before a row's beginning."""
        columns = torch.arange(self._width) - self._width
        ends = torch.tensor(packed.starts) + torch.tensor(packed.queries)
        index = ends[:, None] + columns
        return torch.where(index < torch.tensor(packed.starts)[:, None], -1, index)

    def _aligned(self, part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return part[:, index.clamp(min=0).view(-1)].view(part.shape[0], *index.shape, part.shape[2])


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
