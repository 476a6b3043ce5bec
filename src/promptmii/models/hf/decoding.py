"""Writing token by token: what each row has generated so far, and how its next token is picked."""

import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from promptmii.models.hf.packing import Attention
from promptmii.models.hf.prefixes import Prefix
from promptmii.models.local import PLAUSIBLE, RowSampler

Suffix: TypeAlias = Sequence[tuple[torch.Tensor, ...]]
"""Keys and values (K, T, D) of each layer."""
FEW = 16
GROWTH = 64
"""Columns that are added at a time, so that a long answer is not copied at every token."""


class DecodingCache(Attention):
    """Keys and values of the rows being written: the shared prefix, the rest of each prompt, and the text of each row.

    Each is stored once, so several drafts of one prompt cost little more than one.
    """

    def __init__(self, prefix: Prefix, suffixes: Sequence[Suffix], owners: Sequence[int]) -> None:
        """`suffixes` are the prompts after the prefix; `owners` is the prompt of each row to write."""
        self._prefix = prefix
        lengths = [rest[0][0].shape[1] for rest in suffixes]
        first = suffixes[0][0][0]
        mask = torch.zeros(len(suffixes), max(lengths), dtype=first.dtype, device=first.device)
        for row, length in enumerate(lengths):
            mask[row, length:] = float("-inf")
        self._mask = mask
        self._suffixes = [
            tuple(_padded([pair[side] for pair in layer]) for side in (0, 1)) for layer in zip(*suffixes, strict=True)
        ]
        self._generated = [
            tuple(first.new_zeros(first.shape[0], len(owners), GROWTH, first.shape[2]) for _ in (0, 1))
            for _ in self._suffixes
        ]
        self._length = 0
        self._place(owners)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of one new token per row: one softmax over the three parts."""
        heads, rows, dim = query.shape
        shared = key.shape[0]
        keys, values = (part[:, :, : self._length] for part in self._generated[layer])
        keys[:, :, -1], values[:, :, -1] = key, value
        suffix_keys, suffix_values = self._suffixes[layer]
        width = suffix_keys.shape[2]
        queries = query.view(shared, -1, rows, dim).transpose(1, 2)  # (K, N, R, D)
        by_prompt = queries[:, self._slots].reshape(shared, len(self._mask), -1, dim)
        rest = (by_prompt @ suffix_keys.transpose(-1, -2) + self._mask[:, None]).view(
            shared, len(self._slots), -1, width
        )
        scores = [queries @ keys.transpose(-1, -2), rest[:, self._back]]
        past = self._prefix.layer(layer)
        if past:
            scores.append((queries.reshape(shared, -1, dim) @ past[0].transpose(-1, -2)).view(*queries.shape[:3], -1))
        weights = torch.softmax(torch.cat(scores, dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
        generated, rest, *outer = weights.split([part.shape[-1] for part in scores], dim=-1)
        by_prompt = rest[:, self._slots].reshape(shared, len(self._mask), -1, width) @ suffix_values
        out = generated @ values + by_prompt.view(shared, len(self._slots), -1, dim)[:, self._back]
        if past:
            out = out + (outer[0].reshape(shared, -1, past[1].shape[1]) @ past[1]).view(out.shape)
        return out.transpose(0, 1).reshape(rows, heads, dim)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the others."""
        picked = torch.tensor(rows, device=self._mask.device)
        self._generated = [tuple(part[:, picked] for part in layer) for layer in self._generated]
        owners = [self._owners[row] for row in rows]
        used = sorted(set(owners))
        if 2 * len(used) <= len(self._mask):  # not at every end of a row, because it copies what stays
            prompts = torch.tensor(used, device=self._mask.device)
            self._mask = self._mask[prompts]
            self._suffixes = [tuple(part[:, prompts] for part in layer) for layer in self._suffixes]
            owners = [used.index(owner) for owner in owners]
        self._place(owners)

    def grow(self) -> None:
        """Make room for one more token of every row."""
        if self._length == self._generated[0][0].shape[2]:
            self._generated = [tuple(F.pad(part, (0, 0, 0, GROWTH)) for part in layer) for layer in self._generated]
        self._length += 1

    def _place(self, owners: Sequence[int]) -> None:
        """Rows by prompt, each with as many places as the one with the most rows; spare places repeat row 0."""
        self._owners = list(owners)
        members: list[list[int]] = [[] for _ in self._mask]
        for row, owner in enumerate(owners):
            members[owner].append(row)
        most = max(map(len, members))
        slots = [row for rows in members for row in [*rows, *[0] * (most - len(rows))]]
        back = [owner * most + members[owner].index(row) for row, owner in enumerate(owners)]
        self._slots, self._back = (torch.tensor(places, device=self._mask.device) for places in (slots, back))


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """(K, P, W, D) of P parts (K, T, D), W the longest T."""
    width = max(part.shape[1] for part in parts)
    return torch.stack([F.pad(part, (0, 0, 0, width - part.shape[1])) for part in parts], dim=1)


