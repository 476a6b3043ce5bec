"""Prefix sharing and chunking of token sequences, for the engines on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

MIN_SAVING = 256
"""Fewest tokens that a group must save to be computed separately."""

Tokens: TypeAlias = Sequence[int]
"""A sequence of token ids."""


@dataclass(frozen=True)
class Trie:
    """The options as a prefix tree of tokens, in depth-first order, so that shared prefixes are computed once.

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
        """The tree of the options' tokens; `end` is the token that ends an answer, not part of the options."""
        paths = sorted({tuple(option[:i]) for option in options for i in range(1, len(option) + 1)})
        nodes = {path: node for node, path in enumerate(paths)} | {(): -1}
        steps = [
            tuple((nodes[tuple(option[:i])], token) for i, token in enumerate([*option, end])) for option in options
        ]
        return cls(
            tokens=tuple(path[-1] for path in paths),
            depth=tuple(map(len, paths)),
            parents=tuple(nodes[path[:-1]] for path in paths),
            steps=tuple(steps),
        )

    def ancestors(self, node: int) -> list[int]:
        """The node and its ancestors, bottom up."""
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
    low, high = min(prompts, key=list), max(prompts, key=list)  # the first and the last in order share the least
    limit = min(map(len, prompts))
    return next((i for i in range(limit) if low[i] != high[i]), limit)


def prefix_groups(prompts: Sequence[Tokens]) -> list[tuple[int, list[int]]]:
    """Group prompts to compute together. Each group is the length of its shared prefix and the prompts' indices.

    At least one token of each prompt stays outside the prefix, because the last token's logits are needed. Prompts with
    different instructions form separate groups if that saves enough.
    """
    return _split(prompts, sorted(range(len(prompts)), key=lambda i: list(prompts[i])))


def _split(prompts: Sequence[Tokens], order: list[int]) -> list[tuple[int, list[int]]]:
    if not order:
        return []
    shared = _shared(prompts, order)
    together: list[int] = []
    separate: list[tuple[int, list[int]]] = []
    for _, members in groupby(order, key=lambda i: prompts[i][shared]):
        child = list(members)
        saving = (len(child) - 1) * (_shared(prompts, child) - shared)
        if len(child) < len(order) and saving >= MIN_SAVING:
            separate += _split(prompts, child)
        else:
            together += child
    return [(shared, together), *separate] if together else separate


def _shared(prompts: Sequence[Tokens], order: Sequence[int]) -> int:
    limit = min(len(prompts[i]) for i in order) - 1
    return min(limit, common([prompts[order[0]], prompts[order[-1]]]))


def chunks(lengths: Sequence[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Split the indices of `lengths`, shortest first, into chunks of at most `most` indices.

    The lengths in a chunk add up to at most `budget`, unless the chunk has only one index.
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
