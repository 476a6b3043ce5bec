"""Which columns make the task: by schema and values first, by a model where these leave it open, and never on its word alone."""

import json
import re
from collections.abc import Sequence
from typing import Any

from promptmii.data.columns import Chosen, choose_columns, could_be_label
from promptmii.data.table import Table
from promptmii.data.words import LABEL_NAMES, TEXT_NAMES
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, LanguageModel, Sampling
from promptmii.prompts import bundled, quote

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("claim", "evidence"),
    ("title", "content"),
    ("title", "body"),
    ("title", "description"),
    ("title", "abstract"),
    ("title", "text"),
)
"""Columns that belong together."""
SIMILAR = 0.5
"""A second column of text with at least this share of the first one's length leaves it open which is the text."""
_NUMBER = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)


class UnsureError(Exception):
    """Names, schema and values leave the columns open."""


def find_columns(table: Table, model: LanguageModel | None = None) -> Chosen:
    """Text and label columns. Raises `DataError` where there are none, `EndpointError` where the model gives no answer."""
    try:
        label = _label(table)
        return choose_columns(table, _text(table, label), label)
    except UnsureError as unsure:
        if model is None:
            raise DataError(f"{unsure}; a model could be asked (model of the table [columns])") from unsure
        return _ask(table, model)


def _label(table: Table) -> str:
    candidates = [name for name in table.columns if could_be_label(table, name) and not _holds_fractions(table, name)]
    if not candidates:
        raise DataError(_why_none(table))
    declared = [name for name in candidates if name in table.classes]
    named = [name for hint in LABEL_NAMES for name in candidates if name.casefold() == hint]
    both = [name for name in named if name in declared]
    if both or declared or named:
        return (both or declared or named)[0]
    if len(candidates) == 1:
        return candidates[0]
    raise UnsureError(f"any of the columns {', '.join(candidates)} may be the label")


def _why_none(table: Table) -> str:
    """No label column: say what is the matter with the one that is called so."""
    by_name = [name for hint in LABEL_NAMES for name in table.columns if name.casefold() == hint]
    for name in (*table.classes, *by_name):
        values = [row[name] for row in table.rows if row.get(name) is not None]
        if not values:
            return f"the label column {name!r} is empty"
        if any(isinstance(value, list | dict) for value in values):
            return f"the label column {name!r} holds lists: several labels for one text"
        if _holds_fractions(table, name) or any(
            isinstance(value, float) and not value.is_integer() for value in values
        ):
            return f"the label column {name!r} holds fractions: scores, not labels"
        if len(set(map(str, values))) == 1:
            return f"the label column {name!r} has one value ({str(values[0])[:60]!r})"
        return f"the label column {name!r} has {len(set(map(str, values)))} different values in {len(values)} rows"
    return f"no column looks like a label (a few values that repeat); columns: {', '.join(table.columns)}"


def _holds_fractions(table: Table, name: str) -> bool:
    values = [row[name] for row in table.rows if row[name] is not None]
    written = [value for value in values if isinstance(value, str) and _NUMBER.fullmatch(value.strip())]
    return bool(written) and any(not float(value).is_integer() for value in written) and len(written) > len(values) / 2


def _text(table: Table, label: str) -> str | tuple[str, ...]:
    lower = {name.casefold(): name for name in table.columns if name != label}
    for first, second in PAIRS:
        if first in lower and second in lower and all(_length(table, lower[name]) > 0 for name in (first, second)):
            return lower[first], lower[second]
    lengths = {
        name: _length(table, name)
        for name in lower.values()
        if not could_be_label(table, name) or _length(table, name) > 40
    }
    lengths = {name: length for name, length in lengths.items() if length > 0}
    if not lengths:
        lengths = {name: length for name in lower.values() if (length := _length(table, name)) > 0}
    if not lengths:
        raise DataError(f"no column holds text; columns: {', '.join(table.columns)}")
    longest = max(lengths, key=lengths.__getitem__)
    named = next((lower[hint] for hint in TEXT_NAMES if lower.get(hint) in lengths), None)
    if named is not None:
        return named
    rivals = [name for name, length in lengths.items() if name != longest and length >= SIMILAR * lengths[longest]]
    if rivals:
        raise UnsureError(f"any of the columns {', '.join([longest, *rivals])} may be the text")
    return longest


def _length(table: Table, name: str) -> float:
    """Mean characters; 0 for a column that holds no words."""
    values = [value for row in table.rows if isinstance(value := row[name], str)]
    if len(values) < len(table.rows) / 2 or not any(re.search(r"[^\W\d_]", value) for value in values[:50]):
        return 0.0
    if all(re.fullmatch(r"\S+://\S+|[0-9a-fA-F-]{16,}", value) for value in values[:50]):
        return 0.0
    return sum(map(len, values)) / len(values)


def _ask(table: Table, model: LanguageModel) -> Chosen:
    """Columns as a model names them, if they exist, differ, and hold what they should."""
    prompt = bundled("columns", ("name", "columns")).fill(
        name=quote(table.origin), columns="\n".join(_described(table))
    )
    (answer,) = model.generate([({"role": "user", "content": prompt},)], Sampling(max_tokens=200, temperature=0.0))
    if isinstance(answer, Failure):
        raise EndpointError(
            f"{model.card.reference} was asked for the columns of {table.origin} and gave no answer: {answer.message}"
        )
    text, label = _read(answer.text)
    unknown = [name for name in (*text, label) if name not in table.columns]
    if unknown:
        raise DataError(
            f"the model names columns that do not exist: {', '.join(unknown)}; columns: {', '.join(table.columns)}"
        )
    if label in text:
        raise DataError(f"the model names {label!r} as text and as label")
    if not could_be_label(table, label) or _holds_fractions(table, label):
        raise DataError(f"the model names {label!r} as label, whose values are none: {_why_none(table)}")
    return choose_columns(table, tuple(text), label)


def _read(answer: str) -> tuple[list[str], str]:
    found = re.search(r"\{[^{}]*\}", answer)
    try:
        value: Any = json.loads(found[0]) if found else None
        text, label = value["text"], value["label"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the model did not answer with the JSON it was asked for: {answer[:80]!r}") from error
    names: Sequence[Any] = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    if not names or not all(isinstance(name, str) for name in names) or not isinstance(label, str):
        raise DataError(f"the model found no text and label columns: {answer[:80]!r}")
    return [str(name) for name in names], label


def _described(table: Table) -> list[str]:
    rows = table.rows[:3]
    return [f"{quote(name)}: " + ", ".join(quote(str(row[name])[:120]) for row in rows) for name in table.columns]
