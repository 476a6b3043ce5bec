"""Parts of messages: counts, lists of names, hints."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

WARNING = "Warning: "
"""Begins a note that changes what a result means."""


def nearest(unknown: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known name, then all known names."""
    names = list(known)
    close = get_close_matches(unknown.casefold(), [name.casefold() for name in names], n=1, cutoff=0.5)
    hint = next((f"Did you mean {name!r}? " for name in names if close and name.casefold() == close[0]), "")
    return f"{hint}Known: {listed(names) or 'none'}."


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 row, 2 rows, 2 processes."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def listed(names: Sequence[str], most: int = 30) -> str:
    """Names separated by commas, at most `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException | None) -> str:
    """The first line of an error's message, at most 300 characters; the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(". ")
