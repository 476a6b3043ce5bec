"""Many queries and all their possible answers in one forward pass, with nothing computed twice and nothing padded.

The common prefix of a batch of chats is processed once (`prefixes.py`). The rest of each chat (its *query*), followed
by the tree of possible answers, is a *block*. Blocks are laid end to end in one row, so the linear layers, which do
nearly all of the arithmetic, see only real tokens. A block attends to the shared prefix and to itself: a query token
to the tokens before it, a tree node to its query and its ancestors. Each answer is positioned directly after its query.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

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
    """Limits on how much is computed at a time."""

    row: int
    """Tokens per row: enough to keep the device busy."""
    scores: int
    """Attention scores in memory, however long the prefix."""
    logits: int
    """Logits per row: positions times vocabulary."""
    decode_rows: int
    """Rows per decoding batch."""
    decode_memory: int
    """Bytes of keys and values in a decoding batch, not counting the shared prefix."""
    long_suffix: int
    """From this many tokens on, a prompt's suffix is computed in a pass of its own, with the usual kernel."""

    def halved(self) -> Self:
        """Half of everything that takes memory."""
        names = ("row", "scores", "logits", "decode_rows", "decode_memory")
        return replace(self, **{name: max(1, getattr(self, name) // 2) for name in names})


CPU = Sizes(row=2048, scores=2**22, logits=2**25, decode_rows=64, decode_memory=2**30, long_suffix=256)
"""Small enough for a CPU's cache (measured)."""


def sizes(device: torch.device) -> Sizes:
    """The limits for a device of which nothing else takes the memory."""
    if device.type != "cuda":
        return CPU
    # On a GPU, memory is the limit, and rows are long because starting a kernel costs more than running a short one.
    memory = torch.cuda.get_device_properties(device).total_memory
    share = memory // 2**6
    return Sizes(
        row=2**14, scores=share // 8, logits=share // 4, decode_rows=512, decode_memory=memory // 4, long_suffix=2**11
    )


class Attention(Protocol):
    """Computes the attention of a row's tokens in place of the model's own attention layers."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """From scaled queries (H, L, D), and keys and values (K, L, D), to outputs (L, H, D)."""
        ...


NO_OPTIONS = Trie((), (), (), ())
"""For blocks without answers."""


@dataclass(frozen=True)
class Group:
    """Neighbouring blocks of similar length and one prefix, padded to the longest for attention within the blocks."""

    prefix: Prefix
    """The prefix that the blocks attend to."""
    index: torch.Tensor
    """(N, M): positions in the packed row; padding repeats the group's first position."""
    mask: torch.Tensor
    """(N, M, M): 0 where a token may attend, else -inf."""
    real: torch.Tensor
    """Indices of the real tokens (not padding) in the flattened `index`, in row order."""


@dataclass(frozen=True)
class Packed(Attention):
    """One row of blocks, ready for a forward pass."""

    tokens: torch.Tensor
    """(1, L)"""
    positions: torch.Tensor
    """(1, L)"""
    groups: tuple[Group, ...]
    starts: tuple[int, ...]
    """The position in the row of each block's first token."""
    queries: tuple[int, ...]
    """The number of query tokens in each block."""
    nodes: int
    """The number of tree nodes after each query."""
    limits: Sizes
    layers: list[tuple[torch.Tensor, torch.Tensor]] | None = None
    """Collects the keys and values (K, L, D) of each layer, if it is a list."""

    @cached_property
    def readout(self) -> torch.Tensor:
        """Positions whose logits are needed: for each block, its last query token and its tree nodes."""
        ends = torch.tensor(self.starts) + torch.tensor(self.queries) - 1
        return (ends[:, None] + torch.arange(self.nodes + 1)).flatten().to(self.tokens.device)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if self.layers is not None:
            self.layers.append((key, value))
        return self.attend_after(query, key, value, [group.prefix.layer(layer) for group in self.groups])

    def attend_after(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        pasts: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
    ) -> torch.Tensor:
        """`attend`, with the keys and values (K, P, D) of each group's prefix as an argument."""
        heads, _, dim = query.shape
        key_heads = key.shape[0]
        parts: list[torch.Tensor] = []
        for group, past in zip(self.groups, pasts, strict=True):
            size, width = group.index.shape
            flat = group.index.view(-1)
            q = query.index_select(1, flat).view(key_heads, -1, size, width, dim).transpose(1, 2)
            k, v = (x.index_select(1, flat).view(key_heads, size, width, dim) for x in (key, value))
            # The scores of a single long block may exceed the memory, so its queries are taken a few at a time.
            step = max(1, self.limits.scores // (heads * size * (width + len(group.prefix.tokens))))
            pieces = zip(q.split(step, 3), group.mask.split(step, 1), strict=True)
            out = torch.cat([attend_blocks(piece, k, v, mask, past) for piece, mask in pieces], dim=3)
            parts.append(out.permute(1, 3, 0, 2, 4).reshape(size * width, heads, dim).index_select(0, group.real))
        return torch.cat(parts)


def attend_blocks(
    query: torch.Tensor,  # (K, N, R, M, D), with R query heads per key head
    key: torch.Tensor,  # (K, N, T, D)
    value: torch.Tensor,
    mask: torch.Tensor,  # (N, M, T)
    past: tuple[torch.Tensor, torch.Tensor] | None,  # (K, P, D) each
) -> torch.Tensor:
    """One softmax over the prefix that all N blocks share (one dense product) and each block's own keys."""
    key_heads, size, ratio, rows, dim = query.shape
    width = key.shape[2]
    own_scores = query.reshape(key_heads, size, ratio * rows, dim) @ key.transpose(-1, -2)
    own_scores = own_scores.view(key_heads, size, ratio, rows, width)
    own_scores += mask[:, None]
    if past is None:
        weights = torch.softmax(own_scores, dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights.view(key_heads, size, ratio * rows, width) @ value).view(query.shape)
    past_keys, past_values = past
    length = past_keys.shape[1]
    past_scores = query.reshape(key_heads, -1, dim) @ past_keys.transpose(-1, -2)
    past_scores = past_scores.view(key_heads, size, ratio, rows, length)
    weights = torch.softmax(torch.cat([past_scores, own_scores], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)
    from_own = weights[..., length:].reshape(key_heads, size, ratio * rows, width) @ value
    from_past = weights[..., :length].reshape(key_heads, -1, length) @ past_values
    return from_own.view(query.shape) + from_past.view(query.shape)


def pack(rows: Sequence[tuple[Prefix, Sequence[Tokens]]], trie: Trie, device: torch.device, limits: Sizes) -> Packed:
    """Lay out non-empty queries, preferably sorted by length, after their prefix, each followed by `trie`."""
    tokens: list[int] = []
    positions: list[int] = []
    starts: list[int] = []
    groups: list[Group] = []
    for prefix, queries in rows:
        first, offset = len(starts), len(prefix.tokens)
        for query in queries:
            starts.append(len(tokens))
            tokens += [*query, *trie.tokens]
            end = offset + len(query)
            positions += [*range(offset, end), *(end - 1 + depth for depth in trie.depth)]
        groups += _groups(starts[first:], [len(query) for query in queries], trie, prefix, device, limits.scores // 8)
    lengths = tuple(len(query) for _, queries in rows for query in queries)
    row_tokens, row_positions = (torch.tensor([values], device=device) for values in (tokens, positions))
    return Packed(row_tokens, row_positions, tuple(groups), tuple(starts), lengths, len(trie.tokens), limits)


def _groups(
    starts: Sequence[int], lengths: Sequence[int], trie: Trie, prefix: Prefix, device: torch.device, most_scores: int
) -> Iterator[Group]:
    nodes, first = len(trie.tokens), 0
    for last in range(1, len(lengths) + 1):
        # The group with one more block: its scores must stay in bounds, and at most an eighth of it may be padding.
        candidate = lengths[first : last + 1]
        width = max(candidate) + nodes
        too_large = (last + 1 - first) * width * (len(prefix.tokens) + width) > most_scores
        too_uneven = min(candidate) + nodes < width * 7 // 8
        if last == len(lengths) or too_large or too_uneven:
            yield _group(starts[first:last], lengths[first:last], trie, prefix, device)
            first = last


def _group(starts: Sequence[int], lengths: Sequence[int], trie: Trie, prefix: Prefix, device: torch.device) -> Group:
    n = len(trie.tokens)
    visible = torch.zeros(n, n, dtype=torch.bool)  # node i attends to node j: itself or an ancestor
    for node in range(n):
        visible[node, trie.ancestors(node)] = True
    width = max(lengths) + n
    index = torch.full((len(starts), width), starts[0])
    real = torch.zeros(len(starts), width, dtype=torch.bool)
    allowed = torch.zeros(len(starts), width, width, dtype=torch.bool)
    for block, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        end = length + n
        index[block, :end] = torch.arange(start, start + end)
        real[block, :end] = True
        allowed[block, :length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
        allowed[block, length:end, :length] = True
        allowed[block, length:end, length:end] = visible
    allowed[:, :, 0] |= ~real  # padding must attend to something, or its softmax is 0/0
    mask = torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
    return Group(prefix, index.to(device), mask.to(device), real.view(-1).nonzero().view(-1).to(device))


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    memory: Attention | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for transformers' attention interface: by `memory` if the model was called with it, else as usual."""
    if memory is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise UnsupportedError(
            f"{type(module).__name__} changes its attention scores in a way that packed rows do not support."
        )
    layer: Any = module.layer_idx
    return memory.attend(layer, query[0] * kwargs["scaling"], key[0], value[0])[None], None


def unused_mask(device: torch.device) -> torch.Tensor:
    """The mask of a pass with `memory`, which ignores it: transformers takes a four-dimensional mask as it is.

    It is NaN, so that a layer that attends without `memory` does not compute something wrong unnoticed.
    """
    return torch.full((1, 1, 1, 1), float("nan"), device=device)


def register() -> None:
    """Register the attention implementation with transformers under the name `IMPLEMENTATION`."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
