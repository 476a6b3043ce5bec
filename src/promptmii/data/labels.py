"""Turns cells into one-line labels and merges spellings that look the same to a reader."""

import html
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import takewhile
from typing import Any, TypeGuard

from promptmii.errors import DataError
from promptmii.messages import counted, listed

INVISIBLE = "\u00ad\u061c\u200b\u200e\u200f\ufeff" + "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2060, 0x2070))))
"""Invisible characters that no word needs: zero-width spaces, soft hyphens, direction marks.

U+200C and U+200D are missing on purpose: Persian, Indic scripts and emoji need them."""
_NO_INVISIBLE = dict.fromkeys(map(ord, INVISIBLE))
_VARIANT_MARKS = re.compile("[\u200c\ufe0e\ufe0f\u0640]")
"""The zero-width non-joiner, the variation selectors of emoji, and the stroke that lengthens Arabic words."""
_PERSIAN_LETTERS = str.maketrans("يك", "یک")
"""Arabic keyboards write these two letters of Persian words differently; the words look the same."""
_WHOLE_FLOAT = re.compile(r"[+-]?\d+\.0+")
_WHOLE_NUMBER = re.compile(r"\+?([-\u2212]?)(\d+)(?:\.0*)?")
_PLACEHOLDERS = frozenset(
    {
        *("na", "n/a", "nan", "null", "<na>", "nat", "[]", "<null>", "(null)", "[null]", "(blank)", "undefined"),
        *("#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!", ".", "-", "--", "?"),
    }
)
"""Placeholders that programs write into empty cells; "none" is too often a label."""
_OUTER_PUNCTUATION = ".,:;!?\"'`“”‘’«»()[]"
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ′`´", "'"))
_ACCENTS = re.compile("[\u0300-\u036f]")
"""Of Latin, Greek and Cyrillic letters, which are often left out, above all of capitals."""
_BOOLEANS = {"true": "1", "false": "0"}
_LEADING_ZEROS = re.compile(r"(?<![\w.,])0+(?=\d)")
_WORD_SEPARATOR = re.compile(r"(?<=\w)[\s_\u2010-\u2015-]+(?=\w)")
_LIST_SEPARATOR = re.compile(r"\s*(?:[,;|/&+#]|\band\b)\s*")
_EXAMPLES_PER_NOTE = 4
_FEW_ROWS = 12
"""Among fewer rows, a label that occurs once is ordinary."""


def one_line(text: str) -> str:
    """The text on one line, in composed Unicode (NFC), without invisible characters."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_NO_INVISIBLE)).split())


def is_whole(value: object) -> TypeGuard[float | Decimal]:
    """Whether a value is a float or decimal without a fraction, such as 1.0."""
    return isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)


def label_text(value: Any, column: str) -> str:
    """A cell as a one-line label: True, 1 and 1.0 become "True", "1" and "1", and a list of one gives its item.

    Raises `DataError` for several labels, fractions, and anything else that is not a name.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if is_whole(value):
        return str(int(value))
    if isinstance(value, float | Decimal | list | dict | tuple | bytes):
        raise DataError(
            f"The label column {column!r} holds {str(value)[:80]}; expected one name or whole number per row "
            "(no lists, no scores)."
        )
    return one_line(str(value))


@lru_cache(maxsize=4096)
def label_key(label: str) -> str:
    """A key that ignores case, spacing, invisible characters and Unicode form, and takes 1.0 and +1 for 1."""
    folded = unicodedata.normalize("NFKC", _VARIANT_MARKS.sub("", one_line(label))).casefold()
    folded = folded.replace("i\u0307", "i").translate(_PERSIAN_LETTERS)  # the Turkish capital I has a dot
    if whole := _WHOLE_NUMBER.fullmatch(folded):
        return f"-{whole[2]}" if whole[1] else whole[2]
    return " ".join(folded.split())


@dataclass(frozen=True)
class Spelling:
    """The spelling in use for each label."""

    chosen: Mapping[str, str]
    """The spelling by `label_key`."""
    known: frozenset[str]
    """Labels from a list or a schema. They are never merged, so two of them may differ by case alone."""

    @classmethod
    def of(cls, labels: Iterable[str], known: Sequence[str] = (), *, closed: bool = False) -> "Spelling":
        """Prefer the spelling of a known label, then the most frequent one, with 1 before 1.0.

        If `closed`, only known labels have a spelling. Known labels that share a key match exactly or not at all.
        """
        groups: dict[str, Counter[str]] = defaultdict(Counter)
        for label in () if closed else labels:
            groups[label_key(label)][label] += 1
        chosen = {
            key: min(counts, key=lambda label: (bool(_WHOLE_FLOAT.fullmatch(label)), -counts[label], label))
            for key, counts in groups.items()
        }
        chosen |= {label_key(label): label for label in known}
        key_counts = Counter(map(label_key, known))
        return cls({key: label for key, label in chosen.items() if key_counts[key] < 2}, frozenset(known))

    def __call__(self, label: str) -> str | None:
        """The label in its chosen spelling, or `None` if it has none."""
        return label if label in self.known else self.chosen.get(label_key(label))


def variant_notes(cells: Iterable[str], spelling: Spelling) -> tuple[str, ...]:
    """A note that names the spellings merged into one label."""
    cells_by_label: dict[str, set[str]] = defaultdict(set)
    for cell in set(cells):
        label = spelling(one_line(cell))
        if label is not None:
            cells_by_label[label].add(cell)
    merged: list[str] = []
    for label, variants in sorted(cells_by_label.items()):
        if len(variants | ({label} & spelling.known)) > 1:
            # With escapes where a cell would otherwise look like the label.
            others = [
                repr(cell) if one_line(cell) != label or cell.isascii() else ascii(cell)
                for cell in sorted(variants - {label})
            ]
            merged.append(f"{label!r} (also {listed(others, _EXAMPLES_PER_NOTE)})")
    if not merged:
        return ()
    rule = "labels that differ in case, spaces, Unicode form or invisible marks alone are one"
    return (f"{rule}: {listed(merged, _EXAMPLES_PER_NOTE)}",)


def doubtful_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """Notes on labels that may not be labels in their own right."""
    return (
        *_combination_notes(labels),
        *_placeholder_notes(labels),
        *_punctuation_notes(labels),
        *_outer_row_notes(labels),
    )


def _outer_row_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """Notes if the first two rows or the last one have labels of their own, though all others repeat."""
    counts = Counter(labels)
    single = [label for label, count in counts.items() if count == 1]
    if len(single) > 3 or len(labels) < _FEW_ROWS or any(1 < count < 3 for count in counts.values()):
        return ()
    headers = zip(("first", "second"), takewhile(single.__contains__, labels), strict=False)
    return tuple(
        f"the label {label!r} occurs in the {place} row alone; if that is a {kind}, remove the row"
        for place, label, kind in (*((*row, "second header") for row in headers), ("last", labels[-1], "total"))
        if label in single
    )


def _placeholder_notes(labels: Sequence[str]) -> Iterator[str]:
    counts = Counter(label for label in labels if label.casefold() in _PLACEHOLDERS)
    if counts:
        yield (
            f"{counted(counts.total(), 'row')} with {_examples(counts)} as the label. If that means "
            "a missing one, give the others with --labels"
        )


def _punctuation_notes(labels: Sequence[str]) -> Iterator[str]:
    """A note that names labels which differ in punctuation, accents or the form of a number alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        key = _WORD_SEPARATOR.sub(" ", label_key(html.unescape(label)).translate(_APOSTROPHES))
        key = _ACCENTS.sub("", unicodedata.normalize("NFD", _LEADING_ZEROS.sub("", key.strip(_OUTER_PUNCTUATION))))
        groups[_BOOLEANS.get(key, key)].append(label)
    similar = [" and ".join(map(repr, group)) for key, group in groups.items() if key and len(group) > 1]
    if similar:
        rule = "labels that differ in punctuation, accents or the form of a number alone are taken as different"
        yield f"{rule}: {listed(similar, _EXAMPLES_PER_NOTE)}"


def _combination_notes(labels: Sequence[str]) -> Iterator[str]:
    """A note that names labels which look like several other labels in one cell."""
    counts = Counter(labels)
    parts = {label: list(map(_list_item_key, _LIST_SEPARATOR.split(label))) for label in counts}
    keys = set(map(_list_item_key, counts))
    combinations = [label for label, items in parts.items() if len(items) > 1 and keys.issuperset(items)]
    if combinations:
        n_rows = sum(counts[label] for label in combinations)
        yield (
            f"{counted(n_rows, 'row')} with what looks like several labels ({_examples(combinations)}). Each is taken "
            "as a label of its own; to drop these rows, give the single labels with --labels"
        )


def _list_item_key(item: str) -> str:
    """The key of a label without the brackets and quotes of a list written as text, such as "['a', 'b']"."""
    return label_key(item.strip(" []'\""))


def _examples(labels: Iterable[str]) -> str:
    return listed([repr(label) for label in labels], _EXAMPLES_PER_NOTE)
