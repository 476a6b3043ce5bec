"""From a follower's answer to a label of the task, or to None. Every answer is read here and nowhere else.

The parser never guesses. Three readings are tried, the strictest first, and one wins if it finds exactly one label.
An answer that names two labels is unparsed, and a label that the answer denies is never returned.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from promptmii.denial import NEGATION, PARTICLE, Mention, claims

# What a reasoning model thinks before it answers is neither a label nor an instruction.
_THOUGHT = r"(?:\w+[:_-])*(?:\w*(?:think|thought|reason|reflect)\w*|analysis|scratchpad|rationale|inner_monologue)"
_OPEN = re.compile(
    rf"(?:<|&lt;)\|?{_THOUGHT}(?:\s[^<>]*)?\|?(?:>|&gt;)|\[THINK\]|◁think▷|<\|channel>thought|<\|inner_prefix\|>|"
    r"<details type=\"reasoning\"[^<>]*>|\AHere(?: is|'s) my thought process:",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"(?:<|&lt;)/{_THOUGHT}\s*(?:>|&gt;)|<\|/{_THOUGHT}\|>|"
    r"<\|end_(?:of_)?(?:thinking|thought|think|reasoning)\|>|\[/THINK\]|◁/think▷|<channel\|>|<\|inner_suffix\|>|"
    r"</details>|Here(?: is|'s) my response:",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"(?:{_OPEN.pattern}).*?(?:{_CLOSE.pattern})", re.IGNORECASE | re.DOTALL)

# gpt-oss writes channels ("harmony"); a tokenizer that drops control tokens leaves their names glued to the text.
_CHANNEL = re.compile(r"<\|channel\|>|<\|message\|>|\A(?:analysis|commentary)(?=[A-Z])")
_FINAL = re.compile(r"(?:<\|channel\|>)?\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|assistant\s*final")
_END = re.compile(r"<\|(?:return|end|call|start)\|>.*", re.DOTALL)


def without_thought(text: str) -> str | None:
    """What a model said after thinking; `None` if it was still thinking when it stopped."""
    if _CHANNEL.search(text):
        finals = list(_FINAL.finditer(text))
        return _END.sub("", text[finals[-1].end() :]).strip() if finals else None
    text = _PAIR.sub("", text)
    closings = list(_CLOSE.finditer(text))  # some chat templates put the opening tag into the prompt
    if closings:
        text = text[closings[-1].end() :]
    return None if _OPEN.search(text) else text.strip()


class Match(StrEnum):
    """How an answer was matched to a label."""

    EXACT = "exact"
    """The answer is the label."""
    NORMALISED = "normalised"
    """The answer is the label, up to case, separators, quotes, emphasis and final punctuation."""
    LEADING = "leading"
    """The first line, a paragraph or a field ("Label: ...") is the label; the rest explains it."""
    MENTIONED = "mentioned"
    """The answer mentions this label and no other."""


_FIELD_NAMES = "labels?|answer|category|class|classification|output|prediction|result|topic"
_FIELD = re.compile(
    rf"\W*(?:(?:the|final|correct|right|best|predicted|my)\s+)*(?:{_FIELD_NAMES})"
    r"[*_\"'`]*(?:\s+is\b|\s*[:=：]|[_\s])\s*",
    re.IGNORECASE,
)
_HEAD = re.compile(rf"^{_FIELD.pattern}", re.IGNORECASE | re.MULTILINE)

_INVISIBLE = re.compile(r"[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufe0e\ufe0f\ufeff\ue000]")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–−﹣－˗➖", "-") | dict.fromkeys("—―", " - ") | dict.fromkeys("’‘ʼ′＇", "'"))
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~])")
_SIGN = re.compile(r"(?<![\w)\]])-\s+(?=\d)")
_POINTLESS = re.compile(r"(?<![\d.,])\+?(\d+)(?:\.0+)?(?![.,]?\d)")
_SPOKEN_SIGN = re.compile(r"\b(?:minus|negative)\s+(?=\d)", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_TAG = re.compile(rf"</?(?:{_FIELD_NAMES})>", re.IGNORECASE)
_STRUCK = re.compile(r"~~.*?~~", re.DOTALL)
_QUOTES = " \t\r\n\"'`*_“”„‘’«»「」『』《》【】()[]{}|"
_STOPS = ".,;:!?。，！？：；…"

_UNSPACED = (  # scripts that put no space between words, and Korean, which joins particles to words
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0dff"
_SPACED = rf"[^\W_{_UNSPACED}]"


@dataclass(frozen=True)
class LabelParser:
    """Reads answers against one label set."""

    labels: tuple[str, ...]

    def __call__(self, answer: str) -> tuple[str | None, Match | None]:
        """The label and how it was matched, or `(None, None)`."""
        if answer.strip() in self.labels:
            return answer.strip(), Match.EXACT
        answer = (without_thought(answer) or "").strip()
        if answer in self.labels:
            return answer, Match.EXACT
        text = self._clean(_unwrap(answer))
        mentions = self._mentions(text)
        said = claims(text, mentions)
        for match, found in (
            (Match.NORMALISED, self._equal(text)),
            (Match.LEADING, self._set_apart(text) - said.denied if not said.side_by_side else set[str]()),
            (Match.MENTIONED, said.named - said.denied),
        ):
            if found:
                return (found.pop(), match) if len(found) == 1 else (None, None)
        return None, None

    def _clean(self, text: str) -> str:
        text = _clean(text)
        return _SPOKEN_SIGN.sub("-", text) if any(re.match(r"-?\d", label) for label in self.labels) else text

    @cached_property
    def _spellings(self) -> dict[str, str]:
        """Each label as the patterns see it."""
        return {label: _clean(label) for label in self.labels}

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {label: re.compile(_pattern(text), re.IGNORECASE) for label, text in self._spellings.items() if text}

    def _closest(self, labels: Sequence[str], text: str) -> set[str]:
        """The labels spelled like `text`; else those that differ by case alone; else all."""
        same = {label for label in labels if self._spellings[label] == text}
        folded = {label for label in labels if self._spellings[label].casefold() == text.casefold()}
        return same or folded or set(labels)

    def _equal(self, text: str) -> set[str]:
        """Labels that the whole text spells."""
        for form in dict.fromkeys((text.strip(), text.lstrip(_QUOTES).rstrip(_QUOTES + _STOPS))):
            found = [label for label, pattern in self._patterns.items() if pattern.fullmatch(form)]
            if found:
                return self._closest(found, form)
        return set()

    def _set_apart(self, text: str) -> set[str]:
        """Labels that are the whole of the first line, of a paragraph or of a field."""
        blocks = [text.strip().split("\n", 1)[0], *re.split(r"\n[ \t]*\n", text)]
        fields = [line[field.end() :] for line in text.splitlines() if (field := _FIELD.match(line))]
        return set[str]().union(*map(self._equal, fields)) or set[str]().union(*map(self._equal, blocks))

    def _mentions(self, text: str) -> list[Mention]:
        """Where the text spells a label that is no part of a longer one, in order."""
        spans: dict[tuple[int, int], list[str]] = {}
        for label, pattern in self._patterns.items():
            for found in pattern.finditer(text):
                # "A" is a label and "a" an article: a single letter counts only as it is written.
                as_written = len(found[0]) > 1 or found[0] == self._spellings[label]
                if as_written and not PARTICLE.fullmatch(label) and _stands_alone(text, *found.span()):
                    spans.setdefault(found.span(), []).append(label)
        # "The label is" names no label, whatever the labels are, if what follows does.
        heads = [head.span() for head in _HEAD.finditer(text)]
        said = [span for span in spans if not any(span[0] >= start and span[1] <= end for start, end in heads)]
        mentions: list[Mention] = []
        for start, end in sorted(said or spans, key=lambda span: (span[0], -span[1])):
            labels = self._closest(spans[start, end], text[start:end])
            if not mentions or start >= mentions[-1].end:
                mentions.append(Mention(start, end, labels))
            elif end > mentions[-1].end:  # two labels overlap, and neither is meant more than the other
                mentions[-1] = Mention(mentions[-1].start, end, mentions[-1].labels | labels)
        return mentions


def _clean(text: str) -> str:
    """One spelling for what looks alike: compatibility forms, dashes, apostrophes, signs, invisible characters."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_DASHES)
    text = _SIGN.sub("-", _ESCAPE.sub(r"\1", text))
    return _POINTLESS.sub(r"\1", text).strip()


