"""What the prompts of a batch have in common, so that nothing is computed twice; for every engine on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

WORTH = 256
"""Tokens that a group of its own must save before it is worth a pass of its own."""


Tokens: TypeAlias = Sequence[int]
"""Token ids in a row."""


@dataclass(frozen=True)
class Trie:
    """Possible answers as a tree of tokens, depth first, so that a common beginning is computed once.

    All tuples run over its N nodes.
    """

    tokens: tuple[int, ...]
    depth: tuple[int, ...]
    parents: tuple[int, ...]
    """The node before each; -1 is the prompt's last token."""
    steps: tuple[tuple[tuple[int, int], ...], ...]
    """Per option, (node, next token) pairs whose log-probabilities add up to its score."""

    @classmethod
    def build(cls, options: Sequence[Tokens], end: int) -> "Trie":
        """From the options' tokens, without `end`, the token that closes an answer."""
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
        """The node and those before it, the prompt left out."""
        found: list[int] = []
        while node >= 0:
            found.append(node)
            node = self.parents[node]
        return found

    @property
    def leaves(self) -> list[int]:
        """Nodes that no other follows."""
        inner = set(self.parents)
        return [node for node in range(len(self.tokens)) if node not in inner]


def common(prompts: Sequence[Tokens]) -> int:
    """How many tokens all of them begin with: the smallest and the largest differ first."""
    low, high = min(prompts, key=list), max(prompts, key=list)
    limit = min(map(len, prompts))
    return next((i for i in range(limit) if low[i] != high[i]), limit)


def prefix_groups(prompts: Sequence[Tokens]) -> list[tuple[int, list[int]]]:
    """Prompts (by index) that are best computed together, each group with the length of what it shares.

    Every prompt keeps at least one token of its own, because its last token's logits are needed. Prompts under one
    instruction are one group; those under two instructions are two, as soon as that saves enough.
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
    """Indices in order of length, cut so that each chunk's lengths add up to at most `budget` (or one index).

    `most` is the most indices of a chunk.
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
