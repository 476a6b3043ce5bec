"""Shortlists for tasks with many labels: the follower compares only the labels whose descriptions resemble a text most.

A follower compares every label for every text, so its time grows with the number of labels. With more than `MANY`
labels, a cheap similarity picks the likeliest few, and the follower compares these exactly; all others get probability
0. The prompt still lists all labels, so all texts share it.

The size is chosen on the support: the smallest that covers `TARGET` of its rows. The recall on new rows is measured
together with the score (`Measurement.shortlist_recall`).
"""

import re
import threading
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
from promptmii.words import label_heading

MANY = 30
"""The largest number of labels that are always all compared."""
FEWEST = 8
"""Minimum size of a shortlist."""
TARGET = 0.98
"""Share of support rows whose label must be on their shortlist."""
FEWEST_ROWS = 30
"""Minimum number of rows to choose the size of a shortlist."""
LONGEST = 0.5
"""Maximum share of the labels on a shortlist; a longer one saves too little to be worth its errors."""


def shortlisted(instruction: Instruction, support: Support, kind: ShortlistKind) -> Instruction:
    """Give the instruction a shortlist, if it has many labels and a short enough list covers the support.

    Raises like `sentences.weights` if `kind` is "embedding" and it is not installed.
    """
    instruction = instruction.model_copy(update={"shortlist": None})
    if kind == "none" or len(instruction.labels) <= MANY:
        return instruction
    similarity: Similarity = sentences.best_similarity() if kind == "auto" else kind
    ranks = _ranks(instruction, support, similarity)
    no_shortlist = f"all {len(instruction.labels)} labels are compared for each text"
    if len(ranks) < FEWEST_ROWS:
        reason = f"a shortlist needs {FEWEST_ROWS} examples, and {len(ranks)} of {len(support.examples)} can be used"
        return instruction.noted(f"{no_shortlist}: {reason}")
    size = max(FEWEST, sorted(ranks)[ceil(TARGET * len(ranks)) - 1])
    if size > LONGEST * len(instruction.labels):
        reason = f"a shortlist by {similarity} would need {size} labels to cover {TARGET:.0%} of the examples"
        return instruction.noted(f"{no_shortlist}: {reason}")
    recall = sum(rank <= size for rank in ranks) / len(ranks)
    shortlist = Shortlist(by=similarity, size=size, recall=recall, rows=len(ranks), belongs_to=instruction.text_key)
    return instruction.model_copy(update={"shortlist": shortlist})


def candidates(instruction: Instruction, texts: Sequence[str]) -> list[tuple[int, ...]] | None:
    """For each text, the sorted positions of the labels to compare; `None` for all labels."""
    shortlist = instruction.own_shortlist
    if shortlist is None or not texts:
        return None
    scores = _similarities(instruction, texts, shortlist.by)
    best = np.argsort(-scores, axis=1, kind="stable")[:, : shortlist.size]
    return [tuple(sorted(row)) for row in best.tolist()]


def _ranks(instruction: Instruction, support: Support, similarity: Similarity) -> list[int]:
    """The rank of each example's label, from 1. No example is compared with a description that quotes it."""
    ranks: list[int] = []
    for without_quotes, examples in held_out(instruction, support.examples):
        scores = _similarities(without_quotes, [example.text for example in examples], similarity)
        rankings = np.argsort(-scores, axis=1, kind="stable").tolist()
        for example, ranking in zip(examples, rankings, strict=True):
            ranks.append(ranking.index(instruction.labels.index(example.label)) + 1)
    return ranks


def _similarities(instruction: Instruction, texts: Sequence[str], similarity: Similarity) -> Any:
    """The similarity of each text to each label's description, shape (n, K)."""
    with _lock:  # or else threads that start together would each compute the same descriptions
        similarity_to_labels = _similarity_to(similarity, instruction.text, instruction.labels)
    return similarity_to_labels(texts)


_lock = threading.Lock()


@lru_cache(maxsize=8)
def _similarity_to(similarity: Similarity, text: str, labels: tuple[str, ...]) -> sentences.SimilarityTo:
    return sentences.similarity_to(similarity, descriptions(text, labels))


def descriptions(text: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Describe each label by its name in words, its lines in the instruction, and its examples there.

    A label's lines start with one that begins with the label, perhaps after a bullet, and end before the next label's.
    Case matters only between labels that differ in nothing else.
    """
    exact = {defuse(label): position for position, label in enumerate(labels)}
    positions = {label.casefold(): position for label, position in exact.items()}
    # A label such as `card_fee` or `cardFee` is split into words; one of symbols alone stays as it is.
    names = [re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", label).strip() or label for label in labels]
    lines_by_label = [[name] for name in names]
    exact_heading, heading = label_heading(exact), label_heading(positions)
    for block in text.split("\n\n"):
        body, _, label = block.rpartition("\nLabel: ")
        if body and label.casefold() in positions:
            lines_by_label[exact.get(label, positions[label.casefold()])].append(body.removeprefix("Input: "))
            continue
        current: int | None = None
        for line in block.splitlines():
            folded = line.casefold()  # may be longer than the line: "straße" becomes "strasse"
            if match := heading.match(folded):
                spelled = exact_heading.match(line)
                name = spelled[1] if spelled else ""
                current = exact[name] if name.casefold() == match[1] else positions[match[1]]
                line = folded[match.end() :]
            if current is not None:
                lines_by_label[current].append(line)
    return tuple(" ".join(lines) for lines in lines_by_label)
