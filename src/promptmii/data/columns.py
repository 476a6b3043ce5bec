"""Chooses the text and label columns: those the user names, else by schema, column names and values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptmii.data.labels import is_whole, label_key
from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Row, Table, clean_cell, is_number
from promptmii.errors import DataError
from promptmii.messages import listed, nearest
from promptmii.words import any_of

Pairs = Sequence[tuple[str, str]]
PAIRS: Pairs = (
    *(("premise", "hypothesis"), ("claim", "evidence"), ("query", "passage")),
    *(("question", "sentence"), ("question", "passage"), ("question", "context")),
    *(("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b")),
    *(("question1", "question2"), ("text1", "text2"), ("text_a", "text_b")),
)
"""Names of text columns that are labelled together."""
MAX_LABEL_SHARE = 0.5
"""A label column has at most this many distinct values per row, unless its name says that it is one."""
PEEK = 50
"""Values that show what kind of text a column holds."""
MAX_LABEL_LENGTH = 120
MAX_CATEGORY_LENGTH = 40
"""A column of few values whose mean length is at most this (in characters) is a category, not a text."""
_SLOT = re.compile(r"\{([^{}]+)\}")
_SPACE_OR_NON_ASCII = re.compile(r"\s|[^\x00-\x7f]")
"""Found in texts, as opposed to file and user names. Chinese text has no spaces, but it is not ASCII."""
_LETTER = re.compile(r"[^\W\d_]")
_DATE_WORDS = "mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|am|pm"
_NOT_PROSE = re.compile(
    r"\S+://\S+|\S+@\S+\.\w+|[0-9a-fA-F-]{16,}"
    rf"|(?=.*\d)(?:[\W\d_]|(?<![^\W\d_])(?:(?i:{_DATE_WORDS})[a-z]*|[A-Z]{{1,4}})(?![^\W\d_]))+"
)
"""Matches URLs, email addresses, identifiers, and dates including names of months and time zones."""
_FRACTION = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class ChosenColumns:
    """The text and label columns in use."""

    text: tuple[str, ...]
    template: str | None
    """Joins the text columns. If `None`, a single column is used as is, and several become lines of "name: value"."""
    label: str | None
    notes: tuple[str, ...] = ()
    """Notes on detected columns."""
    label_named: bool = True
    """The user named the label column, or its header or schema marks it as a label."""
    doubts: tuple[str, ...] = ()
    """Other plausible columns; empty if the choice is clear."""
    decided: bool = True
    """Every column was given, chosen by name or schema, or the only candidate."""

    def render(self, row: dict[str, Any]) -> str:
        """The text of a row; empty if every column is blank. Raises `DataError` for values that are not text."""
        values = {name: cell_text(name, row[name] if name in row else field(row, name)) for name in self.text}
        if not any(value.strip() for value in values.values()):
            return ""
        if self.template is not None:
            return _slots(self.text).sub(lambda match: values[match[0][1:-1]], self.template)
        if len(self.text) == 1:
            return values[self.text[0]]
        return "\n".join(f"{name}: {value}" for name, value in values.items())


def cell_text(name: str, value: Any) -> str:
    """The text in a cell of the column `name`. Raises `DataError` if it holds no text."""
    if (text := text_of(value)) is not None:
        return text
    if isinstance(value, bytes):
        raise DataError(f"{_not_utf8(name, value)} Or name another column with --text.")
    if isinstance(value, dict | list | tuple):
        raise DataError(
            f"The text column {name!r} holds {type(value).__name__}; expected text. Name another with --text."
        )
    return "" if value is None else str(value)


def text_of(value: Any) -> str | None:
    """A text, also one that is split into words; `None` for anything else."""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else None


def _not_utf8(name: str, value: bytes) -> str:
    return f"The column {name!r} holds bytes that are not UTF-8, such as {value[:60]!r}: save it as text."


def with_fields(table: Table, *given: str | Sequence[str] | None) -> Table:
    """The table with a column for each given name that reaches into objects, such as "message.body", also in slots."""
    names = [name for names in given for name in ([names] if isinstance(names, str) else names or ())]
    dotted = dict.fromkeys(name for given in names for name in (given, *_SLOT.findall(given)) if "." in name)
    found = [
        name for name in dotted if name not in table.columns and any(field(row, name) is not None for row in table.rows)
    ]
    if not found:
        return table
    rows = tuple(row | {name: field(row, name) for name in found} for row in table.rows)
    return replace(table, columns=(*table.columns, *found), rows=rows)


def field(row: Row, name: str) -> Any:
    """What a dotted name reaches within the objects of a row; `None` if nothing."""
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return clean_cell(value)


def choose_columns(
    table: Table, text: str | Sequence[str] | None, label: str | None, *, labelled: bool = True, pairs: Pairs = PAIRS
) -> ChosenColumns:
    """Choose the columns: the given ones, or detected ones. Raises `DataError` if a column does not exist.

    `pairs` are the names of text columns to use together. No label column is chosen unless `labelled`.
    """
    names, template = _parse_text_option(table, text)
    notes: list[str] = []
    doubts: list[str] = []
    label_named = True
    if label is not None:
        _require(table, [label], "--label")
        for other in table.columns:
            if mapping := _label_names(table, label, other):
                notes.append(
                    f"the column {other!r} names the numbers of {label!r} ({mapping}); --label {other} uses the names"
                )
    elif labelled:
        label, label_named, others = _find_label(table, names)
        numbers = next((name for name in others if _label_names(table, name, label)), None)
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


def _parse_text_option(table: Table, text: str | Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    """The named columns, and the template if `text` is one. The name of a column is never a template."""
    if not text:
        return (), None
    if isinstance(text, str) and text not in table.columns and _SLOT.search(text):
        slots = _slots(table.columns)
        _require(table, _SLOT.findall(slots.sub("", text)), "--text")
        return tuple(dict.fromkeys(slot[1:-1] for slot in slots.findall(text))), text
    names = (text,) if isinstance(text, str) else tuple(dict.fromkeys(text))
    _require(table, names, "--text")
    return names, None


def _slots(names: Sequence[str]) -> re.Pattern[str]:
    """A pattern for `{name}` with any of the names, which may contain braces themselves."""
    return re.compile(any_of(f"{{{name}}}" for name in names))


def _require(table: Table, names: Sequence[str], option: str) -> None:
    for name in names:
        if name not in table.columns:
            known = f"has no column {name!r}{_read_as(table)}. {nearest(name, table.columns)}"
            raise DataError(f"{table.origin} {known} Name the column with {option}.")


def _read_as(table: Table) -> str:
    """What the reader decided, such as the sheet of a workbook: the columns may be elsewhere."""
    return f" ({'; '.join(table.notes)})" if table.notes else ""


def _hint(table: Table, option: str) -> str:
    """How to make a table readable that lacks a column: it may hold objects, or have one column only."""
    if option == "--label" and len(table.columns) == 1 and isinstance(table.rows[0][table.columns[0]], str):
        return "That is one column: separate texts and labels by commas, semicolons, tabs or |, below a header."
    for name in table.columns:
        if undecoded := [row[name] for row in table.rows if isinstance(row[name], bytes)]:
            return f"{_not_utf8(name, undecoded[0])} Or name another column with {option}."
    names = [name for name in table.columns if any(_holds_object(row[name]) for row in table.rows)]
    if not names:
        return f"Name it with {option}."
    return (
        f"What is within objects is not searched ({listed([*map(repr, names)])}): save each field as a column, or name "
        f"a column or OBJECT.FIELD with {option}."
    )


def _holds_object(cell: Any) -> bool:
    return isinstance(cell, Mapping) or (isinstance(cell, list) and any(isinstance(item, Mapping) for item in cell))


def column_values(table: Table, name: str) -> list[Any]:
    """Non-missing values; a list of one counts as its item, longer lists are skipped."""
    cells = (row[name] for row in table.rows if row[name] is not None)
    return [
        cell[0] if isinstance(cell, list | tuple) else cell
        for cell in cells
        if not isinstance(cell, list | tuple) or len(cell) == 1
    ]


def _find_label(table: Table, text_columns: Sequence[str]) -> tuple[str, bool, list[str]]:
    """The likeliest label column, whether its name or schema marks it as one, and other plausible columns."""
    free = [name for name in table.columns if name not in text_columns]
    marked = [name for name in free if name.casefold() in LABEL_NAMES or name in table.classes]
    candidates = [name for name in free if could_be_label(table, name)]
    if not candidates:  # few examples of many labels: go by the column name
        candidates = [name for name in marked if could_be_label(table, name, repeats=False)]
    if not candidates:
        reasons = "".join(f" {why_no_label(table, name)}" for name in marked[:3])
        raise DataError(
            f"No column of {table.origin} looks like a label (a few values that repeat).{reasons} "
            f"Columns: {listed(table.columns)}{_read_as(table)}. {_hint(table, '--label')}"
        )
    declared = [name for name in candidates if name in table.classes]
    named = [name for label_name in LABEL_NAMES for name in candidates if name.casefold() == label_name]
    partly_named = [name for name in candidates if set(re.split(r"[\W_]+", name.casefold())) & set(LABEL_NAMES)]
    by_values = sorted(candidates, key=lambda name: len(set(map(str, column_values(table, name)))))
    best = (declared + named + partly_named + by_values)[0]
    if names := [name for name in candidates if _label_names(table, best, name)]:
        return names[0], True, [best]
    rivals = declared or named or candidates
    return best, best in marked, [name for name in rivals if name != best]


def could_be_label(table: Table, name: str, *, repeats: bool = True) -> bool:
    """Whether a column holds names or whole numbers that repeat. Unless `repeats`, unique names are enough."""
    values = column_values(table, name)
    counts = Counter(str(value) for value in values)
    if not all(map(_is_name, values)) or _mostly_lists(table, name) or _are_fractions(counts):
        return False
    if len(counts) < 2 or max(map(len, counts)) > MAX_LABEL_LENGTH:
        return False
    return len(counts) <= MAX_LABEL_SHARE * len(values) or (not repeats and not all(map(is_number, counts)))


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) or is_whole(value)


def why_no_label(table: Table, name: str) -> str:
    """The reason why a column named like a label is not one."""
    values = column_values(table, name)
    counts = Counter(map(str, values))
    if _mostly_lists(table, name):
        return f"{name!r} holds several labels per row."
    if _are_fractions(counts):
        return f"{name!r} holds fractions such as {values[0]!r:.60}: scores, not labels."
    if len(counts) < 2:
        return f"{name!r} has one value ({values[0]!r:.60})." if values else f"{name!r} is empty."
    if others := [value for value in values if not _is_name(value)]:
        return f"{name!r} holds {type(others[0]).__name__}, such as {str(others[0])!r:.60}, not names or whole numbers."
    if long := [value for value in counts if len(value) > MAX_LABEL_LENGTH]:
        return f"{name!r} holds texts of more than {MAX_LABEL_LENGTH} characters, such as {long[0]!r:.60}."
    return f"{name!r} has {len(counts)} different values in {len(values)} rows, such as {values[0]!r:.60}."


def _holds_lists(table: Table, name: str) -> bool:
    return any(isinstance(row[name], list | tuple) for row in table.rows)


def _mostly_lists(table: Table, name: str) -> bool:
    """Whether most cells of a column are lists of several values, or empty lists."""
    cells = [row[name] for row in table.rows if row[name] is not None]
    lists = sum(isinstance(cell, list | tuple) and len(cell) != 1 for cell in cells)
    return lists * 2 > len(cells)


def _are_fractions(counts: Counter[str]) -> bool:
    """Whether most values are decimals that are not all whole numbers."""
    decimals = {value: count for value, count in counts.items() if _FRACTION.fullmatch(value.strip())}
    return sum(decimals.values()) * 2 > counts.total() and not all(float(value).is_integer() for value in decimals)


def _label_names(table: Table, numbers: str, names: str) -> str | None:
    """Describe the mapping if `names` holds a name for each number in `numbers`, as `label_text` does for `label`."""
    pairs = [(row[numbers], row[names]) for row in table.rows if row[numbers] is not None and row[names] is not None]
    if numbers == names or not pairs or not all(isinstance(cell, str | int | float) for pair in pairs for cell in pair):
        return None
    name_of = dict(pairs)
    named = all(is_number(str(number)) and not is_number(str(name)) for number, name in name_of.items())
    if not named or len(name_of) < 2 or len(set(pairs)) > MAX_LABEL_SHARE * len(pairs):
        return None
    keys = {(label_key(str(number)), label_key(str(name))) for number, name in set(pairs)}
    if not len(keys) == len({number for number, _ in keys}) == len({name for _, name in keys}):
        return None
    if max(len(str(name)) for name in name_of.values()) > MAX_LABEL_LENGTH:
        return None
    return ", ".join(f"{number} is {name}" for number, name in list(name_of.items())[:4])


def _find_text(table: Table, label: str | None, pairs: Pairs) -> tuple[tuple[str, ...], bool, list[str]]:
    """The likeliest text columns, whether their names decided it, and other plausible columns."""
    texts = {name: _texts(table, name) for name in table.columns if name != label}
    labels = {name for name in texts if name.casefold() in LABEL_NAMES and could_be_label(table, name)}
    lengths = {
        name: sum(map(len, values)) / len(table.rows)
        for name, values in texts.items()
        if values and (name.casefold() in TEXT_NAMES or _are_prose(values)) and (name not in labels or len(texts) == 1)
    }
    if not lengths:
        raise DataError(
            f"No column of {table.origin} holds text. Columns: {listed(table.columns)}{_read_as(table)}. "
            f"{_hint(table, '--text')}"
        )
    by_name = {name.casefold(): name for name in lengths}
    for pair in pairs:
        if set(pair) <= by_name.keys():
            return tuple(by_name[name] for name in pair), True, []
    not_categories = [
        name for name, length in lengths.items() if length > MAX_CATEGORY_LENGTH or not could_be_label(table, name)
    ]
    candidates = not_categories or list(lengths)
    candidates = [name for name in candidates if any(map(_SPACE_OR_NON_ASCII.search, texts[name][:PEEK]))] or candidates
    unsplit = [name for name in candidates if name.casefold() in TEXT_NAMES or not _holds_lists(table, name)]
    candidates = unsplit or candidates  # beside a text, lists are tags, entities or choices
    named = [by_name[name] for name in TEXT_NAMES if by_name.get(name) in candidates]
    best = named[0] if named else max(candidates, key=lengths.__getitem__)
    rival_length = lengths[best] if named else lengths[best] / 2
    rivals = [name for name in candidates if name != best and lengths[name] > rival_length]
    return (best,), bool(named), rivals


def _texts(table: Table, name: str) -> list[str]:
    """The texts of a column; a list of several words counts as a text."""
    texts = (text_of(row[name]) for row in table.rows)
    return [text for text in texts if text]


def _are_prose(texts: Sequence[str]) -> bool:
    sample = texts[:PEEK]
    return any(map(_LETTER.search, sample)) and not all(map(_NOT_PROSE.fullmatch, sample))
