"""Chooses text and label columns: as given, or by schema, names and values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Table
from promptmii.errors import DataError, listed, nearest

Pairs = Sequence[tuple[str, str]]
PAIRS: Pairs = (
    *(("premise", "hypothesis"), ("claim", "evidence"), ("query", "passage")),
    *(("question", "sentence"), ("question", "passage"), ("question", "context")),
    *(("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b")),
    *(("question1", "question2"), ("text1", "text2"), ("text_a", "text_b")),
)
"""Text columns that a label describes jointly."""
MAX_LABEL_SHARE = 0.5
"""A column with more distinct values than this share of its rows is not a label column, unless its name says so."""
FIRST = 50
"""Texts of a column that show what it holds."""
LONGEST_LABEL = 120
LONGEST_CATEGORY = 40
"""Mean characters up to which a column of few values is a category rather than a text."""
_SLOT = re.compile(r"\{([^{}]+)\}")
_SEVERAL = re.compile(r"\s|[^\x00-\x7f]")
"""Between words. Names of files and people have none, and Chinese needs none."""
_WORD = re.compile(r"[^\W\d_]")
_DATE_WORDS = "mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|am|pm"
_NO_WORDS = re.compile(
    r"\S+://\S+|\S+@\S+\.\w+|[0-9a-fA-F-]{16,}"
    rf"|(?=.*\d)(?:[\W\d_]|(?<![^\W\d_])(?:(?i:{_DATE_WORDS})[a-z]*|[A-Z]{{1,4}})(?![^\W\d_]))+"
)
"""Addresses, identifiers, dates with their names of months and time zones."""
_FRACTION = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class ChosenColumns:
    """The columns in use."""

    text: tuple[str, ...]
    template: str | None
    """Joins several columns into one text; `None`: one column as it is, or one line per column, with its name."""
    label: str | None
    notes: tuple[str, ...] = ()
    """Notes on what was detected rather than given."""
    label_named: bool = True
    """The label column was given, or its header or schema marks it as a label."""
    doubts: tuple[str, ...] = ()
    """Other plausible columns; empty if the choice is clear."""
    decided: bool = True
    """Every column was given, chosen by name or schema, or the only candidate."""

    def render(self, row: dict[str, Any]) -> str:
        """The text of a row; empty if every column is missing. Raises `DataError` for values that are not text."""
        if len(self.text) == 1 and self.template is None:
            text = _text(self.text[0], row[self.text[0]])
            return text if text.strip() else ""
        values = {name: _text(name, row[name]) for name in self.text}
        if not any(value.strip() for value in values.values()):
            return ""
        if self.template is not None:
            return _slots(self.text).sub(lambda match: values[match[0][1:-1]], self.template)
        return "\n".join(f"{name}: {value}" for name, value in values.items())


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return " ".join(value)  # a text that was split into words
    if isinstance(value, bytes | dict | list | tuple):
        raise DataError(
            f"The text column {name!r} holds {type(value).__name__}; expected text. Name another with --text."
        )
    return "" if value is None else str(value)


def choose_columns(
    table: Table, text: str | Sequence[str] | None, label: str | None, *, labelled: bool = True, pairs: Pairs = PAIRS
) -> ChosenColumns:
    """Choose the columns. Raises `DataError` with the nearest name for one that does not exist."""
    names, template = _given_text(table, text)
    notes: list[str] = []
    doubts: list[str] = []
    label_named = True
    if label is not None:
        _require(table, [label])
        notes += [note for other in table.columns if (note := _names_of_numbers(table, label, other))]
    elif labelled:
        label, label_named, others = _find_label(table, names)
        numbers = next((name for name in others if _names_of_numbers(table, name, label)), None)
        notes.append(f"label column: {label!r} (detected{f', it names the numbers of {numbers!r}' if numbers else ''})")
        doubts += others
    decided = label_named or not doubts
    if not names:
        names, text_named, others = _find_text(table, label, pairs)
        notes.append(f"text {'columns' if len(names) > 1 else 'column'}: {', '.join(map(repr, names))} (detected)")
        doubts += others
        decided &= text_named or not others
    if label in names:
        raise DataError(f"The column {label!r} is both text and label; they must differ.")
    doubts = list(dict.fromkeys(doubts))
    if doubts:
        notes.append(f"other columns might be meant: {', '.join(map(repr, doubts))}; --text and --label say which")
    return ChosenColumns(names, template, label, tuple(notes), label_named, tuple(doubts), decided)


def _given_text(table: Table, text: str | Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    """The named columns, and the template that names them, if any. A column's own name is no template."""
    if not text:
        return (), None
    if isinstance(text, str) and text not in table.columns and _SLOT.search(text):
        slots = _slots(table.columns)
        _require(table, _SLOT.findall(slots.sub("", text)))
        return tuple(dict.fromkeys(slot[1:-1] for slot in slots.findall(text))), text
    names = (text,) if isinstance(text, str) else tuple(text)
    _require(table, names)
    return names, None


