"""From a sample to a task worth having: which rows go, which label sets, and what each cost."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from promptmii.data.clean import clean
from promptmii.data.columns import Chosen
from promptmii.data.corpus.language import written_in
from promptmii.data.corpus.listing import Candidate
from promptmii.data.corpus.settings import CleanSettings
from promptmii.data.sample import assemble, proportioned
from promptmii.data.table import Table
from promptmii.errors import DataError
from promptmii.task import Task

_MARKUP = re.compile(r"<[^<>]{1,500}>|&#?\w{1,8};|https?://\S+|www\.\S+")
_BROKEN = re.compile("[\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uf8ff]")
"""Replacement marks, control and private characters."""
_PERSONAL = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"  # e-mail
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b"  # IP address
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"  # account number (IBAN)
    r"|\b(?:\d[ -]?){13,16}\b"  # card number
    r"|(?<![\w.])\+?\(?\d{2,4}\)?[ /.-]\d{2,4}(?:[ .-]?\d{2,4}){1,3}(?![\w.])"  # telephone
)
MASK = "[personal]"


@dataclass(frozen=True)
class Tidied:
    """A task, and the rows that went, by reason."""

    task: Task
    dropped: dict[str, int]


def tidy(table: Table, columns: Chosen, candidate: Candidate, settings: CleanSettings) -> Tidied:
    """Clean rows in a clean label set. Raises `DataError` where too little is left."""
    kept, dropped = _rows(table, columns, settings)
    if not kept:
        raise DataError(f"no row is left: {_listed(dropped)}")
    cleaned = clean(
        replace(
            table, rows=tuple(row for row, _ in kept), split=tuple(part for _, part in kept) if table.split else None
        ),
        columns,
    )
    dropped.update(cleaned.dropped)
    counts = Counter(example.label for example in cleaned.examples)
    rare = {label for label, count in counts.items() if count < settings.per_label}
    good = [i for i, example in enumerate(cleaned.examples) if example.label not in rare]
    if rare:
        dropped[f"labels with fewer than {settings.per_label} rows"] = len(cleaned.examples) - len(good)
    _check_labels(len(counts) - len(rare), settings, dropped)
    split = tuple(cleaned.split[i] for i in good) if cleaned.split else None
    cleaned = replace(cleaned, examples=tuple(cleaned.examples[i] for i in good), split=split)
    share = min(0.4, settings.test_rows / len(cleaned.examples))
    task = assemble(table, columns, cleaned, test_share=share).task
    unseen = len(cleaned.examples) - len(task.train) - len(task.test)
    if unseen:
        dropped["test rows whose label no training row has"] = unseen
    return Tidied(
        _sized(task, columns, candidate, settings, dropped),
        {reason: count for reason, count in dropped.items() if count},
    )


def _sized(task: Task, columns: Chosen, candidate: Candidate, settings: CleanSettings, dropped: Counter[str]) -> Task:
    train, test = proportioned(task.train, settings.train_rows), proportioned(task.test, settings.test_rows)
    dropped["beyond the rows that a task keeps"] = len(task.train) + len(task.test) - len(train) - len(test)
    labels = {example.label for example in train}
    test = tuple(example for example in test if example.label in labels)
    if len(train) < settings.least_train or len(test) < settings.least_test:
        raise DataError(
            f"{len(train)} training and {len(test)} test rows are left; least_train is {settings.least_train}, "
            f"least_test {settings.least_test} ({_listed(dropped)})"
        )
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
    return Task(
        candidate.name, tuple(label for label in task.labels if label in labels), train, test, task.instruction, source
    )


def _rows(
    table: Table, columns: Chosen, settings: CleanSettings
) -> tuple[list[tuple[dict[str, Any], str]], Counter[str]]:
    dropped: Counter[str] = Counter()
    kept: list[tuple[dict[str, Any], str]] = []
    for number, row in enumerate(table.rows):
        text = columns.render(row)
        reason = _fault(text, settings) if text.strip() else None
        if reason:
            dropped[reason] += 1
            continue
        if settings.personal == "mask":
            row = row | {name: _PERSONAL.sub(MASK, row[name]) for name in columns.text if isinstance(row[name], str)}
        kept.append((row, table.split[number] if table.split else ""))
    return kept, dropped


def _fault(text: str, settings: CleanSettings) -> str | None:
    """Why a text is not worth keeping."""
    if len(text) > settings.most_chars:
        return f"longer than {settings.most_chars} characters"
    if not any(character.isalnum() for character in _MARKUP.sub(" ", text)):
        return "nothing but markup, links or punctuation"
    if settings.quality and _is_broken(text):
        return "broken encoding, or nearly all one character"
    if settings.personal == "drop" and _PERSONAL.search(text):
        return "personal data"
    if settings.languages and not written_in(text, settings.languages):
        return f"not in {', '.join(settings.languages)}"
    return None


def _is_broken(text: str) -> bool:
    if len(_BROKEN.findall(text)) > 0.05 * len(text):
        return True
    dense = "".join(text.split())
    return len(dense) >= 20 and Counter(dense).most_common(1)[0][1] > 0.8 * len(dense)


def _check_labels(found: int, settings: CleanSettings, dropped: Counter[str]) -> None:
    if not settings.least_labels <= found <= settings.most_labels:
        raise DataError(
            f"{found} labels are left; expected {settings.least_labels} to {settings.most_labels} ({_listed(dropped)})"
        )


def _listed(dropped: Counter[str]) -> str:
    return (
        "; ".join(f"{count} rows: {reason}" for reason, count in sorted(dropped.items()) if count) or "nothing dropped"
    )
