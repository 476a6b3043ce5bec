"""Greedy text of small models can fall into a loop ("late, late, late, ..."). Here is where it must go on otherwise."""

from collections.abc import Sequence

LONGEST = 48
"""Tokens of the longest phrase that counts."""
SHORT = 8
"""Tokens that a short phrase fills before it is a loop; a longer one may stand twice in a row."""


def loop_tokens(written: Sequence[int]) -> set[int]:
    """The tokens that would let a phrase at the end of the text stand in a row once too often."""
    barred: set[int] = set()
    for period in range(1, min(LONGEST, len(written) // 2) + 1):
        length = period * max(2, -(-SHORT // period))
        tail = written[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            barred.add(tail[0])
    return barred
