"""Turns a sample into a task: chooses columns, drops unsuitable rows and labels, and counts dropped rows by reason.

Columns are chosen by names, schema and values. If these do not decide, a model can be asked.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from promptmii.corpus.listing import Candidate
from promptmii.corpus.settings import CleanSettings
from promptmii.data.clean import clean
from promptmii.data.columns import PAIRS, ChosenColumns, cell_text, choose_columns, could_be_label, why_no_label
from promptmii.data.load import assemble
from promptmii.data.sample import stratified_sample
from promptmii.data.table import Table
from promptmii.errors import DataError, EndpointError, required_by
from promptmii.messages import counted
from promptmii.models.base import Failure, LanguageModel, Sampling
from promptmii.prompts import bundled, quote
from promptmii.task import Task

TITLED = tuple(("title", name) for name in ("content", "body", "description", "abstract", "text"))
"""Titles to join to a text. Columns are chosen once for every use of a dataset, so a title is worth its tokens."""


def find_columns(
    table: Table, model: LanguageModel | None = None, *, text: str | None = None, label: str | None = None
) -> ChosenColumns:
    """Choose the text and label columns, unless they are given.

    Raises `DataError` if no choice is clear, `EndpointError` if the model gives no answer.
    """
    chosen = choose_columns(table, text, label, pairs=(*PAIRS, *TITLED))
    if not chosen.decided:
        if model is None:
            likeliest = ", ".join([*chosen.text, str(chosen.label)])
            raise DataError(
                f"the columns may be {likeliest}, but perhaps {', '.join(chosen.doubts)}; a model could decide "
                "(--model)"
            )
        answer = _ask(table, model)
        chosen = choose_columns(table, text or answer.text, label or answer.label)
    if label is None and not could_be_label(table, str(chosen.label)):
        raise DataError(f"the label column {why_no_label(table, str(chosen.label)).removesuffix('.')}")
    return chosen


class _Answer(BaseModel):
    text: Annotated[list[str], Field(min_length=1)] | str
    label: str


def _ask(table: Table, model: LanguageModel) -> _Answer:
    columns = [
        f"{quote(name)}: " + ", ".join(quote(str(row[name])[:120]) for row in table.rows[:3]) for name in table.columns
    ]
    prompt = bundled("columns", ("name", "columns")).fill(name=quote(table.origin), columns="\n".join(columns))
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


MASK = "[personal]"
LANGUAGE_MARGIN = 10.0
"""Log-odds against the wanted languages above which a text is dropped.

