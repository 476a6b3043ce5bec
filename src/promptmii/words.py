"""Words in any script: some scripts put no spaces between them, so there characters are counted instead."""

import re
from collections.abc import Iterable

from promptmii.task import normalise_text

_HALVES = "\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Ideographs and hiragana: a word has about two."""
_QUARTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f"
    "\u1780-\u17d3\u17d7\u17dc\u17dd\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
)
"""Katakana, Thai, Lao, Burmese and Khmer: a word has about four."""
UNSPACED = _HALVES + _QUARTERS
"""Characters of scripts without spaces between words, as ranges of a pattern. Korean has spaces."""
UNSEPARATED = UNSPACED + "\u0f00-\u0fff\u1100-\u11ff\uac00-\ud7af"
"""Characters that may follow a word without belonging to it: also Tibetan, and Korean, which adds particles."""
WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]+"
"""A pattern for a word; for a single character where words have no spaces, else a whole sentence would be a word."""
BULLETS = " -*•#\t"
"""Characters around the label of a line such as "- **refund**: ..."."""
_PIECE = re.compile(WORD)
_INNER_SPACE = re.compile(rf"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")


def split_words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation; single characters where words have no spaces."""
    return _PIECE.findall(normalise_text(text))


def join_words(words: list[str]) -> str:
    """The words with spaces between them, except in scripts without spaces."""
    return _INNER_SPACE.sub("", " ".join(words))


def word_share(piece: str) -> float:
    """The number of words in a piece of text without spaces: 1, but fractions for characters of `UNSPACED`."""
    return len(re.findall(f"[{_HALVES}]", piece)) / 2 + len(re.findall(f"[{_QUARTERS}]", piece)) / 4 or 1.0


def any_of(texts: Iterable[str]) -> str:
    """A pattern for any of the texts, the longest that fits."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def whole_label(labels: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the labels (group 1) where it is no part of a word, the longest that fits."""
    return re.compile(rf"(?<![^\W_])({any_of(labels)})(?!\w)")


def label_heading(labels: Iterable[str]) -> re.Pattern[str]:
    """Matches the beginning of a line with a label (group 1), perhaps after a bullet.

    The first whole label in the line counts: "17: 7 days" belongs to the label "17", not to "7".
    """
    return re.compile(rf"[\W\d_]*?{whole_label(labels).pattern}\W*")
