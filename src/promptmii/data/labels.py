"""Cells to labels: one line of text each, and one label for spellings that look the same to a reader."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.errors import DataError, counted, listed

MARKS = "\u200b\u200e\u200f\u2060\u00ad\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Marks that are seen nowhere and belong to no word: zero-width spaces, soft hyphens, directions of writing.

U+200C and U+200D are not among them: Persian, Indic scripts and emoji are written with them."""
_VARIANT = re.compile("[\u200c\ufe0e\ufe0f]")
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
_MISSING = frozenset(
    {"na", "n/a", "nan", "null", "<na>", "nat", "[]", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#num!"}
)
"""Placeholders that programs write into empty cells; "none" is too often a label."""
_OUTER = ".,:;!?\"'`“”‘’«»()[]"
_JOINED = re.compile(r"(?<=\w)[\s_\u2010-\u2015-]+(?=\w)")
_PARTS = re.compile(r"\s*(?:[,;|/&+]|\band\b)\s*")
_NAMED = 4
"""Examples that a note names."""


def one_line(text: str) -> str:
    """The text in composed Unicode on one line, without invisible marks."""
    return " ".join(unicodedata.normalize("NFC", text.translate(dict.fromkeys(map(ord, MARKS)))).split())


def label_text(value: Any, column: str) -> str:
    """A label as one line of text: True, 1 and 1.0 become "True", "1" and "1"; a list of one is that one.

    Raises `DataError` for several labels, fractions and whatever else is no name.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float | list | dict | tuple | bytes):
        raise DataError(
            f"The label column {column!r} holds {str(value)[:80]}; expected one name or whole number per row "
            "(no lists, no scores)."
        )
    return one_line(str(value))


def label_key(label: str) -> str:
    """The same for labels that differ by case, spaces, invisible marks, form of Unicode, or as 1 and 1.0 do."""
    plain = unicodedata.normalize("NFKC", _VARIANT.sub("", one_line(label))).casefold()
    return _WHOLE.sub(r"\1", plain) if _WHOLE.fullmatch(plain) else " ".join(plain.split())


@dataclass(frozen=True)
class Spelling:
    """Which spelling stands for each label."""

    chosen: Mapping[str, str]
    """By key."""
    known: frozenset[str]
    """Labels of a list or a schema. They stand for themselves, so that two of them may differ by case alone."""

    @classmethod
    def of(cls, labels: Iterable[str], known: Sequence[str] = (), *, closed: bool = False) -> "Spelling":
        """That of the known labels, then the commonest, a whole number before 1.0; no others where `closed`."""
        groups: dict[str, Counter[str]] = defaultdict(Counter)
        for label in () if closed else labels:
            groups[label_key(label)][label] += 1
        common = {
            key: min(group, key=lambda label: (bool(_WHOLE.fullmatch(label)), -group[label], label))
            for key, group in groups.items()
        }
        keys = Counter(map(label_key, known))
        single = {label_key(label): label for label in known if keys[label_key(label)] == 1}
        return cls({key: label for key, label in (common | single).items() if keys[key] < 2}, frozenset(known))

    def __call__(self, label: str) -> str | None:
        """The label in its chosen spelling; `None` if it matches no known label."""
        return label if label in self.known else self.chosen.get(label_key(label))


def variant_notes(cells: Iterable[str], spelling: Spelling) -> tuple[str, ...]:
    """A note that names the spellings which became one label."""
    variants: dict[str, set[str]] = defaultdict(set)
    for cell in set(cells):
        chosen = spelling(one_line(cell))
        if chosen is not None:
            variants[chosen].add(cell)
    joined = {
        chosen: sorted(cells - {chosen})
        for chosen, cells in sorted(variants.items())
        if len(cells | ({chosen} & spelling.known)) > 1
    }
    if not joined:
        return ()
    named = [
        f"{chosen!r} (also {listed([_told_apart(cell, chosen) for cell in joined[chosen]], _NAMED)})"
        for chosen in joined
    ]
    one = "labels that differ in case, spaces, Unicode form or invisible marks alone are one"
    return (f"{one}: {listed(named, _NAMED)}",)


def _told_apart(cell: str, chosen: str) -> str:
    """The cell in quotes, with escapes where it would look like the chosen label."""
    return repr(cell) if one_line(cell) != chosen or cell.isascii() else ascii(cell)


def doubtful_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """Notes that name labels which may be no labels of their own."""
    return (*_combined_notes(labels), *_missing_notes(labels), *_alike_notes(labels))


def _missing_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """A note that names labels which may stand for none."""
    counts = Counter(label for label in labels if label.casefold() in _MISSING)
    if not counts:
        return ()
    return (
        f"{counted(counts.total(), 'row')} with {listed([*map(repr, counts)], _NAMED)} as the label. If that means "
        "a missing one, give the others with --labels",
    )


def _alike_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """A note that names labels which differ in punctuation alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        groups[_JOINED.sub(" ", label_key(label)).strip(_OUTER)].append(label)
    alike = [" and ".join(map(repr, group)) for key, group in groups.items() if key and len(group) > 1]
    if not alike:
        return ()
    return (f"labels that differ in punctuation alone are taken as different: {listed(alike, _NAMED)}",)


def _combined_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """A note that names labels which look like several of the others at once."""
    counts = Counter(labels)
    keys = {label_key(_bare(label)) for label in counts}
    several = [label for label in counts if _is_several(label, keys)]
    if not several:
        return ()
    rows, shown = sum(counts[label] for label in several), listed([*map(repr, several)], _NAMED)
    return (
        f"{counted(rows, 'row')} with what looks like several labels ({shown}). Each is taken as a label "
        "of its own; to drop these rows, give the single labels with --labels",
    )


def _is_several(label: str, keys: set[str]) -> bool:
    parts = [label_key(_bare(part)) for part in _PARTS.split(label)]
    return len(parts) > 1 and all(part in keys for part in parts)


def _bare(label: str) -> str:
    """The label without the marks of a list, as ['a', 'b'] has them."""
    return label.strip(" []'\"")
