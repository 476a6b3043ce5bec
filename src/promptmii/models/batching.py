"""Prefix sharing and chunking of token sequences, for the engines on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

WORTH = 256
"""Tokens that a separate group must save to be worth a pass of its own."""

Tokens: TypeAlias = Sequence[int]
"""A sequence of token ids."""


@dataclass(frozen=True)
class Trie:
    """The options as a prefix tree of tokens, in depth-first order, so that a shared prefix is computed once.

    `tokens`, `depth` and `parents` have one entry per node.
    """

    tokens: tuple[int, ...]
    depth: tuple[int, ...]
    parents: tuple[int, ...]
    """The parent of each node; -1 stands for the last token of the prompt."""
    steps: tuple[tuple[tuple[int, int], ...], ...]
    """Per option, the (node, next token) pairs whose log-probabilities add up to its score."""

    @classmethod
    def build(cls, options: Sequence[Tokens], end: int) -> "Trie":
        """A tree of the options' tokens; `end` is the token that ends an answer, which the options lack."""
        paths = sorted({tuple(option[:i]) for option in options for i in range(1, len(option) + 1)})
        nodes = {path: node for node, path in enumerate(paths)} | {(): -1}
        steps = (
            tuple((nodes[tuple(option[:i])], token) for i, token in enumerate([*option, end])) for option in options
        )
        return cls(
            tuple(path[-1] for path in paths),
            tuple(map(len, paths)),
            tuple(nodes[path[:-1]] for path in paths),
            tuple(steps),
        )

    def ancestors(self, node: int) -> list[int]:
        """The node and its ancestors, from the bottom up."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path

    @property
    def leaves(self) -> list[int]:
        """Nodes without children."""
        inner = set(self.parents)
        return [node for node in range(len(self.tokens)) if node not in inner]


def common(prompts: Sequence[Tokens]) -> int:
    """Length of the common prefix."""
    low, high = min(prompts, key=list), max(prompts, key=list)  # in sorted order, these two share the least
    limit = min(map(len, prompts))
    return next((i for i in range(limit) if low[i] != high[i]), limit)


def prefix_groups(prompts: Sequence[Tokens]) -> list[tuple[int, list[int]]]:
    """Groups of prompts to compute together: the length of the shared prefix, and the indices of the prompts.

    The prefix leaves each prompt at least one token, because the logits of the last one are needed. Prompts with
    different instructions are separate groups if that saves enough.
    """
    return _split(prompts, sorted(range(len(prompts)), key=lambda i: list(prompts[i])))


def _split(prompts: Sequence[Tokens], order: list[int]) -> list[tuple[int, list[int]]]:
    if not order:
        return []
    shared = _shared(prompts, order)
    together: list[int] = []
    apart: list[tuple[int, list[int]]] = []
    for _, members in groupby(order, key=lambda i: prompts[i][shared]):
        child = list(members)
        if len(child) < len(order) and (len(child) - 1) * (_shared(prompts, child) - shared) >= WORTH:
            apart += _split(prompts, child)
        else:
            together += child
    return [*([(shared, together)] if together else []), *apart]


def _shared(prompts: Sequence[Tokens], order: Sequence[int]) -> int:
    limit = min(len(prompts[i]) for i in order) - 1
    return min(limit, common([prompts[order[0]], prompts[order[-1]]]))


def chunks(lengths: Sequence[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Split indices, sorted by length, into chunks of at most `most` indices.

    The lengths in a chunk add up to at most `budget`, unless it has only one index.
    """
    chunk: list[int] = []
    used = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunk and (used + lengths[i] > budget or len(chunk) == most):
            yield chunk
            chunk, used = [], 0
        chunk.append(i)
        used += lengths[i]
    if chunk:
        yield chunk
