"""Which of many labels are compared for a text: those whose own lines in the instruction are most like it.

A follower reads every label for every text, so its time grows with the labels. Beyond `MANY` a similarity that costs
next to nothing names the likeliest few, and the follower decides among these exactly; the others get probability 0.
The prompt stays as it is, with all labels, so that it is shared by all texts.

The size is chosen on the support: the smallest that holds `TARGET` of the labels. What is lost to it on other rows is
measured with the score (`Measurement.shortlist_recall`).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np

from promptmii.calibrate import held_out
from promptmii.instruction import Instruction, Shortlist, ShortlistKind, Similarity
from promptmii.models import sentences
from promptmii.prompts import defuse
from promptmii.task import Support

MANY = 30
"""Labels up to which all are compared."""
FEWEST = 8
"""Labels of the shortest list."""
TARGET = 0.98
"""Share of the support's rows whose label must be on the list."""
FEWEST_ROWS = 30
"""Rows without which nobody knows how long a list must be."""
LONGEST = 0.5
"""Share of the labels above which a list is not worth what it loses."""


def shortlisted(instruction: Instruction, support: Support, wanted: ShortlistKind) -> Instruction:
    """The instruction with a shortlist, if it has many labels and a short list holds enough of the support's.

    Raises as `sentences.weights` does where embeddings are wanted in vain.
    """
    plain = instruction.model_copy(update={"shortlist": None})
    if wanted == "none" or len(plain.labels) <= MANY:
        return plain
    by: Similarity = sentences.best() if wanted == "auto" else wanted
    ranks = _ranks(plain, support, by)
    whole = f"all {len(plain.labels)} labels are compared for each text"
    if len(ranks) < FEWEST_ROWS:
        few = f"{len(ranks)} of {len(support.examples)} examples can choose a shortlist"
        return plain.noted(f"{whole}: {few}; {FEWEST_ROWS} are needed")
    size = max(FEWEST, sorted(ranks)[ceil(TARGET * len(ranks)) - 1])
    if size > LONGEST * len(plain.labels):
        return plain.noted(f"{whole}: a shortlist by {by} would need {size} to hold {TARGET:.0%} of the examples")
    recall = sum(rank <= size for rank in ranks) / len(ranks)
    found = Shortlist(by=by, size=size, recall=recall, rows=len(ranks), belongs_to=plain.text_key)
    return plain.model_copy(update={"shortlist": found})


def candidates(instruction: Instruction, texts: Sequence[str]) -> list[tuple[int, ...]] | None:
    """Per text the positions of the labels to compare, in order; `None` for all of them."""
    if instruction.shortlist is None or not instruction.shortlists:
        return None
    likeness = _likeness(instruction, texts, instruction.shortlist.by)
    best = np.argsort(-likeness, axis=1, kind="stable")[:, : instruction.shortlist.size]
    return [tuple(sorted(row)) for row in best.tolist()]


def _ranks(instruction: Instruction, support: Support, by: Similarity) -> list[int]:
    """The place of each example's label among all, from 1; no text is compared with lines that show it."""
    ranks: list[int] = []
    for part, examples in held_out(instruction, support.examples):
        likeness = _likeness(part, [example.text for example in examples], by)
        order = np.argsort(-likeness, axis=1, kind="stable").tolist()
        gold = (instruction.labels.index(example.label) for example in examples)
        ranks += [row.index(label) + 1 for row, label in zip(order, gold, strict=True)]
    return ranks


def _likeness(instruction: Instruction, texts: Sequence[str], by: Similarity) -> Any:
    """Of each text to each label, shape (n, K)."""
    return _likeness_to(by, descriptions(instruction.text, instruction.labels))(texts)


_likeness_to = lru_cache(maxsize=8)(sentences.likeness)


def descriptions(text: str, labels: Sequence[str]) -> tuple[str, ...]:
    """What a text says of each label: its name in words, and its own lines; examples count for their label.

    Its own are the line that begins with it, perhaps after a mark, and those that follow until another label's.
    """
    shown = {defuse(label).casefold(): n for n, label in enumerate(labels)}
    found: list[list[str]] = [[_in_words(label)] for label in labels]
    begins = re.compile(rf"[\W\d_]*({'|'.join(map(re.escape, sorted(shown, key=len, reverse=True)))})(?!\w)\W*")
    for block in text.split("\n\n"):
        body, _, last = block.rpartition("\nLabel: ")
        if body and last.casefold() in shown:
            found[shown[last.casefold()]].append(body.removeprefix("Input: "))
            continue
        own: int | None = None
        for line in block.splitlines():
            begun = begins.match(line.casefold())
            own = shown[begun[1]] if begun else own
            if own is not None:
                found[own].append(line[begun.end() :] if begun else line)
    return tuple(" ".join(lines) for lines in found)


def _in_words(label: str) -> str:
    return re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", label).strip()
