"""A sample of rows in one pass and bounded memory, the same whichever order and whichever copy of a dataset they come from.

The rows whose text has the smallest hashes are kept. That is a uniform sample of the different texts, so a file that is sorted by
label gives every label its share; and two mirrors of a dataset give the same texts, so that the mirror is found afterwards
although neither sample is more than a small part.
"""

import hashlib
import heapq
from collections.abc import Iterator
from typing import Any

from promptmii.task import normalise_text

SAME_TEXT = 3
"""Rows kept of one text: enough to see that a text occurs twice, or under two labels."""


class Sample:
    """Up to `size` different texts; each with the first few of its rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._largest: list[int] = []
        """Heap of negated hashes: the first is the one to give way."""
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self.seen = 0
        """Rows offered."""
        self.repeated = 0
        """Rows left out because their text had been seen often enough."""

    def add(self, row: dict[str, Any]) -> None:
        """Offer a row."""
        self.seen += 1
        rank = text_rank(row)
        rows = self._rows.get(rank)
        if rows is not None:
            if len(rows) < SAME_TEXT:
                rows.append(row)
            else:
                self.repeated += 1
        elif len(self._largest) < self._size:
            heapq.heappush(self._largest, -rank)
            self._rows[rank] = [row]
        elif rank < -self._largest[0]:
            del self._rows[-heapq.heapreplace(self._largest, -rank)]
            self._rows[rank] = [row]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows kept, in an order that follows from their texts."""
        for rank in sorted(self._rows):
            yield from self._rows[rank]


def text_rank(row: dict[str, Any]) -> int:
    """The hash by which rows are chosen: of the longest string, which in mirrors is the same whatever their columns are called."""
    longest = max((value for value in row.values() if isinstance(value, str)), key=len, default=None)
    key = normalise_text(longest) if longest is not None else repr(sorted(row.items(), key=str))
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())