class FewRows(TorchFunctionMode):
    """Linear layers on a handful of rows as weight times input rather than input times weight.

    The same up to rounding, and up to twice as fast on processors, where threads divide the rows of the weights among
    them (benchmarks/decode.py).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        rows, weight, *bias = args
        out = (weight @ rows.reshape(-1, rows.shape[-1]).t()).t().reshape(*rows.shape[:-1], -1)
        return out if not bias or bias[0] is None else out + bias[0]


def few_rows(count: int, device: torch.device) -> AbstractContextManager[object]:
    """Around a step that writes `count` rows."""
    return FewRows() if device.type == "cpu" and 2 <= count <= FEW else nullcontext()


def contrasted(logits: torch.Tensor, strength: float, ends: Collection[int]) -> torch.Tensor:
    """`Sampling.contrast` over logits (2N, V), those after the contrast in the second half; (N, V).

    Where the text may end, the prompt alone decides.
    """
    ours, against = logits.log_softmax(-1).chunk(2)
    implausible = ours < ours.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    turned = (ours + strength * (ours - against)).masked_fill(implausible, float("-inf"))
    may_end = ~implausible[:, list(ends)].all(-1, keepdim=True)
    return torch.where(may_end, ours, turned)


class TorchSampler(RowSampler):
    """Picks next tokens: greedy, or with a random stream per row, so that a sample is independent of its neighbours."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, from logits in the same order; under a contrast, its logits follow."""
        barred = [(place, token) for place, row in enumerate(rows) for token in self.barred(row)]
        if barred:  # in one assignment: on a GPU each costs as much as a layer
            logits = logits.index_put(tuple(torch.tensor(barred, device=logits.device).T), logits.new_tensor(-math.inf))
        if contrast := self.sampling.contrast:  # after the bar: something else must be plausible then
            logits = contrasted(logits, contrast.strength, self.ends)
        return [self.keep(row, token) for row, token in zip(rows, self._pick(logits, rows), strict=True)]

    def _pick(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        if self.sampling.temperature <= 0:
            return logits.argmax(-1).tolist()
        chances = torch.softmax(logits / self.sampling.temperature, dim=-1)
        if self.sampling.top_p < 1:
            ordered, order = chances.sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= self.sampling.top_p] = 0
            chances = torch.zeros_like(chances).scatter_(-1, order, ordered)
        # One random number a row, drawn here so that devices draw alike, instead of one for each token of the
        # vocabulary, which is what `multinomial` takes; and only the tokens picked leave the device.
        exact = torch.float32 if chances.device.type == "mps" else torch.float64  # which mps does not have
        reached = chances.to(exact).cumsum(-1)
        drawn = torch.tensor([self.draw(row) for row in rows], dtype=exact, device=chances.device)
        return torch.searchsorted(reached, (drawn * reached[:, -1])[:, None], right=True)[:, 0].tolist()
