"""Many queries and all their label continuations in one forward pass, with nothing computed twice and nothing padded.

The tokens that a batch of chats has in common are processed once and stay in the key-value cache. What is left of each chat, followed
by the tree of its possible answers, is a *block*; blocks are laid end to end in one row, so the linear layers (nearly all of the
arithmetic) see real tokens only. Attention lets a block see the shared prefix and itself: a query token what stands before it, a
tree node its query and its ancestors. Positions count as if each answer stood directly after its query.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "promptmii_packed"
SCORES = 2**21
"""Attention scores per head that are held at a time; bounds memory whatever the length of the prefix."""


@dataclass(frozen=True)
class Trie:
    """The answers as a tree of tokens, depth first, so that a common beginning is evaluated once. All lists run over its N nodes."""

    tokens: tuple[int, ...]
    depth: tuple[int, ...]
    visible: torch.Tensor
    """(N, N) bool: row i may attend to column j, that is, j is i or one of its ancestors."""
    steps: tuple[tuple[tuple[int, int], ...], ...]
    """Per option, (node, next token) pairs whose log-probabilities add up to its score; node -1 is the query's last token."""

    @classmethod
    def build(cls, options: Sequence[Sequence[int]], end: int) -> "Trie":
        """From the options' tokens, without `end`, the token that closes an answer."""
        nodes: dict[tuple[int, ...], int] = {}
        for path in sorted({tuple(option[:i]) for option in options for i in range(1, len(option) + 1)}):
            nodes[path] = len(nodes)
        visible = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for path, node in nodes.items():
            visible[node, [nodes[path[:i]] for i in range(1, len(path) + 1)]] = True
        steps = tuple(tuple((nodes.get(tuple(option[:i]), -1), token) for i, token in enumerate([*option, end])) for option in options)
        return cls(tuple(path[-1] for path in nodes), tuple(len(path) for path in nodes), visible, steps)


@dataclass(frozen=True)
class Group:
    """Blocks of similar length, padded to the longest for the attention inside them."""

    index: torch.Tensor
    """(G, M) position in the packed row; padding repeats position 0."""
    mask: torch.Tensor
    """(G, M, M) float, 0 where a token may look and -inf elsewhere."""
    real: torch.Tensor
    """(G, M) bool."""


@dataclass(frozen=True)
class Packed:
    """One row of blocks, ready for a forward pass."""

    tokens: torch.Tensor
    """(1, L)"""
    positions: torch.Tensor
    """(1, L)"""
    prefix: int
    """Tokens in the cache that every block sees."""
    groups: tuple[Group, ...]
    starts: tuple[int, ...]
    """Where each block begins."""
    queries: tuple[int, ...]
    """How many query tokens each block has, before its tree."""


def pack(queries: Sequence[Sequence[int]], trie: Trie, prefix: int, device: torch.device) -> Packed:
    """Lay out the blocks of `queries` (none of them empty), each followed by `trie`, after `prefix` cached tokens."""
    n = len(trie.tokens)
    tokens: list[int] = []
    positions: list[int] = []
    starts: list[int] = []
    for query in queries:
        starts.append(len(tokens))
        tokens += [*query, *trie.tokens]
        positions += [*range(prefix, prefix + len(query)), *(prefix + len(query) - 1 + d for d in trie.depth)]
    lengths = [len(query) for query in queries]
    width = max(lengths) + n
    size = max(1, SCORES // (width * (prefix + width)))
    groups = tuple(_group(starts[i : i + size], lengths[i : i + size], trie, device) for i in range(0, len(queries), size))
    row = [torch.tensor([values], device=device) for values in (tokens, positions)]
    return Packed(row[0], row[1], prefix, groups, tuple(starts), tuple(lengths))


def _group(starts: Sequence[int], lengths: Sequence[int], trie: Trie, device: torch.device) -> Group:
    n = len(trie.tokens)
    width = max(lengths) + n
    index = torch.zeros(len(starts), width, dtype=torch.long)
    real = torch.zeros(len(starts), width, dtype=torch.bool)
    sees = torch.zeros(len(starts), width, width, dtype=torch.bool)
    for g, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        index[g, : length + n] = torch.arange(start, start + length + n)
        real[g, : length + n] = True
        sees[g, :length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
        sees[g, length : length + n, :length] = True
        sees[g, length : length + n, length : length + n] = trie.visible
    sees[:, :, 0] |= ~real  # a padded row must see something, or its softmax is 0/0
    mask = torch.zeros(sees.shape).masked_fill_(~sees, float("-inf"))
    return Group(index.to(device), mask.to(device), real.to(device))


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (B, H, L, D)
    key: torch.Tensor,  # (B, K, P + L, D)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: Packed | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: scaled dot products as usual, or block by block where `packed` is passed to the model."""
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    heads, dim = query.shape[1], query.shape[3]
    shared = key.shape[1]
    q = (query[0] * kwargs["scaling"]).view(shared, heads // shared, -1, dim)  # (K, R, L, D): R query heads share a key head
    past_k, past_v = key[0, :, : packed.prefix], value[0, :, : packed.prefix]
    own_k, own_v = key[0, :, packed.prefix :], value[0, :, packed.prefix :]
    out = torch.empty_like(q)
    for group in packed.groups:
        size, width = group.index.shape
        flat = group.index.reshape(-1)
        q_g = q[:, :, flat].view(shared, -1, size, width, dim)  # (K, R, G, M, D)
        k_g, v_g = (x[:, flat].view(shared, 1, size, width, dim) for x in (own_k, own_v))
        inner = q_g @ k_g.transpose(-1, -2) + group.mask.to(q.dtype)  # (K, R, G, M, M)
        outer = (q_g.reshape(shared, -1, dim) @ past_k.transpose(-1, -2)).view(*inner.shape[:-1], -1)  # (K, R, G, M, P)
        weights = torch.softmax(torch.cat([outer, inner], dim=-1), dim=-1, dtype=torch.float32).to(q.dtype)
        mixed = weights[..., packed.prefix :] @ v_g
        mixed += (weights[..., : packed.prefix].reshape(shared, -1, packed.prefix) @ past_v).view_as(mixed)
        out[:, :, group.index[group.real]] = mixed.flatten(2, 3)[:, :, group.real.reshape(-1)]
    return out.view(1, heads, -1, dim).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the implementation known to transformers; the model is then loaded with `attn_implementation=IMPLEMENTATION`."""
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def chunks(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in order of length, cut so that the lengths of each chunk add up to at most `budget` (or one index)."""
    order = iter(sorted(range(len(lengths)), key=lengths.__getitem__))
    chunk: list[int] = []
    used = 0
    for i in order:
        if chunk and used + lengths[i] > budget:
            yield chunk
            chunk, used = [], 0
        chunk.append(i)
        used += lengths[i]
    if chunk:
        yield chunk