def _slots(names: Sequence[str]) -> re.Pattern[str]:
    """Matches `{name}` for each of the names, which may hold braces themselves."""
    return re.compile("|".join(re.escape(f"{{{name}}}") for name in sorted(names, key=len, reverse=True)))


def _require(table: Table, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(f"{table.origin} has no column {name!r}. {nearest(name, table.columns)}")


def _nested(table: Table) -> str:
    """A sentence that names the columns of objects, whose fields are no columns."""
    names = [name for name in table.columns if any(isinstance(row[name], Mapping) for row in table.rows)]
    if not names:
        return ""
    return f" What is within objects cannot be read ({listed([*map(repr, names)])}): save each field as a column."


def column_values(table: Table, name: str) -> list[Any]:
    """Non-missing values; a list of one counts as its element, longer lists are skipped."""
    values = (row[name] for row in table.rows if row[name] is not None)
    return [
        value[0] if isinstance(value, list | tuple) else value
        for value in values
        if not isinstance(value, list | tuple) or len(value) == 1
    ]


def _find_label(table: Table, taken: Sequence[str]) -> tuple[str, bool, list[str]]:
    """The most likely label column, whether its name says so, and other plausible ones."""
    candidates = [name for name in table.columns if name not in taken and could_be_label(table, name)]
    called_label = [name for name in table.columns if name.casefold() in LABEL_NAMES or name in table.classes]
    if not candidates:  # few examples of many labels: then the name of the column decides
        candidates = [name for name in called_label if name not in taken and could_be_label(table, name, repeats=False)]
    if not candidates:
        reasons = "".join(f" {why_no_label(table, name)}" for name in called_label[:3] if name not in taken)
        raise DataError(
            f"No column of {table.origin} looks like a label (a few values that repeat).{reasons} "
            f"Columns: {listed(table.columns)}.{_nested(table)} Name it with --label."
        )
    declared = [name for name in candidates if name in table.classes]
    named = [name for hint in LABEL_NAMES for name in candidates if name.casefold() == hint]
    worded = [name for name in candidates if set(re.split(r"[\W_]+", name.casefold())) & set(LABEL_NAMES)]
    few = sorted(candidates, key=lambda name: len(set(map(str, column_values(table, name)))))
    best = (declared + named + worded + few)[0]
    if names := [name for name in candidates if _names_of_numbers(table, best, name)]:
        return names[0], True, [best]
    rivals = declared or named or candidates
    return best, best in called_label, [name for name in rivals if name != best]


def could_be_label(table: Table, name: str, *, repeats: bool = True) -> bool:
    """Whether a column holds names or whole numbers that repeat; without `repeats`, distinct names will do."""
    values = column_values(table, name)
    distinct = Counter(str(value) for value in values)
    scalar = all(isinstance(value, str | int) or (isinstance(value, float) and value.is_integer()) for value in values)
    present = sum(row[name] is not None for row in table.rows)
    if not scalar or len(distinct) < 2 or len(values) * 2 < present or max(map(len, distinct)) > LONGEST_LABEL:
        return False
    if _hold_fractions(distinct):
        return False
    return len(distinct) <= MAX_LABEL_SHARE * len(values) or (not repeats and not all(map(_is_number, distinct)))


def why_no_label(table: Table, name: str) -> str:
    """The reason why a column named like a label is not one."""
    values = column_values(table, name)
    present = sum(row[name] is not None for row in table.rows)
    distinct = Counter(map(str, values))
    if len(values) * 2 < present:
        return f"{name!r} holds several labels per row."
    if _hold_fractions(distinct):
        return f"{name!r} holds fractions such as {values[0]!r:.60}: scores, not labels."
    if len(distinct) < 2:
        return f"{name!r} has one value ({values[0]!r:.60})." if values else f"{name!r} is empty."
    return f"{name!r} has {len(distinct)} different values in {len(values)} rows, such as {values[0]!r:.60}."


def _hold_fractions(counts: Counter[str]) -> bool:
    """Whether most values are decimals, not all of them whole numbers."""
    decimals = {value: count for value, count in counts.items() if _FRACTION.fullmatch(value.strip())}
    return sum(decimals.values()) * 2 > counts.total() and not all(float(value).is_integer() for value in decimals)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("+-").isdecimal()


def _names_of_numbers(table: Table, numbers: str, names: str) -> str | None:
    """A note if one column holds the names for the numbers in another, as `label_text` does for `label`."""
    pairs = [(row[numbers], row[names]) for row in table.rows if row[numbers] is not None and row[names] is not None]
    if numbers == names or not pairs or not all(isinstance(cell, str | int | float) for pair in pairs for cell in pair):
        return None
    known = dict(pairs)
    one_to_one = len(set(pairs)) == len(known) == len(set(known.values()))
    named = all(_is_number(str(number)) and not _is_number(str(name)) for number, name in known.items())
    if not one_to_one or not named or not 2 <= len(known) <= MAX_LABEL_SHARE * len(pairs):
        return None
    if max(len(str(name)) for name in known.values()) > LONGEST_LABEL:
        return None
    shown = ", ".join(f"{number} is {name}" for number, name in list(known.items())[:4])
    return f"the column {names!r} names the numbers of {numbers!r} ({shown}); --label {names} uses the names"


def _find_text(table: Table, label: str | None, pairs: Pairs) -> tuple[tuple[str, ...], bool, list[str]]:
    """The most likely text columns, whether their names decide, and other plausible ones."""
    texts = {name: _texts(table, name) for name in table.columns if name != label}
    worded = {name for name, own in texts.items() if own and (name.casefold() in TEXT_NAMES or _have_words(own))}
    lengths = {name: sum(map(len, own)) / len(table.rows) for name, own in texts.items() if name in worded}
    if not lengths:
        raise DataError(
            f"No column of {table.origin} holds text. Columns: {listed(table.columns)}.{_nested(table)} Name it with "
            "--text."
        )
    called = {name.casefold(): name for name in lengths}
    if pair := next((pair for pair in pairs if set(pair) <= called.keys()), None):
        return tuple(called[name] for name in pair), True, []
    categories = {n for n, size in lengths.items() if size <= LONGEST_CATEGORY and could_be_label(table, n)}
    free = {name: size for name, size in lengths.items() if name not in categories} or lengths
    free = {name: size for name, size in free.items() if any(map(_SEVERAL.search, texts[name][:FIRST]))} or free
    named = [called[hint] for hint in TEXT_NAMES if called.get(hint) in free]
    best = named[0] if named else max(free, key=free.__getitem__)
    least = free[best] if named else free[best] / 2
    return (best,), bool(named), [name for name, length in free.items() if name != best and length > least]


def _texts(table: Table, name: str) -> list[str]:
    return [value for value in column_values(table, name) if isinstance(value, str)]


def _have_words(texts: Sequence[str]) -> bool:
    first = texts[:FIRST]
    return any(map(_WORD.search, first)) and not all(map(_NO_WORDS.fullmatch, first))
