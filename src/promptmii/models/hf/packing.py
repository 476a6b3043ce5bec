"""Many queries and all their label continuations in one forward pass, with nothing computed twice and nothing padded.

The tokens that a batch of chats has in common are processed once (`prefixes.py`). The rest of each chat, followed by
the tree of its possible answers, is a *block*. Blocks are laid end to end in one row, so the linear layers (nearly
all of the arithmetic) see real tokens only. A block attends to the shared prefix and itself: a query token to what
stands before it, a tree node to its query and its ancestors. Positions count as if each answer stood directly after
its query.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from promptmii.errors import UnsupportedError
from promptmii.models.batching import Tokens, Trie
from promptmii.models.hf.prefixes import Prefix

IMPLEMENTATION = "promptmii_packed"


@dataclass(frozen=True)
class Sizes:
    """How much is computed at a time."""

    row: int
    """Tokens of one row: enough to keep the device busy."""
    scores: int
    """Attention scores, however long the prefix."""
    logits: int
    """Positions times vocabulary."""
    decode_rows: int
    decode_memory: int
    """Bytes of keys and values that are held while decoding, the shared prefix aside."""
    alone: int
    """Tokens from which a prompt's own part is computed alone, by the usual kernel."""


CPU = Sizes(row=2048, scores=2**22, logits=2**25, decode_rows=64, decode_memory=2**30, alone=256)
"""Little enough for a processor's cache (measured)."""


@lru_cache
def sizes(device: torch.device) -> Sizes:
    """The sizes of rows and batches for this device."""
    if device.type != "cuda":
        return CPU
    # Its memory is the limit, and starting a kernel costs more than a short one takes, so rows are long.
    memory = torch.cuda.get_device_properties(device).total_memory
    share = memory // 2**6
    return Sizes(
        row=2**14, scores=share // 8, logits=share // 4, decode_rows=512, decode_memory=memory // 4, alone=2**11
    )


class Attention(Protocol):
    """The positions that the tokens of a row may attend to."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """From (H, L, D) scaled queries and (K, L, D) keys and values to (L, H, D)."""
        ...


NO_OPTIONS = Trie((), (), (), ())
"""For blocks that nothing follows."""


@dataclass(frozen=True)
class Group:
    """Neighbouring blocks of similar length, padded to the longest for the attention inside them."""

    index: torch.Tensor
    """(N, M) position in the packed row; padding repeats the group's first."""
    mask: torch.Tensor
    """(N, M, M) float, 0 where a token may look and -inf elsewhere."""
    real: torch.Tensor
    """The entries of the flat `index` that are no padding, in the order of the row."""