452 short English texts stay below 3, and German ones exceed 20."""
_MARKUP = re.compile(r"<[^<>]{1,500}>|&#?\w{1,8};|https?://\S+|www\.\S+")
_BROKEN = re.compile("[\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uf8ff]")
"""Replacement marks, control and private characters."""
_START, _END = r"(?<![A-Za-z_\d])", r"(?![A-Za-z_\d])"
"""Where a number may start and end; unlike \\b, also next to a letter of a script without spaces or with suffixes."""
_DATE = r"(?:(?:19|20)\d\d(?P<a>[-/.])\d{1,2}(?P=a)\d{1,2}|\d{1,2}(?P<b>[-/.])\d{1,2}(?P=b)(?:19|20)\d\d)"
_PERSONAL = re.compile(
    rf"(?P<date>{_START}{_DATE}(?!\d))|"  # no personal data, but it looks like a phone number
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"  # e-mail
    rf"|{_START}\d{{1,3}}(?:\.\d{{1,3}}){{3}}{_END}"  # IP address
    rf"|{_START}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{3,7}}{_END}"  # account number (IBAN)
    rf"|{_START}(?:\d[ -]?){{13,16}}{_END}"  # card number
    rf"|{_START}(?<!\.)\+?\(?\d{{2,4}}\)?[ /.-]\d{{2,4}}(?:[ .-]?\d{{2,4}}){{1,3}}{_END}(?!\.)"  # phone
)


def clean_task(
    table: Table, columns: ChosenColumns, candidate: Candidate, settings: CleanSettings
) -> tuple[Task, dict[str, int]]:
    """Make a task of the clean rows, and count dropped rows by reason. Raises `DataError` if too little is left."""
    table, dropped = _clean_rows(table, columns, settings)
    if not table.rows:
        raise DataError(f"no row is left: {_summary(dropped)}")
    cleaned = clean(table, columns)
    dropped.update(cleaned.dropped)
    counts = Counter(example.label for example in cleaned.examples)
    frequent = [i for i, example in enumerate(cleaned.examples) if counts[example.label] >= settings.per_label]
    examples = tuple(cleaned.examples[i] for i in frequent)
    split = tuple(cleaned.split[i] for i in frequent) if cleaned.split else None
    dropped[f"labels with fewer than {settings.per_label} rows"] = len(cleaned.examples) - len(examples)
    labels = {example.label for example in examples}
    if not settings.least_labels <= len(labels) <= settings.most_labels:
        raise DataError(
            f"{len(labels)} labels are left; expected {settings.least_labels} to {settings.most_labels} "
            f"({_summary(dropped)})"
        )
    cleaned = replace(cleaned, examples=examples, split=split)
    share = min(0.4, settings.test_rows / len(examples))
    task = assemble(table, columns, cleaned, test_share=share).task
    dropped["test rows whose label no training row has"] = len(examples) - len(task.train) - len(task.test)
    task = _limited(task, settings, dropped)
    source = {
        "repository": candidate.repository,
        "config": candidate.config or "default",
        "revision": candidate.revision,
        "licence": candidate.licence or "unstated",
        "columns": f"{', '.join(columns.text)} -> {columns.label}",
        "template": columns.template or "",
        "languages": ", ".join(candidate.languages),
        "domain": candidate.domain or "",
    }
    reasons = {reason: count for reason, count in dropped.items() if count}
    return replace(task, name=candidate.name, source=source), reasons


def _limited(task: Task, settings: CleanSettings, dropped: Counter[str]) -> Task:
    """Limit the training and test rows, with label proportions preserved."""
    train, test = stratified_sample(task.train, settings.train_rows), stratified_sample(task.test, settings.test_rows)
    dropped["more rows than a task keeps"] = len(task.train) + len(task.test) - len(train) - len(test)
    labels = {example.label for example in train}
    if len(labels) < settings.least_labels:
        raise DataError(
            f"{len(labels)} labels are left in the training rows; least_labels is {settings.least_labels} "
            f"({_summary(dropped)})"
        )
    test = tuple(example for example in test if example.label in labels)
    if len(train) < settings.least_train or len(test) < settings.least_test:
        raise DataError(
            f"{len(train)} training and {len(test)} test rows are left; least_train is {settings.least_train}, "
            f"least_test {settings.least_test} ({_summary(dropped)})"
        )
    return replace(task, labels=tuple(label for label in task.labels if label in labels), train=train, test=test)


def _clean_rows(table: Table, columns: ChosenColumns, settings: CleanSettings) -> tuple[Table, Counter[str]]:
    """The rows without a defect, and the number of rows with each defect. Rows with a blank text stay for `clean`."""
    dropped: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    split: list[str] = []
    for number, row in enumerate(table.rows):
        text = columns.render(row)
        reason = _defect(text, settings) if text.strip() else None
        if reason:
            dropped[reason] += 1
            continue
        if settings.personal == "mask":
            filled = [name for name in columns.text if row[name] is not None]
            row = row | {name: mask_personal(cell_text(name, row[name])) for name in filled}
        rows.append(row)
        split.append(table.split[number] if table.split else "")
    return replace(table, rows=tuple(rows), split=tuple(split) if table.split else None), dropped


def _defect(text: str, settings: CleanSettings) -> str | None:
    """The reason to drop a text, or None."""
    if len(text) > settings.most_chars:
        return f"longer than {settings.most_chars} characters"
    if not any(character.isalnum() for character in _MARKUP.sub(" ", text)):
        return "only markup, links or punctuation"
    if settings.quality and _is_broken(text):
        return "broken encoding, or nearly all one character"
    if settings.personal == "drop" and mask_personal(text) != text:
        return "personal data"
    if settings.languages and not may_be_in(text, settings.languages):
        return f"not in {', '.join(settings.languages)}"
    return None


def mask_personal(text: str) -> str:
    """The text with a mark in place of e-mail and IP addresses, phone, card and account numbers. Dates stay."""
    return _PERSONAL.sub(lambda match: match["date"] or MASK, text)


def _is_broken(text: str) -> bool:
    if len(_BROKEN.findall(text)) > 0.05 * len(text):
        return True
    dense = "".join(text.split())
    return len(dense) >= 20 and Counter(dense).most_common(1)[0][1] > 0.8 * len(dense)


def may_be_in(text: str, languages: Iterable[str]) -> bool:
    """True if the text may be in one of these languages, given by two letters. Doubtful and unknown ones pass."""
    with required_by("The language filter", "corpus"):
        import py3langid
    scores: dict[str, float] = dict(py3langid.rank(text))
    best_wanted = max(scores.get(language[:2].lower(), float("inf")) for language in languages)
    return max(scores.values()) - best_wanted < LANGUAGE_MARGIN


def _summary(dropped: Counter[str]) -> str:
    reasons = [f"{counted(count, 'row')}: {reason}" for reason, count in sorted(dropped.items()) if count]
    return "; ".join(reasons) or "nothing dropped"
