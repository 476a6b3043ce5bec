"""Per task of the page: the instructions, confusion matrices and wrong rows of all its cells.

Each task is deflated and in base64: a page of 12,000 cells stays small, and a browser unpacks the task that is opened.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from promptmii.records import Query, Record, Run
from promptmii.report.methods import takes_what_fits
from promptmii.report.scores import Scope, Series

INSTRUCTION = (4_000, 2_000, 1_000)
"""Characters of an instruction that are kept: the most with which the tasks together stay below `SIZE`."""
SIZE = 13_000_000
"""Characters of the packed tasks of one page."""
WRONG = 20
"""Wrong rows of a cell that are kept: the first, so that methods can be compared on the same rows."""
TEXT = 600
"""Characters of a row's text that are kept."""
ANSWER = 200
"""Characters of an answer that was no label."""
LEVEL = 6
MEASURED = {"macro_f1", "low", "high", "uncalibrated_macro_f1", "accuracy", "n_unparsed", "n_truncated"}


def task_details(
    run: Run, cells: pd.DataFrame, scopes: Sequence[Scope], tasks: Sequence[str], series: Sequence[Series]
) -> list[str]:
    """One packed JSON object per task, in order, of all its live cells. `cells` are those of `all_cells`."""
    live: Any = cells.loc[~cells["stale"], :].sort_values(["series", "seed", "n"])
    places = {(scope.follower, scope.mode, scope.hidden): number for number, scope in enumerate(scopes)}
    # A name says the generator only where its own scope has several.
    orders = {(one.name, one.generator): number for number, one in enumerate(series)}
    found = {task: _Details() for task in tasks}
    for key, name, hidden in zip(live["key"], live["series"], live["hidden"], strict=True):
        record = run.records[key]
        cell = record.cell
        where = {"scope": places[cell.follower, cell.mode, hidden], "series": orders[name, cell.generator or None]}
        found[cell.task].add(run, record, where)
    packed: list[str] = []
    for length in INSTRUCTION:
        packed = [pack(details.content(length)) for details in found.values()]
        if sum(map(len, packed)) <= SIZE:
            break
    return packed


def pack(value: object) -> str:
    """JSON, deflated, in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), LEVEL)).decode()


class _Details:
    """The cells of one task. Rows, instructions and label sets that occur in several cells are written once."""

    def __init__(self) -> None:
        self._labels = _Once()
        self._instructions = _Once()
        self._texts: list[tuple[str, str]] = []
        self._queries: dict[tuple[str, int], _Rows] = {}
        self._cells: list[dict[str, Any]] = []

    def content(self, length: int) -> dict[str, Any]:
        """What `page.js` reads, with the first `length` characters of every instruction."""
        instructions = [[text[:length], len(text)] for text in self._instructions.values]
        texts = [(_cut(text, TEXT), label) for text, label in self._texts]
        return {"labels": self._labels.values, "texts": texts, "instructions": instructions, "cells": self._cells}

    def add(self, run: Run, record: Record, where: dict[str, Any]) -> None:
        """Add a cell, done or failed."""
        where |= {"n": record.cell.n, "seed": record.cell.seed}
        made = record.instruction
        if record.status == "failed" or made is None or made.measured is None:
            self._cells.append(where | {"error": record.error or "no score was recorded"})
            return
        cost, measured, labels = made.cost, made.measured, self._labels(made.labels)
        fitted = made.provenance.n if takes_what_fits(record.cell.method) else record.cell.n
        rows = self._queries.get((str(record.query), labels))
        if rows is None:
            rows = self._queries[str(record.query), labels] = _Rows(run.queries[str(record.query)], made.labels)
        self._cells.append(
            where
            | measured.model_dump(include=MEASURED)
            | {"rows": measured.n, "tokens": measured.prompt_tokens_per_query, "fitted": fitted}
            | {
                "calls": cost.calls,
                "calibration_calls": made.calibration_cost.calls,
                "made_tokens": cost.tokens,
                "notes": made.provenance.notes,
            }
            | {"labels": labels, "instruction": self._instructions(made.text)}
            | self._answers(record, rows)
        )

    def _answers(self, record: Record, rows: "_Rows") -> dict[str, Any]:
        """`confusion`: gold, predicted (number of labels: none), count, and so on; `wrong`: row, predicted, answer."""
        answers, none = record.columns, rows.none
        predicted: list[int] = [none if number is None else number for number in answers.labels]
        counts = Counter(zip(rows.gold, predicted, strict=True))
        wrong = [i for i, (g, p) in enumerate(zip(rows.gold, predicted, strict=True)) if g != p]
        # Only an answer that is no label is worth reading.
        said = {i: _said(answers.answers[i]) for i in wrong[:WRONG] if predicted[i] == none}
        shown = [[self._row(rows, i), predicted[i], *said.get(i, ())] for i in wrong[:WRONG]]
        confusion = [number for (g, p), count in sorted(counts.items()) for number in (g, p, count)]
        return {"confusion": confusion, "wrong": shown, "n_wrong": len(wrong)}

    def _row(self, rows: "_Rows", i: int) -> int:
        """Number of a row's text among those that the task shows."""
        if i not in rows.shown:
            rows.shown[i] = len(self._texts)
            self._texts.append((rows.examples[i].text, rows.examples[i].label))
        return rows.shown[i]


class _Rows:
    """The rows of a query, read once for all cells."""

    def __init__(self, query: Query, labels: tuple[str, ...]) -> None:
        codes = {label: code for code, label in enumerate(labels)}
        self.examples = query.examples
        self.gold = [codes[example.label] for example in query.examples]
        self.none = len(labels)
        """Stands for no label among the predictions."""
        self.shown: dict[int, int] = {}
        """Where a row stands among the texts that the page shows."""


class _Once:
    """Values by number, each kept once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Any]:
        """In order of their numbers."""
        return list(self._numbers)


def _said(answer: str | None) -> list[str]:
    return [] if answer is None else [_cut(answer, ANSWER)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length].rstrip()} …"
