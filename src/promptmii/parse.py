"""Parses a follower's answer into a label of the task, or None. All answers are parsed here and nowhere else.

The parser never guesses. It tries three readings, the strictest first, and the first that finds a label decides. An
answer that names two labels is unparsed, and a label that the answer denies is never returned.
"""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from promptmii.denial import ASKS_FOR_TEXT, DETERMINER, NEGATION, PARTICLE, Mention, claims
from promptmii.words import UNSEPARATED

# The thinking of a reasoning model is part of neither a label nor an instruction.
_THOUGHT = (
    r"(?:\w[\w:-]*[:_-])?(?:\w*(?:think|thought|reason|reflect)\w*|analysis|scratch_?pad|rationale|\w*monologue|cot)"
)
_OPEN = re.compile(
    rf"(?:<|&lt;)\|?\s*{_THOUGHT}(?:\s[^<>]*)?\|?(?:>|&gt;)|<\|begin[_▁]of[_▁]thinking\|>|\[think(?:ing)?\]|◁think▷|"
    r"<\|channel>thought|<unused94>|<\|inner_prefix\|>|<details type=\"reasoning\"[^<>]*>|"
    r"\AHere(?: is|'s) my thought process:|"
    r"\AHere are my reasoning steps:(?![\s\S]*\n\W*(?:final )?(?:label|answer|category|classification)\W)",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"(?:<|&lt;)/\s*{_THOUGHT}\s*(?:>|&gt;)|<\|/{_THOUGHT}\|>|\[/think(?:ing)?\]|◁/think▷|"
    r"<\|end[_▁](?:of[_▁])?(?:thinking|thought|think|reasoning)\|>|<\|(?:think|reason)\w*_end\|>|<channel\|>|"
    r"<unused95>|<\|inner_suffix\|>|</details>|Here(?: is|'s) my response:|\[BEGIN FINAL RESPONSE\]",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"(?:{_OPEN.pattern}).*?(?:{_CLOSE.pattern})", re.IGNORECASE | re.DOTALL)

# gpt-oss writes channels ("harmony"). If a tokenizer drops their control tokens, the names run into the text.
_CHANNEL = re.compile(r"<\|channel\|>|<\|message\|>|\A(?:analysis|commentary)(?=[A-Z])")
_FINAL = re.compile(r"(?:<\|channel\|>)?\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|assistant\s*final")
_END_MARK = (
    r"<[|｜](?:return|call|start|user|observation|im_end|eo[tm]_id|end(?:oftext|[▁_]of[▁_]sentence)?)[|｜]>"
    r"|<(?:eos|end_of_turn)>"
)
_END = re.compile(rf"(?:{_END_MARK}).*", re.DOTALL)
"""The end of an answer, and what a server that does not stop there adds."""
_CONTROL = r"<[|｜][\w▁]{1,40}[|｜]>"
_EDGES = re.compile(rf"\A(?:(?:{_CONTROL}|(?<=>)assistant\b)\s*)+|(?:(?:{_CONTROL}|</s>|\[END FINAL RESPONSE\])\s*)+\Z")
"""Control tokens around an answer, which a server should have left out."""


def without_thought(text: str) -> str | None:
    """The answer after the thinking, without control tokens around it.

    `None` if the model was still thinking when it stopped.
    """
    if _CHANNEL.search(text):
        finals = list(_FINAL.finditer(text))
        return _END.sub("", text[finals[-1].end() :]).strip() if finals else None
    text = _PAIR.sub("", text)
    closings = list(_CLOSE.finditer(text))  # some chat templates put the opening tag into the prompt
    if closings:
        text = text[closings[-1].end() :]
    if _OPEN.search(text):
        return None
    return _END.sub("", _EDGES.sub("", text.strip())).strip() or text.strip()  # a label may look like a control token


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


