"""Does an instruction repeat its training texts? A copied row is memorised, not described, and may be private.

A copy is a run of `RUN` or more words that also stands in a support text. Runs are compared on normalised words,
so case, punctuation and spacing do not hide one.
"""

import re
from collections.abc import Iterable

from promptmii.task import Example, normalise_text

RUN = 6


def copied_runs(instruction: str, texts: Iterable[str]) -> list[str]:
    """Word runs of the instruction that stand verbatim in one of the texts: the longest ones, in order."""
    known = {gram for text in texts for gram in _grams(_words(text))}
    words = _words(instruction)
    hits = [gram in known for gram in _grams(words)]
    runs: list[str] = []
    start: int | None = None
    for position, hit in enumerate([*hits, False]):
        if hit and start is None:
            start = position
        if not hit and start is not None:
            runs.append(" ".join(words[start : position + RUN - 1]))
            start = None
    return runs


def copy_warning(instruction: str, examples: Iterable[Example]) -> tuple[str, ...]:
    """A note for the artefact where the instruction repeats training text, else nothing."""
    copied = copied_runs(instruction, (example.text for example in examples))
    return (f"repeats training text: {'; '.join(repr(run) for run in copied[:3])}",) if copied else ()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise_text(text))


def _grams(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