def _pattern(label: str) -> str:
    """A pattern for a cleaned label. Spaces, underscores and hyphens between its words are alike."""
    pieces = re.split(r"(?<=[^\s_-])([\s_-]+)(?=[^\s_-])", label)
    pattern = ""
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            escaped = re.escape(piece)
            pattern += re.sub(r"[.?!]$", r"\g<0>?", escaped) if i == len(pieces) - 1 and len(piece) > 1 else escaped
        else:
            pattern += r"[\s_-]+" if pieces[i - 1][-1].isdigit() and pieces[i + 1][0].isdigit() else r"[\s_-]*"
    return pattern


def _stands_alone(text: str, start: int, end: int) -> bool:
    """What is spelled there is no part of a word, a number, a signed number or a compound such as "spam-free"."""
    before, spelled, after = text[max(start - 2, 0) : start], text[start:end], text[end : end + 3]
    return not (
        re.search(r"[-+±#!~¬≠]\Z", before)
        or re.match(r"[-+#~]", after)
        or (re.match(rf"{_SPACED}|[-+]", spelled) and re.search(rf"(?:{_SPACED}|[{_MARKS}]|[^\W_]_)\Z", before))
        or (re.match(r"[-+]?\d", spelled) and re.search(r"\d[.,:/⁄]\Z|[<>≤≥]\Z", before))
        or (re.search(rf"{_SPACED}\Z", spelled) and re.match(rf"{_SPACED}|[{_MARKS}]|_[^\W_]", after))
        or (re.fullmatch(r"['`_.-]+", spelled) and re.search(r"\w\Z", before) and re.match(r"\w", after))
        or (spelled[-1].isdigit() and re.match(r"[.,:/⁄][-+]?\d", after))
    )


