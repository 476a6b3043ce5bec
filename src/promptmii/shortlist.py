"""Shortlists for tasks with many labels: compare only those whose own lines in the instruction are most like a text.

A follower reads every label for every text, so its time grows with the number of labels. With more than `MANY` labels,
a similarity that costs next to nothing picks the likeliest few, and the follower compares these exactly; the others get
probability 0. The prompt keeps all labels, so that all texts share it.

The size is chosen on the support: the smallest that covers `TARGET` of its rows. The recall on other rows is measured
with the score (`Measurement.shortlist_recall`).
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
"""Up to this number of labels, all are compared."""
FEWEST = 8
"""Labels on the shortest list."""
TARGET = 0.98
"""Share of support rows whose label must be on the list."""
FEWEST_ROWS = 30
"""Rows needed to choose the size of a list."""
LONGEST = 0.5
"""A list with a larger share of the labels saves too little to be worth its errors."""


def shortlisted(instruction: Instruction, support: Support, wanted: ShortlistKind) -> Instruction:
    """The instruction with a shortlist, if it has many labels and a short enough list covers the support.

    Raises like `sentences.weights` if embeddings are wanted but not installed.
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
    shortlist = Shortlist(by=by, size=size, recall=recall, rows=len(ranks), belongs_to=plain.text_key)
    return plain.model_copy(update={"shortlist": shortlist})


def candidates(instruction: Instruction, texts: Sequence[str]) -> list[tuple[int, ...]] | None:
    """Per text, the positions of the labels to compare, in order; `None` means all of them."""
    if instruction.shortlist is None or not instruction.shortlists:
        return None
    likeness = _likeness(instruction, texts, instruction.shortlist.by)
    best = np.argsort(-likeness, axis=1, kind="stable")[:, : instruction.shortlist.size]
    return [tuple(sorted(row)) for row in best.tolist()]


def _ranks(instruction: Instruction, support: Support, by: Similarity) -> list[int]:
    """The rank of each example's label, from 1. No text is compared with lines that show it."""
    ranks: list[int] = []
    for part, examples in held_out(instruction, support.examples):
        likeness = _likeness(part, [example.text for example in examples], by)
        order = np.argsort(-likeness, axis=1, kind="stable").tolist()
        gold = (instruction.labels.index(example.label) for example in examples)
        ranks += [row.index(label) + 1 for row, label in zip(order, gold, strict=True)]
    return ranks


def _likeness(instruction: Instruction, texts: Sequence[str], by: Similarity) -> Any:
    """Similarity of each text to each label, shape (n, K)."""
    return _likeness_to(by, descriptions(instruction.text, instruction.labels))(texts)


_likeness_to = lru_cache(maxsize=8)(sentences.likeness)


def descriptions(text: str, labels: Sequence[str]) -> tuple[str, ...]:
    """A description of each label: its name in words, its own lines in the instruction, and its examples.

    A label's own lines are one that begins with it, perhaps after a bullet, and those up to the next label's.
    """
    positions = {defuse(label).casefold(): n for n, label in enumerate(labels)}
    lines_of: list[list[str]] = [[_in_words(label)] for label in labels]
    begins = re.compile(rf"[\W\d_]*({'|'.join(map(re.escape, sorted(positions, key=len, reverse=True)))})(?!\w)\W*")
    for block in text.split("\n\n"):
        body, _, last = block.rpartition("\nLabel: ")
        if body and last.casefold() in positions:
            lines_of[positions[last.casefold()]].append(body.removeprefix("Input: "))
            continue
        current: int | None = None
        for line in block.splitlines():
            start = begins.match(line.casefold())
            current = positions[start[1]] if start else current
            if current is not None:
                lines_of[current].append(line[start.end() :] if start else line)
    return tuple(" ".join(lines) for lines in lines_of)


def _in_words(label: str) -> str:
    return re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", label).strip()
