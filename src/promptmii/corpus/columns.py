"""Text and label columns of a dataset, by names, schema and values. Where these leave it open, a model may be asked."""

import re
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from promptmii.data.columns import PAIRS, Chosen, choose_columns, could_be_label, why_no_label
from promptmii.data.table import Table
from promptmii.errors import DataError, EndpointError
from promptmii.models.base import Failure, LanguageModel, Sampling
from promptmii.prompts import bundled, quote

TITLED = tuple(("title", name) for name in ("content", "body", "description", "abstract", "text"))
"""Here the columns are chosen once for all uses of a dataset, so a title is worth its tokens."""


def find_columns(
    table: Table, model: LanguageModel | None = None, *, text: str | None = None, label: str | None = None
) -> Chosen:
    """The columns, of which some may be given.

    Raises `DataError` if there are none, `EndpointError` if the model gives no answer.
    """
    chosen = choose_columns(table, text, label, pairs=(*PAIRS, *TITLED))
    if not chosen.decided:
        if model is None:
            likeliest = ", ".join([*chosen.text, str(chosen.label)])
            raise DataError(
                f"the columns may be {likeliest}, but perhaps {', '.join(chosen.doubts)}; a model could decide "
                "(--model)"
            )
        named = _ask(table, model)
        chosen = choose_columns(table, text or named.text, label or named.label)
    if label is None and not could_be_label(table, str(chosen.label)):
        raise DataError(f"the label column {why_no_label(table, str(chosen.label)).removesuffix('.')}")
    return chosen


class _Answer(BaseModel):
    text: Annotated[list[str], Field(min_length=1)] | str
    label: str


def _ask(table: Table, model: LanguageModel) -> _Answer:
    described = [
        f"{quote(name)}: " + ", ".join(quote(str(row[name])[:120]) for row in table.rows[:3]) for name in table.columns
    ]
    prompt = bundled("columns", ("name", "columns")).fill(name=quote(table.origin), columns="\n".join(described))
    (answer,) = model.generate([({"role": "user", "content": prompt},)], Sampling(max_tokens=200, temperature=0.0))
    if isinstance(answer, Failure):
        raise EndpointError(
            f"{model.card.reference} was asked for the columns of {table.origin} and gave no answer: {answer.message}"
        )
    match = re.search(r"\{[^{}]*\}", answer.text)
    try:
        return _Answer.model_validate_json(match[0] if match else "")
    except ValidationError as error:
        raise DataError(f"the model names no text and label columns: {answer.text[:80]!r}") from error
