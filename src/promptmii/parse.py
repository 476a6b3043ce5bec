"""From what a follower wrote to a label of the task, or to None: the one parser, used everywhere.

A ladder of readings, each stricter than the next; the first that gives exactly one label wins. Nothing is
ever guessed: an answer that fits two labels equally well is unparsed, and unparsed is a miss.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Match(StrEnum):
    """How an answer was matched to a label."""

    EXACT = "exact"
    """The answer is the label."""
    NORMALISED = "normalised"
    """... up to case, outer quotes, a leading "Label:", a list marker or final punctuation of its first line."""
    LEADING = "leading"
    """The first line begins with the label and goes on."""
    MENTIONED = "mentioned"
    """The answer mentions exactly one of the labels."""


_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_MARKER = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_FIELD = re.compile(
    r"^(?:(?:the\s+)?(?:correct\s+)?(?:label|answer|category|class|output)\s*(?:is\b|[:=])\s*)", re.IGNORECASE
)
_EDGES = " \t\"'`*_“”‘’«»()[]{}<>"


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _strip(line: str) -> str:
    """`line` without list marker, field name, quotes, emphasis and final punctuation."""
    line = _MARKER.sub("", line).strip(_EDGES)
    line = _FIELD.sub("", line)
    return line.strip(_EDGES).rstrip(".,;:!。").strip(_EDGES)


def _json_label(answer: str) -> str | None:
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = value.get("label")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class LabelParser:
    """Reads answers against one label set. Labels that differ by case alone are only matched exactly."""

    labels: tuple[str, ...]

    def __call__(self, answer: str) -> tuple[str | None, Match | None]:
        """The label and how it was matched, or `(None, None)`."""
        answer = _THINKING.sub("", answer).strip()
        answer = _json_label(answer) or answer
        if answer in self.labels:
            return answer, Match.EXACT
        first = next((line for line in answer.splitlines() if line.strip()), "")
        for match, found in (
            (Match.NORMALISED, self._equal(first)),
            (Match.LEADING, self._leading(_normalise(_strip(first)))),
            (Match.MENTIONED, self._mentioned(_normalise(answer))),
        ):
            if len(found) == 1:
                return found[0], match
        return None, None

    def _equal(self, line: str) -> list[str]:
        readings = {_normalise(line), _normalise(_strip(line))}
        exact = [label for label in self.labels if label in (line.strip(), _strip(line))]
        return exact or [
            label
            for label in self.labels
            if readings & {_normalise(label), _normalise(_strip(label)) or _normalise(label)}
        ]

    def _leading(self, line: str) -> list[str]:
        found = [label for label in self.labels if _begins(line, _normalise(label))]
        longest = max((len(_normalise(label)) for label in found), default=0)
        return [label for label in found if len(_normalise(label)) == longest]

    def _mentioned(self, answer: str) -> list[str]:
        """Labels that occur outside every mention of a longer label ("not spam" is no mention of "spam")."""
        found: list[str] = []
        for label in sorted(self.labels, key=len, reverse=True):
            pattern = re.compile(
                rf"(?<!\w)(?<!\bnot )(?<!\bno )(?<!\bnon-)(?<!n't ){re.escape(_normalise(label))}(?!\w)"
            )
            if pattern.search(answer):
                found.append(label)
                answer = pattern.sub(" \x00 ", answer) if not self._collides(label) else answer
        return found

    def _collides(self, label: str) -> bool:
        return sum(_normalise(other) == _normalise(label) for other in self.labels) > 1


def _begins(line: str, label: str) -> bool:
    return line.startswith(label) and not re.match(r"\w", line[len(label) :])


def answer_tokens(label_tokens: Sequence[int]) -> int:
    """`max_tokens` that fits the longest label with room for quotes or a leading field name."""
    return max(label_tokens) + 8
