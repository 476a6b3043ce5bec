"""Repetitions of a small writer: a thing in one list ("drinks, snacks and drinks"), one line for two labels."""

import re
from collections.abc import Collection

SEPARATOR = re.compile(r"(, (?:and |or )?| and | or )")
SENTENCE = re.compile(r"(?<=[.;:!?])(?=\s)|(?<=\n)")
MARKS = " -*•#\t"
STOP = re.compile(r"[.;:!?\s]*$")


def listed_once(text: str) -> str:
    """The text without items that the same sentence has listed before."""
    return "".join(map(_listed_once, SENTENCE.split(text)))


def same_lines(text: str, labels: Collection[str]) -> tuple[str, ...]:
    """A note for the artefact if several labels share one description, which cannot tell them apart."""
    by_description: dict[str, list[str]] = {}
    for line in text.splitlines():
        label, _, description = (part.strip(MARKS) for part in line.partition(":"))
        if description and label in labels:
            by_description.setdefault(description.casefold(), []).append(label)
    return tuple(f"says the same of {', '.join(same)}" for same in by_description.values() if len(same) > 1)


def _listed_once(sentence: str) -> str:
    body = STOP.sub("", sentence)
    first, *rest = SEPARATOR.split(body)
    kept = [first]
    listed = {_item(first)}
    for separator, item in zip(rest[::2], rest[1::2], strict=True):
        if _item(item) not in listed:
            listed.add(_item(item))
            kept += [separator, item]
        elif len(kept) > 1 and kept[-2] == ", ":
            kept[-2] = separator  # the list may end here now, and then here stands its "and"
    return "".join(kept) + sentence[len(body) :]


def _item(words: str) -> str:
    return words.strip().casefold()
