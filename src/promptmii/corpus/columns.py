"""Choose text and label columns by schema, names and values, or ask a model and check its answer."""

import re
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from promptmii.data.columns import Chosen, choose_columns, could_be_label, why_no_label
from promptmii.data.table import LABEL_NAMES, TEXT_NAMES, Table
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, LanguageModel, Sampling
from promptmii.prompts import bundled, quote

PAIRS = (
    *(
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("sentence_1", "sentence_2"),
        ("sentence_a", "sentence_b"),
    ),
    *(("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"), ("question", "sentence")),
    *(("question", "passage"), ("question", "context"), ("query", "passage"), ("claim", "evidence")),
    *(("title", name) for name in ("content", "body", "description", "abstract", "text")),
)
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
    """Why the column that should be the label is none."""
    by_name = [name for hint in LABEL_NAMES for name in table.columns if name.casefold() == hint]
    called = [*(name for name in table.classes if name in table.columns), *by_name]
    if not called:
        return f"no column looks like a label (a few values that repeat); columns: {', '.join(table.columns)}"
    if _holds_fractions(table, called[0]):
        return f"the label column {called[0]!r} holds fractions: scores, not labels"
    return f"the label column {why_no_label(table, called[0]).removesuffix('.')}"


def _holds_fractions(table: Table, name: str) -> bool:
    values = [row[name] for row in table.rows if row[name] is not None]
    numbers = [v for v in values if isinstance(v, float) or (isinstance(v, str) and _NUMBER.fullmatch(v.strip()))]
    return len(numbers) > len(values) / 2 and any(not float(number).is_integer() for number in numbers)


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
    named = _parse(answer.text)
    chosen = choose_columns(table, named.text, named.label)
    if named.label in chosen.text:
        raise DataError(f"the model names {named.label!r} as text and as label")
    if not could_be_label(table, named.label) or _holds_fractions(table, named.label):
        raise DataError(f"the model names {named.label!r} as label, whose values are none: {_why_no_label(table)}")
    return chosen


class _Answer(BaseModel):
    text: Annotated[list[str], Field(min_length=1)] | str
    label: str


def _parse(answer: str) -> _Answer:
    match = re.search(r"\{[^{}]*\}", answer)
    try:
        return _Answer.model_validate_json(match[0] if match else "")
    except ValidationError as error:
        raise DataError(f"the model names no text and label columns: {answer[:80]!r}") from error
