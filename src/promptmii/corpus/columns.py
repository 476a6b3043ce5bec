"""The text and label columns of a dataset: from schema, names and values, or from a model whose answer is checked."""

import json
import re
from collections.abc import Sequence
from typing import Any

from promptmii.data.columns import Chosen, choose_columns, could_be_label
from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Table
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, LanguageModel, Sampling
from promptmii.prompts import bundled, quote

PAIRS = [
    tuple(pair.split())
    for pair in [
        "premise hypothesis",
        "sentence1 sentence2",
        "sentence_1 sentence_2",
        "sentence_a sentence_b",
        "question1 question2",
        "text1 text2",
        "text_a text_b",
        "question sentence",
        "question passage",
        "question context",
        "query passage",
        "claim evidence",
        "title content",
        "title body",
        "title description",
        "title abstract",
        "title text",
    ]
]
"""Columns that belong together."""
SIMILAR = 0.5
"""Text columns whose mean lengths differ by less than this factor are both possible."""
_NUMBER = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
_NO_WORDS = re.compile(r"\S+://\S+|[0-9a-fA-F-]{16,}")


class AmbiguousError(Exception):
    """Names, schema and values allow several choices."""


def find_columns(table: Table, model: LanguageModel | None = None) -> Chosen:
    """Raises `DataError` if there are none, `EndpointError` if the model gives no answer."""
    try:
        label = _label(table)
        return choose_columns(table, _text(table, label), label)
    except AmbiguousError as choice:
        if model is None:
            raise DataError(f"{choice}; a model could decide (--model)") from choice
        return _ask(table, model)


def _label(table: Table) -> str:
    candidates = [name for name in table.columns if could_be_label(table, name) and not _holds_fractions(table, name)]
    if not candidates:
        raise DataError(_why_no_label(table))
    declared = [name for name in candidates if name in table.classes]
    named = [name for hint in LABEL_NAMES for name in candidates if name.casefold() == hint]
    preferred = [name for name in named if name in declared] or declared or named
    if not preferred and len(candidates) > 1:
        raise AmbiguousError(f"any of the columns {', '.join(candidates)} may be the label")
    return (preferred or candidates)[0]


def _why_no_label(table: Table) -> str:
    """What is wrong with the column that should be the label."""
    by_name = [name for hint in LABEL_NAMES for name in table.columns if name.casefold() == hint]
    for name in (*table.classes, *by_name):
        values = [row[name] for row in table.rows if row.get(name) is not None]
        distinct = set(map(str, values))
        if not values:
            return f"the label column {name!r} is empty"
        if any(isinstance(value, list | dict) for value in values):
            return f"the label column {name!r} holds lists: several labels for one text"
        if _holds_fractions(table, name) or any(isinstance(v, float) and not v.is_integer() for v in values):
            return f"the label column {name!r} holds fractions: scores, not labels"
        if len(distinct) == 1:
            return f"the label column {name!r} has one value ({str(values[0])[:60]!r})"
        return f"the label column {name!r} has {len(distinct)} different values in {len(values)} rows"
    return f"no column looks like a label (a few values that repeat); columns: {', '.join(table.columns)}"


def _holds_fractions(table: Table, name: str) -> bool:
    values = [row[name] for row in table.rows if row[name] is not None]
    written = [value for value in values if isinstance(value, str) and _NUMBER.fullmatch(value.strip())]
    return len(written) > len(values) / 2 and any(not float(value).is_integer() for value in written)


def _text(table: Table, label: str) -> str | tuple[str, ...]:
    lengths = {name: length for name in table.columns if name != label and (length := _mean_length(table, name))}
    by_name = {name.casefold(): name for name in lengths}
    for pair in PAIRS:
        if all(name in by_name for name in pair):
            return tuple(by_name[name] for name in pair)
    if not lengths:
        raise DataError(f"no column holds text; columns: {', '.join(table.columns)}")
    # A column of few short values is a category, unless there is nothing else.
    free = {name: n for name, n in lengths.items() if n > 40 or not could_be_label(table, name)} or lengths
    for hint in TEXT_NAMES:
        if by_name.get(hint) in free:
            return by_name[hint]
    longest = max(free, key=free.__getitem__)
    similar = [name for name, length in free.items() if length >= SIMILAR * free[longest] and name != longest]
    if similar:
        raise AmbiguousError(f"any of the columns {', '.join([longest, *similar])} may be the text")
    return longest


def _mean_length(table: Table, name: str) -> float:
    """In characters; 0 for a column without words."""
    values = [value for row in table.rows if isinstance(value := row[name], str)]
    first = values[:50]
    if len(values) < len(table.rows) / 2 or not any(re.search(r"[^\W\d_]", value) for value in first):
        return 0.0
    return 0.0 if all(map(_NO_WORDS.fullmatch, first)) else sum(map(len, values)) / len(values)


def _ask(table: Table, model: LanguageModel) -> Chosen:
    """The model's choice, if the columns exist, differ, and hold what they should."""
    described = [
        f"{quote(name)}: " + ", ".join(quote(str(row[name])[:120]) for row in table.rows[:3]) for name in table.columns
    ]
    prompt = bundled("columns", ("name", "columns")).fill(name=quote(table.origin), columns="\n".join(described))
    (answer,) = model.generate([({"role": "user", "content": prompt},)], Sampling(max_tokens=200, temperature=0.0))
    if isinstance(answer, Failure):
        raise EndpointError(
            f"{model.card.reference} was asked for the columns of {table.origin} and gave no answer: {answer.message}"
        )
    text, label = _parse(answer.text)
    unknown = [name for name in (*text, label) if name not in table.columns]
    if unknown:
        raise DataError(
            f"the model names columns that do not exist: {', '.join(unknown)}; columns: {', '.join(table.columns)}"
        )
    if label in text:
        raise DataError(f"the model names {label!r} as text and as label")
    if not could_be_label(table, label) or _holds_fractions(table, label):
        raise DataError(f"the model names {label!r} as label, whose values are none: {_why_no_label(table)}")
    return choose_columns(table, text, label)


def _parse(answer: str) -> tuple[Sequence[str], str]:
    match = re.search(r"\{[^{}]*\}", answer)
    try:
        value: Any = json.loads(match[0]) if match else None
        text, label = value["text"], value["label"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the model did not answer with the JSON it was asked for: {answer[:80]!r}") from error
    names: list[Any] = text if isinstance(text, list) else [text]
    if not names or not all(isinstance(name, str) for name in (*names, label)):
        raise DataError(f"the model names no text and label columns: {answer[:80]!r}")
    return names, label
