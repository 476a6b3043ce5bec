"""Cleans what a model wrote as an instruction, and notes its faults.

Chat models wrap an instruction in an introduction, a code fence, a tag or quotes. Small models list an item twice, give
several labels one description, leave out a label, or copy a text that they read.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from promptmii.data.sample import LABELS_PER_NOTE
from promptmii.instruction import Instruction
from promptmii.messages import listed
from promptmii.task import Example
from promptmii.words import BULLETS, join_words, label_heading, split_words, whole_label, word_share

LONGEST_INTRODUCTION = 120
"""In characters."""
_NAME = r"(?:(?:the|your|a|an|my) )?(?:[\w-]+ ){0,3}(?:instructions?|prompt|guidelines?|guide)\b"
_INTRODUCTION = re.compile(
    r"(?:(?:sure|certainly|of course|okay|ok|absolutely)\b\W*)?"
    rf"(?:here(?:['’]s| is| are)|below (?:is|are)) {_NAME}[^:;.!?]*:\W*"
    r"|[#*\s]*(?:(?:the|my|final|revised|task|labell?ing|classification) )*(?:instructions?|prompt)[:*\s]*"
    r"|(?:sure|certainly|of course)\W*",
    re.IGNORECASE,
)
"""A first line such as "Sure! Here is the instruction:" or "**Instruction:**"; one of two sentences may hold a rule."""
_WRAPPED = (
    re.compile(r"(```|~~~)[\w-]*[ \t]*\n(?P<text>(?:(?!\1).)*)\1", re.DOTALL),
    re.compile(
        r"<((?:\w+[_-])?(?:answer|instructions?|prompt|output|response|final))>(?P<text>(?:(?!</?\1>).)*)</\1>",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r'["“](?P<text>[^"“”]*)["”]'),
)
_SEPARATOR = re.compile(r"(, (?:and |or )?| and | or )")
_SENTENCE_END = re.compile(r"(?<=[.;:!?])(?=\s)|(?<=\n)")
_FINAL_MARKS = re.compile(r"[.;:!?\s]*$")
COPIED_WORDS = 6
"""Minimum length of a word sequence that counts as copied: the text was memorised, and may be private."""


def unwrapped(answer: str) -> str:
    """The instruction alone, if all of the answer is around it; any other answer without white space at its ends."""
    text = answer.strip()
    first, _, rest = text.partition("\n")
    if rest and len(first) <= LONGEST_INTRODUCTION and _INTRODUCTION.fullmatch(first):
        text = rest.strip()
    for pattern in _WRAPPED:
        if wrapped := pattern.fullmatch(text):
            text = wrapped["text"].strip()
    return text


def drop_repeated_items(text: str) -> str:
    """Drop items that the same sentence has already listed: "tea, milk and tea" becomes "tea and milk"."""
    return "".join(_drop_repeated_items(sentence) for sentence in _SENTENCE_END.split(text))


def _drop_repeated_items(sentence: str) -> str:
    body = _FINAL_MARKS.sub("", sentence)
    first, *rest = _SEPARATOR.split(body)
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


def line_notes(text: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Notes on the lines of the form "label: description": labels that share a description, and labels without a line.

    Unless at least two labels and half of all have a line, the text has another form, and no line is missing.
    """
    spelling = {label.casefold(): label for label in labels}
    heading, anywhere = label_heading(spelling), whole_label(spelling)
    named: set[str] = set()
    described: set[str] = set()
    by_description: dict[str, list[str]] = {}
    for line in text.casefold().replace("：", ":").splitlines():
        head, colon, _ = line.partition(":")
        if colon:  # also "refund or return: ..."
            named.update(anywhere.findall(head))
        if match := heading.match(line):
            label, description = match[1], line[match.end() :].strip(BULLETS)
            named.add(label)
            if ":" in line[match.end(1) : match.end()]:
                described.add(label)
                same = by_description.setdefault(description, [])
                if description and spelling[label] not in same:
                    same.append(spelling[label])
    notes = [f"same description for the labels {', '.join(same)}" for same in by_description.values() if len(same) > 1]
    missing = [label for label in labels if label.casefold() not in named]
    if missing and len(described) >= max(2, len(labels) / 2):
        notes.append(f"no line for: {listed(missing, LABELS_PER_NOTE)}")
    return tuple(notes)


def replace_text(instruction: Instruction, text: str) -> Instruction:
    """The instruction with another text, and with the notes on its lines renewed."""
    others = instruction.without_notes(*line_notes(instruction.text, instruction.labels))
    return others.model_copy(update={"text": text}).noted(*line_notes(text, instruction.labels))


def copied_runs(instruction: str, texts: Iterable[str]) -> list[str]:
    """The longest word sequences that the instruction copies from one of the texts, in order.

    Compares normalised words, so a change in case, punctuation or spacing hides no copy.
    """
    source_ngrams = {tuple(words[start:end]) for words in map(split_words, texts) for start, end in _ngrams(words)}
    words = split_words(instruction)
    runs: list[tuple[int, int]] = []
    previous = -2
    for start, end in _ngrams(words):
        if tuple(words[start:end]) in source_ngrams:
            runs.append((runs.pop()[0] if start == previous + 1 else start, end))
            previous = start
    return [join_words(words[start:end]) for start, end in runs]


def copy_notes(instruction: str, examples: Iterable[Example]) -> tuple[str, ...]:
    """A note if the instruction repeats training text."""
    runs = copied_runs(instruction, (example.text for example in examples))
    return (f"repeats training text: {'; '.join(map(repr, runs[:3]))}",) if runs else ()


def _ngrams(words: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of the shortest sequence of `COPIED_WORDS` from each position."""
    counts = list(accumulate(map(word_share, words), initial=0.0))
    ends = (bisect_left(counts, count + COPIED_WORDS) for count in counts)
    return [(start, end) for start, end in enumerate(ends) if end < len(counts)]
