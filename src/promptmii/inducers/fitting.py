"""Which examples go into a prompt that has no room for all."""

from collections.abc import Sequence
from statistics import median_low

from promptmii.task import Example

LONG = 4
"""Times the median length from which an example counts as much longer than the others."""


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


def fitted(
    examples: Sequence[Example], lengths: Sequence[int], room: int, where: str
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The examples that fit, and a note if some are left out; `where` names the room."""
    kept = fitting(lengths, room)
    cut = max(kept, default=-1) + 1 - len(kept)
    longer = f"; {cut} much longer than the others left out" if cut else ""
    notes = (f"{len(kept)} of {len(lengths)} examples fit {where}{longer}",) if len(kept) < len(lengths) else ()
    return tuple(examples[position] for position in kept), notes