@dataclass(frozen=True)
class Packed(Attention):
    """One row of blocks, ready for a forward pass."""

    tokens: torch.Tensor
    """(1, L)"""
    positions: torch.Tensor
    """(1, L)"""
    prefix: Prefix
    """The prefix that every block attends to."""
    groups: tuple[Group, ...]
    starts: tuple[int, ...]
    """Where each block begins."""
    queries: tuple[int, ...]
    """How many query tokens each block has, before its tree."""
    nodes: int
    """How many tree nodes follow each query."""

    @cached_property
    def readout(self) -> torch.Tensor:
        """The positions whose logits are needed: of each query's last token, then of each tree node."""
        ends = torch.tensor(self.starts) + torch.tensor(self.queries) - 1
        return (ends[:, None] + torch.arange(self.nodes + 1)).flatten().to(self.tokens.device)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.attend_after(query, key, value, self.prefix.layer(layer))

    def attend_after(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """`attend`, with the prefix's keys and values (K, P, D) given."""
        heads, _, dim = query.shape
        shared = key.shape[0]
        parts: list[torch.Tensor] = []
        for group in self.groups:
            size, width = group.index.shape
            flat = group.index.view(-1)
            q = query.index_select(1, flat).view(shared, -1, size, width, dim).transpose(1, 2)
            k, v = (x.index_select(1, flat).view(shared, size, width, dim) for x in (key, value))
            # One long block alone can be too much for the memory: its rows are then taken piece by piece.
            piece = max(1, sizes(query.device).scores // (heads * size * (width + len(self.prefix.tokens))))
            rows = zip(q.split(piece, 3), group.mask.split(piece, 1), strict=True)
            out = torch.cat([attend_blocks(q_rows, k, v, mask, past) for q_rows, mask in rows], dim=3)
            parts.append(out.permute(1, 3, 0, 2, 4).reshape(size * width, heads, dim).index_select(0, group.real))
        return torch.cat(parts)


@dataclass(frozen=True)
class Forest(Attention):
    """Several rows, each with its own prefix, laid end to end."""

    rows: Sequence[Packed]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [row.tokens.shape[1] for row in self.rows]

    @property
    def tokens(self) -> torch.Tensor:
        """(1, L)"""
        return torch.cat([row.tokens for row in self.rows], dim=1)

    @property
    def positions(self) -> torch.Tensor:
        """(1, L)"""
        return torch.cat([row.positions for row in self.rows], dim=1)

    @property
    def readout(self) -> torch.Tensor:
        """See `Packed.readout`."""
        starts = accumulate(self.lengths[:-1], initial=0)
        return torch.cat([row.readout + start for row, start in zip(self.rows, starts, strict=True)])

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        parts = zip(*(states.split(self.lengths, dim=1) for states in (query, key, value)), strict=True)
        return torch.cat([row.attend(layer, *part) for row, part in zip(self.rows, parts, strict=True)])


@dataclass(frozen=True)
class RecordedRow(Attention):
    """A row whose keys and values are wanted afterwards."""

    packed: Packed
    layers: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list[tuple[torch.Tensor, torch.Tensor]])
    """(K, L, D) each, in the order of the layers."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        self.layers.append((key, value))
        return self.packed.attend(layer, query, key, value)


def attend_blocks(
    query: torch.Tensor,  # (K, N, R, M, D): R query heads share a key head
    key: torch.Tensor,  # (K, N, T, D)
    value: torch.Tensor,
    mask: torch.Tensor,  # (N, M, T)
    past: tuple[torch.Tensor, torch.Tensor] | None,  # (K, P, D) each
) -> torch.Tensor:
    """One softmax over the prefix shared by all N blocks (one dense product) and over each block's own keys."""
    shared, size, ratio, rows, dim = query.shape
    width = key.shape[2]
    inner = (query.reshape(shared, size, ratio * rows, dim) @ key.transpose(-1, -2)).view(
        shared, size, ratio, rows, width
    )
    inner += mask[:, None]
    if past is None:
        weights = torch.softmax(inner, dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights.view(shared, size, ratio * rows, width) @ value).view(query.shape)
    seen = past[0].shape[1]
    outer = (query.reshape(shared, -1, dim) @ past[0].transpose(-1, -2)).view(shared, size, ratio, rows, seen)
    weights = torch.softmax(torch.cat([outer, inner], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    own = weights[..., seen:].reshape(shared, size, ratio * rows, width) @ value
    return own.view(query.shape) + (weights[..., :seen].reshape(shared, -1, seen) @ past[1]).view(query.shape)


def pack(queries: Sequence[Tokens], trie: Trie, prefix: Prefix, device: torch.device) -> Packed:
    """Lay out `queries` (none empty, best sorted by length), each followed by `trie`, after `prefix`."""
    n, before = len(trie.tokens), len(prefix.tokens)
    tokens: list[int] = []
    positions: list[int] = []
    starts: list[int] = []
    for query in queries:
        starts.append(len(tokens))
        tokens += [*query, *trie.tokens]
        positions += [*range(before, before + len(query)), *(before + len(query) - 1 + d for d in trie.depth)]
    lengths = [len(query) for query in queries]
    groups: list[Group] = []
    first, most = 0, sizes(device).scores // 8
    for last in range(1, len(lengths) + 1):
        width = max(lengths[first : last + 1]) + n
        # At most an eighth of a group is padding, and its scores stay in bounds.
        full = (last + 1 - first) * width * (before + width) > most or min(
            lengths[first : last + 1]
        ) + n < width * 7 // 8
        if last == len(lengths) or full:
            groups.append(_group(starts[first:last], lengths[first:last], trie, device))
            first = last
    row = [torch.tensor([values], device=device) for values in (tokens, positions)]
    return Packed(row[0], row[1], prefix, tuple(groups), tuple(starts), tuple(lengths), n)


def _group(starts: Sequence[int], lengths: Sequence[int], trie: Trie, device: torch.device) -> Group:
    n = len(trie.tokens)
    visible = torch.zeros(n, n, dtype=torch.bool)  # row i may attend to column j: to itself and its ancestors
    for node in range(n):
        visible[node, trie.ancestors(node)] = True
    width = max(lengths) + n
    index = torch.full((len(starts), width), starts[0])
    real = torch.zeros(len(starts), width, dtype=torch.bool)
    sees = torch.zeros(len(starts), width, width, dtype=torch.bool)
    for g, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        index[g, : length + n] = torch.arange(start, start + length + n)
        real[g, : length + n] = True
        sees[g, :length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
        sees[g, length : length + n, :length] = True
        sees[g, length : length + n, length : length + n] = visible
    sees[:, :, 0] |= ~real  # a padded row must see something, or its softmax is 0/0
    mask = torch.zeros(sees.shape).masked_fill_(~sees, float("-inf"))
    return Group(index.to(device), mask.to(device), real.view(-1).nonzero().view(-1).to(device))


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    memory: Attention | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: `memory` computes where it is passed to the model, else the usual kernel."""
    if memory is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise UnsupportedError(
            f"{type(module).__name__} changes its attention scores in a way that packed rows do not support."
        )
    layer: Any = module.layer_idx
    return memory.attend(layer, query[0] * kwargs["scaling"], key[0], value[0])[None], None


def register() -> None:
    """Make the implementation known to transformers; the model is then set to `IMPLEMENTATION`."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