def _unwrap(answer: str) -> str:
    """Without fences, tags and struck text. JSON becomes its values: those of a field such as "label", else all."""
    answer = _STRUCK.sub(" ", _TAG.sub("\n\n", _FENCE.sub("", answer))).strip()
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    for start in [0, *(found.start() for found in re.finditer(r"[{\[]", answer))][:20]:
        try:
            value, _ = decoder.raw_decode(answer[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list):
            leaves = list(_leaves(value, "", field=False))
            return "\n\n".join([text for text, field in leaves if field] or [text for text, _ in leaves])
    return answer


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps repeated keys."""


def _leaves(value: Any, key: str, *, field: bool) -> Iterator[tuple[str, bool]]:
    """The values under keys that deny nothing, each with whether it stands under a field such as "label"."""
    words = re.findall(r"[^\W_]+", key.casefold())
    if NEGATION.search(" ".join(words) + "\ue000"):
        return
    field |= bool(words and re.fullmatch(_FIELD_NAMES, words[-1]))
    if isinstance(value, _Pairs):
        for name, inner in value:
            yield from _leaves(inner, name, field=field)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _leaves(inner, "", field=field)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value), field


def answer_tokens(label_tokens: Sequence[int]) -> int:
    """`max_tokens` that fits the longest label in a short sentence."""
    return max(label_tokens) + 24
