"""Token-by-token decoding: the keys and values of a batch, and the sampler that picks each next token."""

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
"""Most rows for which `FewRows` is faster."""
GROWTH = 64
"""Tokens by which the cache grows at a time, so that a long answer is not copied at every token."""


class DecodingCache(Attention):
    """Keys and values of a batch: the shared prefix, the rest of each prompt, and the text of each row so far.

    Each is stored once, so several drafts of one prompt cost little more than one.
    """

    def __init__(self, prefix: Prefix, suffixes: Sequence[Suffix], owners: Sequence[int]) -> None:
        """`suffixes` holds each prompt's part after the prefix, `owners` the index of each row's prompt."""
        self._prefix = prefix
        lengths = [suffix[0][0].shape[1] for suffix in suffixes]
        first = suffixes[0][0][0]
        mask = torch.zeros(len(suffixes), max(lengths), dtype=first.dtype, device=first.device)
        for row, length in enumerate(lengths):
            mask[row, length:] = float("-inf")
        self._mask = mask
        self._suffixes = [
            tuple(_padded(parts) for parts in zip(*layer, strict=True)) for layer in zip(*suffixes, strict=True)
        ]
        self._generated = [
            tuple(first.new_zeros(first.shape[0], len(owners), GROWTH, first.shape[2]) for _ in (0, 1))
            for _ in self._suffixes
        ]
        self._length = 0
        self._place(owners)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of one new token per row, with one softmax over its text, its prompt's suffix and the prefix."""
        heads, rows, dim = query.shape
        key_heads = key.shape[0]
        keys, values = (part[:, :, : self._length] for part in self._generated[layer])
        keys[:, :, -1], values[:, :, -1] = key, value
        suffix_keys, suffix_values = self._suffixes[layer]
        prompts, width = suffix_keys.shape[1:3]
        queries = query.view(key_heads, -1, rows, dim).transpose(1, 2)  # (K, N, R, D)
        by_prompt = queries[:, self._slots].reshape(key_heads, prompts, -1, dim)
        suffix_scores = by_prompt @ suffix_keys.transpose(-1, -2) + self._mask[:, None]
        suffix_scores = suffix_scores.view(key_heads, len(self._slots), -1, width)
        scores = [queries @ keys.transpose(-1, -2), suffix_scores[:, self._slot_of_row]]
        prefix = self._prefix.layer(layer)
        if prefix:
            prefix_scores = queries.reshape(key_heads, -1, dim) @ prefix[0].transpose(-1, -2)
            scores.append(prefix_scores.view(*queries.shape[:3], -1))
        weights = torch.softmax(torch.cat(scores, dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
        text_weights, suffix_weights, *prefix_weights = weights.split([part.shape[-1] for part in scores], dim=-1)
        from_suffix = suffix_weights[:, self._slots].reshape(key_heads, prompts, -1, width) @ suffix_values
        out = text_weights @ values + from_suffix.view(key_heads, len(self._slots), -1, dim)[:, self._slot_of_row]
        if prefix:
            from_prefix = prefix_weights[0].reshape(key_heads, -1, prefix[1].shape[1]) @ prefix[1]
            out = out + from_prefix.view(out.shape)
        return out.transpose(0, 1).reshape(rows, heads, dim)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        indices = torch.tensor(rows, device=self._mask.device)
        self._generated = [tuple(part[:, indices] for part in layer) for layer in self._generated]
        owners = [self._owners[row] for row in rows]
        used = sorted(set(owners))
        if 2 * len(used) <= len(self._mask):  # dropping prompts copies the others, so wait until half are unused
            prompts = torch.tensor(used, device=self._mask.device)
            self._mask = self._mask[prompts]
            self._suffixes = [tuple(part[:, prompts] for part in layer) for layer in self._suffixes]
            owners = [used.index(owner) for owner in owners]
        self._place(owners)

    def grow(self) -> None:
        """Make room for one more token in every row."""
        if self._length == self._generated[0][0].shape[2]:
            self._generated = [tuple(F.pad(part, (0, 0, 0, GROWTH)) for part in layer) for layer in self._generated]
        self._length += 1

    def _place(self, owners: Sequence[int]) -> None:
        """Assign rows to slots, equally many per prompt, so that one product serves all. Spare slots hold row 0."""
        self._owners = list(owners)
        members: list[list[int]] = [[] for _ in self._mask]
        for row, owner in enumerate(owners):
            members[owner].append(row)
        most = max(map(len, members))
        slots = [row for rows in members for row in [*rows, *[0] * (most - len(rows))]]
        slot_of_row = [owner * most + members[owner].index(row) for row, owner in enumerate(owners)]
        self._slots = torch.tensor(slots, device=self._mask.device)
        self._slot_of_row = torch.tensor(slot_of_row, device=self._mask.device)


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack P tensors (K, T, D) into one (K, P, W, D), where W is the largest T."""
    width = max(part.shape[1] for part in parts)
    return torch.stack([F.pad(part, (0, 0, 0, width - part.shape[1])) for part in parts], dim=1)


class FewRows(TorchFunctionMode):
    """Compute linear layers on a handful of rows as weight times input rather than input times weight.

    The result is the same up to rounding, and up to twice as fast on CPUs, whose threads divide the rows of the
    weights among themselves (benchmarks/decode.py).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        rows, weight, *bias = args
        out = (weight @ rows.reshape(-1, rows.shape[-1]).t()).t().reshape(*rows.shape[:-1], -1)
        return out if not bias or bias[0] is None else out + bias[0]


def few_rows(count: int, device: torch.device) -> AbstractContextManager[object]:
    """`FewRows` if it speeds up a step of `count` rows on this device."""
    return FewRows() if device.type == "cpu" and 2 <= count <= FEW else nullcontext()


def contrasted(logits: torch.Tensor, strength: float, ends: Collection[int]) -> torch.Tensor:
    """Apply `Sampling.contrast` to logits (2N, V), whose second half follows the contrast chat; returns (N, V).

    If ending the text is plausible, the contrast is ignored.
    """
    logps, contrast_logps = logits.log_softmax(-1).chunk(2)
    implausible = logps < logps.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    scores = (logps + strength * (logps - contrast_logps)).masked_fill(implausible, float("-inf"))
    may_end = ~implausible[:, list(ends)].all(-1, keepdim=True)
    return torch.where(may_end, logps, scores)


class TorchSampler(RowSampler):
    """Picks next tokens: greedily, or from a random stream per row, so that samples do not depend on other rows."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each of `rows`, from logits in the same order, followed by those of any contrast."""
        barred = [(i, token) for i, row in enumerate(rows) for token in self.barred(row)]
        if barred:  # in one assignment, because each costs as much as a layer on a GPU
            logits = logits.index_put(tuple(torch.tensor(barred, device=logits.device).T), logits.new_tensor(-math.inf))
        if contrast := self.sampling.contrast:  # after barring, so that plausibility is judged among allowed tokens
            logits = contrasted(logits, contrast.strength, self.ends)
        tokens = self._pick(logits, rows)
        for row, token in zip(rows, tokens, strict=True):
            self.append(row, token)
        return tokens

    def _pick(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        if self.sampling.temperature <= 0:
            return logits.argmax(-1).tolist()
        probabilities = torch.softmax(logits / self.sampling.temperature, dim=-1)
        if self.sampling.top_p < 1:
            descending, order = probabilities.sort(dim=-1, descending=True)
            descending[descending.cumsum(-1) - descending >= self.sampling.top_p] = 0
            probabilities = torch.zeros_like(probabilities).scatter_(-1, order, descending)
        # `multinomial` would draw a random number for every token of the vocabulary. This needs one per row, drawn on
        # the host so that every device picks alike, and only the picked tokens leave the device.
        dtype = torch.float32 if probabilities.device.type == "mps" else torch.float64  # mps has no float64
        cumulative = probabilities.to(dtype).cumsum(-1)
        draws = torch.tensor([self.draw(row) for row in rows], dtype=dtype, device=probabilities.device)
        return torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True)[:, 0].tolist()
