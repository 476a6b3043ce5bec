"""Texts that are nearly the same, found in time and memory that grow with their number.

A text is the set of its five-character pieces. MinHash (`datasketch`) gives 64 numbers by which the overlap of two sets can be
estimated; bands of four numbers that agree make two texts candidates, and the estimate decides. Bands are compared by sorting, which
needs 8 bytes for each text at a time where an index would need kilobytes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from promptmii.errors import MissingDependencyError
from promptmii.task import normalise_text

Signatures = npt.NDArray[np.uint32]
"""(texts, PERMUTATIONS)."""
PERMUTATIONS = 64
BAND = 4
PIECE = 5
"""Characters of a piece."""
LONGEST = 1000
"""Characters of a text that are looked at: longer texts that agree so far are the same for our purpose."""
_POWERS = np.array([1_000_003**i % (1 << 32) for i in range(PIECE)], dtype=np.uint32)


def sign(texts: Iterable[str]) -> Signatures:
    """The MinHash of each text. Texts without letters or digits agree with nothing but themselves."""
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise MissingDependencyError("Near-duplicate search", "corpus") from error

    # The pieces are numbers already; one object serves every text, because to make one costs more than to use it.
    made: Any = MinHash(PERMUTATIONS, hashfunc=int)
    rows: list[Any] = []
    for text in texts:
        made.clear()
        made.update_batch(_pieces(text))
        rows.append(made.digest())
    return np.array(rows, dtype=np.uint32).reshape(len(rows), PERMUTATIONS)


def _pieces(text: str) -> list[int]:
    """The pieces of a text as numbers: a polynomial in its characters, which `datasketch` scatters further."""
    padded = f"  {normalise_text(text)[:LONGEST]}  "
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    count = len(codes) - PIECE + 1
    pieces = np.zeros(count, dtype=np.uint32)
    for place, power in enumerate(_POWERS):
        pieces += codes[place : place + count] * power
    return pieces.tolist()


def clusters(signatures: Signatures, similarity: float) -> npt.NDArray[np.int64]:
    """A number for each text, equal for texts that are nearly the same, or joined by a chain of such texts."""
    parents = np.arange(len(signatures), dtype=np.int64)
    needed = round(similarity * PERMUTATIONS)
    for first in range(0, PERMUTATIONS, BAND):
        keys = _band_keys(signatures[:, first : first + BAND])
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        left, right = order[:-1][same], order[1:][same]
        agreeing = (signatures[left] == signatures[right]).sum(axis=1) >= needed
        for a, b in zip(left[agreeing].tolist(), right[agreeing].tolist(), strict=True):
            _join(parents, a, b)
    return np.array([_root(parents, i) for i in range(len(parents))], dtype=np.int64)


def _band_keys(band: Signatures) -> npt.NDArray[np.uint64]:
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _root(parents: npt.NDArray[np.int64], item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = int(parents[item])
    return item


def _join(parents: npt.NDArray[np.int64], a: int, b: int) -> None:
    a, b = _root(parents, a), _root(parents, b)
    # The lower number wins, so that the result does not depend on the order of the joins.
    parents[max(a, b)] = min(a, b)


def joined(size: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `size` things, the lowest-numbered one that a chain of links joins it to."""
    parents = np.arange(size, dtype=np.int64)
    for a, b in links:
        _join(parents, a, b)
    return [_root(parents, i) for i in range(size)]


def owners_by_cluster(
    numbers: Sequence[int] | npt.NDArray[np.int64], owners: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """The different owners of the texts of each cluster that has more than one."""
    pairs = np.unique(np.stack([np.asarray(numbers, dtype=np.int64), owners]), axis=1)
    starts = np.flatnonzero(np.diff(pairs[0], prepend=-1))
    return [part for part in np.split(pairs[1], starts[1:]) if len(part) > 1]
