"""Which examples go into a prompt that has no room for all."""

from collections.abc import Sequence
from statistics import median_low

LONG = 4
"""An example is much longer than the others from so many times their median length."""


def fitting(lengths: Sequence[int], room: int) -> list[int]:
    """Positions of the examples that fit, in order.

    Those that are much longer than the others, or than the room, go first, so that one of them costs no other; then the
    last ones.
    """
    kept = list(range(len(lengths)))
    total = sum(lengths)
    long = min(LONG * median_low(lengths), room) if lengths else 0
    for position in sorted(kept, key=lambda position: lengths[position], reverse=True):
        if total <= room or lengths[position] <= long:
            break
        kept.remove(position)
        total -= lengths[position]
    while kept and total > room:
        total -= lengths[kept.pop()]
    return kept


def fitting_note(lengths: Sequence[int], kept: Sequence[int], where: str) -> tuple[str, ...]:
    """A note where some examples are left out; `where` is what they should fit."""
    if len(kept) == len(lengths):
        return ()
    cut = [position for position in range(len(lengths)) if position not in kept and position < max(kept, default=0)]
    longer = f"; {len(cut)} much longer than the others left out" if cut else ""
    return (f"{len(kept)} of {len(lengths)} examples fit {where}{longer}",)
