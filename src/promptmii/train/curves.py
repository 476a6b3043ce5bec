"""How a stage tells of its progress, line by line of its curves."""

from collections.abc import Callable, Mapping

Report = Callable[[Mapping[str, float]], None]
"""Told of each line: `step` and the values."""


def unheard(_line: Mapping[str, float]) -> None:
    """The default report."""
