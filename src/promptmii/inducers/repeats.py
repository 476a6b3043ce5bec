"""Repetitions that small models write: an item listed twice in a sentence, or one description for several labels."""

import re
from collections.abc import Collection
from itertools import pairwise

SEPARATOR = re.compile(r"(, (?:and |or )?| and | or )")
SENTENCE_END = re.compile(r"(?<=[.;:!?])(?=\s)|(?<=\n)")
FINAL_MARKS = re.compile(r"[.;:!?\s]*$")
BULLETS = " -*•#\t"


def drop_repeated_items(text: str) -> str:
    """Drop items that the same sentence has already listed: "tea, milk and tea" becomes "tea and milk"."""
    return "".join(_drop_repeated_items(sentence) for sentence in SENTENCE_END.split(text))


def _drop_repeated_items(sentence: str) -> str:
    body = FINAL_MARKS.sub("", sentence)
    first, *rest = SEPARATOR.split(body)
    pieces = [first]
    seen = {_normalised(first)}
    items = [*zip(rest[::2], rest[1::2], strict=True), (",", "")]
    for (separator, item), (next_separator, next_item) in pairwise(items):
        # After "black and white", the "black" of ", black and gold" belongs to another pair.
        begins_pair = separator[0] == "," and next_separator[0] == " " and _normalised(next_item) not in seen
        if _normalised(item) not in seen or (begins_pair and any(mark[0] == " " for mark in pieces[1::2])):
            seen.add(_normalised(item))
            pieces += [separator, item]
        elif len(pieces) > 1 and pieces[-2] == ", ":
            # The list may now end at the previous item, which then takes over the "and" or "or".
            pieces[-2] = separator
    return "".join(pieces) + sentence[len(body) :]


def _normalised(item: str) -> str:
    return item.strip().casefold()


def shared_description_notes(text: str, labels: Collection[str]) -> tuple[str, ...]:
    """A note for each description that several labels share, since it cannot tell them apart."""
    by_description: dict[str, list[str]] = {}
    for line in text.splitlines():
        label, _, description = (part.strip(BULLETS) for part in line.replace("：", ":").partition(":"))
        if description and label in labels:
            by_description.setdefault(description.casefold(), []).append(label)
    return tuple(
        f"same description for the labels {', '.join(group)}" for group in by_description.values() if len(group) > 1
    )