_FIELD_NAMES = (
    "labels?|answer|category|class|classification|output|prediction|result|topic"
    "|sentiment|intent|emotion|stance|rating|verdict|decision|choice|option"
)
_CHOSEN = "the|final|correct|right|best|predicted|my|overall|primary|most likely"
_INTRODUCED = (
    rf"(?:(?:so|thus|therefore|hence|{_CHOSEN}),?\s+)*(?:{_FIELD_NAMES})"
    r"[*_\"'`]*(?:\s+is\b\s*:?|\s*[:=：]|[_\s])\s*"
)
_FIELD = re.compile(rf"\W*{_INTRODUCED}", re.IGNORECASE)
_CONFIDENCE = r"confidence|probability|certainty|likelihood"
_HEAD = re.compile(
    rf"^[^\w\n]*{_INTRODUCED}"
    rf"|(?:^|[.,;(])[^\w\n]*(?:{_CONFIDENCE})[^\w.,\n]{{1,4}}(?:high|medium|moderate|low)\b(?!\W{{1,3}}\d)"
    r"|\bscale (?:of|from) \d+ ?(?:to|-) ?\d+(?!\d)",
    re.IGNORECASE | re.MULTILINE,
)
"""What introduces a label, says how sure the model is of it, or gives a scale."""
_FIELD_DASH = re.compile(rf"\b({_FIELD_NAMES})[*_\"'`]*\s+-+>?\s+", re.IGNORECASE)
_NEXT_TEXT = re.compile(r"\n[\W_]{0,40}(?:input|text|user|human|instruction|question)\s*:", re.IGNORECASE)
"""Begins what a model without a stop token adds to its answer: another text, and a label for it."""
_BLOCK = re.compile(r"(?:[^\n]|\n(?![ \t]*\n))+")
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|\Z))+[.!?]*")

_INVISIBLE = re.compile(  # the joiner U+200D belongs to an emoji; elsewhere it is spelling or noise
    r"[\u00ad\u180e\u200b\u200c\u200e\u200f\u2060-\u2064\ufe0e\ufe0f\ufeff\ue000]"
    r"|(?<![\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d"
)
_DASHES = str.maketrans(
    dict.fromkeys("‐‑‒–−﹣－˗➖", "-") | dict.fromkeys("—―", " - ") | dict.fromkeys("’‘ʼ′＇", "'") | {"♯": "#"}
)
_ESCAPE = re.compile(r"\\([^\w\s]|_)")
_SIGN = re.compile(r"(?<![\w)\]])-\s+(?=\d)")
_POINTLESS = re.compile(r"(?<![\d.,])\+?(\d+)(?:\.0+)?(?![.,]?\d)")
_SPOKEN_SIGN = re.compile(r"\b(?:minus|negative)\s+(?=\d)", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$", re.MULTILINE)
_TAG = re.compile(rf"</?(?:(?:{_CHOSEN})[_-])*(?:{_FIELD_NAMES})>", re.IGNORECASE)
_STRUCK = re.compile(r"~~.*?~~|^[^\w\n]*?(?:\[ ?\](?=\s)|[☐□])[^\n]*", re.DOTALL | re.MULTILINE)
_TEX_TEXT = re.compile(r"\\(?:text|math)\w*\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_QUOTED = re.compile(r"""(["'])([\w -]+)\1\s*:\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
_QUOTES = " \t\r\n\"'`*_“”„‘’«»「」『』《》【】()[]{}|"
_STOPS = ".,;:!?。，！？：；…؟،؛۔।"

_OTHER_FIELD = re.compile(
    r"^[^\w\n]*(?:label|category|class|classification|prediction)[*_\"'`]*[ \t]*[:=]"
    r"[^\w\n]*[\w-]+(?:[ \t][\w-]+)?[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A field with one or two words; if they are no label, the label is none that the rest mentions."""
_COPULA = re.compile(r"(?<=\w)是(?:\s*:\s*|[ \t]+)?[\"'“‘「*]*(?!的(?!\w))\w|是(?!的(?!\w))\w|(?<=是)(?<!而是)否")
"""A 是 that means "is" and not "yes", or 是否 ("whether"); a longer label may begin with either ("否定")."""
_AND = r"&|and|und|et|y"

_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0dff"
_SPACED = rf"[^\W_{UNSEPARATED}]"
_PART_OF_MORE = tuple(
    (re.compile(label), re.compile(rf"(?:{before})\Z", re.IGNORECASE), re.compile(after))
    for label, before, after in (
        (r"", r"[-+±#!~¬≠\u200d]", r""),
        (r"", r"", r"[-+#~\u200d]"),
        (rf"\A(?:{_SPACED}|[-+.])", rf"{_SPACED}|[{_MARKS}]|[^\W_]_", r""),
        (rf"{_SPACED}\Z", r"", rf"{_SPACED}|[{_MARKS}]|_[^\W_]"),
        (r"\A['`_.-]+\Z", r"\w", r"\w"),
        (r"\A[-+]?\d", r"\d[.,:/⁄]|(?:\A|\s)[.,]|[<>≤≥€£¥]|\d ", r""),
        (r"\d\Z", r"", r"[.,:/⁄][-+]?\d| ?[%‰°]| \d"),
        (r"\A\d", r"\$", r"(?!\$)"),
        # "4 out of 5", "2 or 3 stars"; an answer that is cut off may end at "Step 1: read the text".
        (r"\A\d", r"\d\s+(?:(?:out\s+)?of|von|sur|de|di|van|av|af|из|z)\s+", r""),
        (r"\A\d+\W*[^\W\d]", r"\d\s+(?:to|or|and)\s+", r""),
        (r"\A\d", r"(?<!\w\s)\b(?:step|stage|example|input|text|sentence|schritt|[ée]tape|paso)\s+", r""),
        (r"\A\d", rf"\b(?:{_CONFIDENCE})\W{{1,4}}", r""),
        # A letter of a word or an abbreviation: "C'est", "A.M."; but "A's" may be "A is".
        (r"\A[^\W\d_]\Z", r"", r"'(?!s\b)\w|\.[^\W\d_](?![^\W\d_])"),
        (r"\A[^\W\d_]\Z", r"[^\W\d_]\.", r""),
    )
)
"""What a label looks like, and the text before and after it, where it is part of a word, a number or a compound."""


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
        text = self._clean_answer(_unwrap(answer, lambda key: bool(self._equal(_clean(key)))))
        if labels := self._equal(text):
            return _only(labels, Match.NORMALISED)
        own, *others = _NEXT_TEXT.split(text, maxsplit=1)
        field = _FIELD.match(own)
        if others and (labels := self._equal(own[field.end() if field else 0 :])):
            return _only(labels, Match.LEADING)
        claimed = claims(text, self._mentions(text))
        if labels := self._set_apart(text, claimed.side_by_side) - claimed.denied - claimed.unsure:
            return _only(labels, Match.LEADING)
        labels = claimed.named - claimed.denied
        if labels <= claimed.unsure or ASKS_FOR_TEXT.search(text) or self._answers_another(text):
            return None, None
        return _only(labels, Match.MENTIONED)

    def _answers_another(self, text: str) -> bool:
        """True if a field of the answer, such as "Label: other", holds none of the labels."""
        return any(not self._any.search(field[0]) for field in _OTHER_FIELD.finditer(text))

    def _clean_answer(self, text: str) -> str:
        text = _clean(_FIELD_DASH.sub(self._dash, text.translate(_DASHES)))
        return _SPOKEN_SIGN.sub("-", text) if self._has_number else text

    @cached_property
    def _has_number(self) -> bool:
        return any(re.match(r"-?\d", text) for text in self._spellings.values())

    @cached_property
    def _dash(self) -> str:
        """The replacement for the dash of "Answer - x", which may be a minus before a number."""
        if any(map(_FIELD_DASH.search, self._spellings.values())):
            return r"\g<0>"
        return r"\1 ±" if any(re.match(r"-\d", text) for text in self._spellings.values()) else r"\1: "

    @cached_property
    def _spellings(self) -> dict[str, str]:
        """The cleaned spelling of each label."""
        return {label: _clean(label) for label in self.labels}

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        spelled = sorted(self._spellings.values(), key=len, reverse=True)
        return {
            label: re.compile(_pattern(text, spelled), re.IGNORECASE) for label, text in self._spellings.items() if text
        }

    @cached_property
    def _any(self) -> re.Pattern[str]:
        """Matches any label: one search rules out most texts."""
        return re.compile("|".join(pattern.pattern for pattern in self._patterns.values()) or r"(?!)", re.IGNORECASE)

    def _closest(self, labels: Sequence[str], text: str) -> set[str]:
        """The labels spelled exactly like `text`; else those that differ only in case; else all."""
        exact = {label for label in labels if self._spellings[label] == text}
        folded = {label for label in labels if self._spellings[label].casefold() == text.casefold()}
        return exact or folded or set(labels)

    def _equal(self, text: str) -> set[str]:
        """The labels that the whole text spells."""
        for form in dict.fromkeys((text.strip(), text.lstrip(_QUOTES).rstrip(_QUOTES + _STOPS))):
            if self._any.fullmatch(form):
                labels = [label for label, pattern in self._patterns.items() if pattern.fullmatch(form)]
                return self._closest(labels, form)
        return set()

    def _set_apart(self, text: str, beside: Sequence[int]) -> set[str]:
        """The labels that fill a field, else those that fill the first line or a paragraph.

        Sentences count as fields if the last is one ("It has links. The label is spam."). Ignores lines, paragraphs
        and sentences with a label `beside` another, given by the start positions of such labels.
        """

        def single(parts: Iterable[re.Match[str]]) -> list[str]:
            return [part[0] for part in parts if not any(part.start() <= start < part.end() for start in beside)]

        lines, blocks = list(re.finditer(r"[^\n]+", text)), list(_BLOCK.finditer(text))
        sentences = list(_SENTENCE.finditer(text))
        last = sentences[-1][0] if sentences else ""
        concludes = (field := _FIELD.match(last)) and self._equal(last[field.end() :])
        parts = single([*lines, *blocks, *(sentences if concludes else [])])
        fields = [part[field.end() :] for part in parts if (field := _FIELD.match(part))]
        labels = set[str]().union(*map(self._equal, fields))
        return labels or set[str]().union(*map(self._equal, single(lines[:1] + blocks)))

    def _mentions(self, text: str) -> list[Mention]:
        """The places where the text spells a label, in order. The longest label at a place counts."""
        spans: dict[tuple[int, int], list[str]] = {}
        for label, pattern in self._patterns.items():
            for match in pattern.finditer(text):
                # A single letter must match in case: "A" may be a label, and "a" an article.
                same_case = len(match[0]) > 1 or match[0] == self._spellings[label]
                is_determiner = match[0].lower() == "no" and DETERMINER.match(text, match.end())
                is_copula = len(match[0]) == 1 and _COPULA.match(text, match.start())
                is_word = PARTICLE.fullmatch(label) or is_determiner or is_copula
                if same_case and not is_word and _stands_alone(text, *match.span()):
                    spans.setdefault(match.span(), []).append(label)
        # A label inside the introduction "The label is", or a confidence, does not count, unless there are no others.
        heads = [head.span() for head in _HEAD.finditer(text)]
        outside = [span for span in spans if not any(span[0] >= start and span[1] <= end for start, end in heads)]
        mentions: list[Mention] = []
        for start, end in sorted(outside or spans, key=lambda span: (span[0], -span[1])):
            labels = self._closest(spans[start, end], text[start:end])
            if not mentions or start >= mentions[-1].end:
                mentions.append(Mention(start, end, labels))
            elif end > mentions[-1].end:  # two labels overlap, so either may be meant
                mentions[-1] = Mention(mentions[-1].start, end, mentions[-1].labels | labels)
        return mentions


def _only(labels: set[str], match: Match) -> tuple[str | None, Match | None]:
    """The label and how it was matched if there is only one, else `(None, None)`."""
    return (next(iter(labels)), match) if len(labels) == 1 else (None, None)


def _clean(text: str) -> str:
    """Unify look-alikes: compatibility forms, dashes, apostrophes, signs, digits and entities. Drop invisible marks."""
    text = unicodedata.normalize("NFKC", html.unescape(text).replace("´", "'"))
    text = _ESCAPE.sub(r"\1", _INVISIBLE.sub("", text).translate(_DASHES))
    if not text.isascii():
        text = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
    return _POINTLESS.sub(r"\1", _SIGN.sub("-", text)).strip()


def _pattern(label: str, others: Sequence[str] = ()) -> str:
    """A pattern for a cleaned label. Spaces, underscores, hyphens and capitals separate words equally.

    So does a slash between words, and "&" may be spelled "and".

    If the label ends with another label, a hyphen may precede that ("in-formal").
    """
    for other in others:
        prefix = label[: -len(other) or None]
        if prefix[-1:].isalpha() and other[:1].isalpha() and label.casefold() == (prefix + other).casefold():
            joint = r"[\s_-]*" if prefix.casefold() in ("non", "un", "dis") else "-?"
            return _pattern(prefix) + joint + _pattern(label[len(prefix) :])
    label = re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[^\W\d_]{2})(?=\d)", " ", label)
    pieces = re.split(r"(?<=[^\s_-])([\s_-]+)(?=[^\s_-])", label)
    pattern = ""
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            escaped = re.escape(piece)
            if 0 < i < len(pieces) - 1 and re.fullmatch(_AND, piece, re.IGNORECASE):
                escaped = f"(?:{_AND})" if piece == "&" else f"(?:&|{piece})"
            escaped = re.sub(r"(?<=[^\W\d_]{2})/(?=[^\W\d_]{2})", r"(?:\\s*/\\s*|[\\s_-])", escaped)
            escaped = re.sub(r"(?<=\w)/(?=\w)", r"\\s*/\\s*", escaped)
            escaped = re.sub(r"(?<=\w)\\&(?=\w)", rf"(?:\\s*&\\s*|\\s+(?:{_AND})\\s+)", escaped)
            escaped = re.sub("ß|ss", "(?:ß|ẞ|ss)", escaped, flags=re.IGNORECASE)
            pattern += re.sub(r"[.?!]$", r"\g<0>?", escaped) if i == len(pieces) - 1 and len(piece) > 1 else escaped
        else:
            pattern += r"[\s_-]+" if pieces[i - 1][-1].isdigit() and pieces[i + 1][0].isdigit() else r"[\s_-]*"
    return pattern


def _stands_alone(text: str, start: int, end: int) -> bool:
    """True if the span is not part of a word, a number, a signed number or a compound such as "spam-free"."""
    before, spelled = text[max(start - 20, 0) : start], text[start:end]
    return not any(
        label.search(spelled) and outside.search(before) and after.match(text, end)
        for label, outside, after in _PART_OF_MORE
    )


def _unwrap(answer: str, is_label: Callable[[str], bool]) -> str:
    """Drop fences, tags and struck text. Replace JSON by its values: those of a field such as "label", else all."""
    answer = _BOXED.sub(r"\n\n\1\n\n", _TEX_TEXT.sub(r"\1", answer))
    answer = _STRUCK.sub(" ", _TAG.sub("\n\n", _FENCE.sub("", answer))).strip()
    values = [value for value in _json(answer) if value]
    leaves = [leaf for value in values for leaf in _leaves(value, "", 0, is_label)]
    if not values:  # it may be truncated JSON, or Python
        quoted = [(key, double or single) for _, key, double, single in _QUOTED.findall(answer)]
        quoted_leaves = list(_leaves(_Pairs(quoted), "", 0, is_label))
        if quoted and not quoted_leaves and answer.startswith("{"):
            return ""  # every key denies its value
        leaves = [leaf for leaf in quoted_leaves if leaf[1]]
    best = max((rank for _, rank in leaves), default=0)
    return "\n\n".join(text for text, rank in leaves if rank == best) if values or leaves else answer


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps repeated keys."""


def _json(answer: str) -> Iterator[Any]:
    """The JSON objects in the answer. A list without quotes counts only as the whole answer: "[1]" is a footnote."""
    decoder, end = json.JSONDecoder(object_pairs_hook=_Pairs), 0
    for start in [match.start() for match in re.finditer(r"[{\[]", answer)][:20]:
        if start >= end:
            try:
                value, end = decoder.raw_decode(answer, start)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, _Pairs) or end - start == len(answer) or '"' in answer[start:end]:
                yield value


def _leaves(value: Any, key: str, rank: int, is_label: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    """The values, each with a rank; not confidences and denied values. `{"spam": true}` gives "spam".

    The rank is 2 directly under a field such as "label", 1 deeper or under a field such as "other_labels", else 0.
    """
    if isinstance(value, bool) and is_label(key):
        if value:
            yield key, 1
        return
    words = re.findall(r"[^\W_]+", key.casefold())
    if NEGATION.search(" ".join(words) + "\ue000") or (words and re.fullmatch(_CONFIDENCE, words[-1])):
        return
    if words and re.fullmatch(_FIELD_NAMES, words[-1]):
        chosen = re.fullmatch(rf"(?:(?:{_CHOSEN}) )*(?:{_FIELD_NAMES})", " ".join(words))
        rank = 2 if chosen and words[-1] != "labels" else 1
    if isinstance(value, _Pairs):
        for name, inner in value:
            yield from _leaves(inner, name, min(rank, 1), is_label)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _leaves(inner, key, rank, is_label)
    elif value is None:
        yield "", rank
    else:
        yield value if isinstance(value, str) else json.dumps(value), rank


def answer_tokens(label_tokens: Sequence[int]) -> int:
    """A `max_tokens` that fits the longest label in a short sentence."""
    return max(label_tokens) + 24
