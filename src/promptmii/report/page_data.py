"""What the script of the page reads: the numbers of its tables, and per task the instructions, confusion matrices and
wrong rows of all its cells.

Each task is deflated and in base64: a page of 12,000 cells stays small, and a browser unpacks the task that is opened.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from promptmii.records import Record, Run
from promptmii.report.methods import takes_what_fits
from promptmii.report.results import Results, outcome
from promptmii.report.scores import Scores
from promptmii.task import Example

INSTRUCTION = (4_000, 2_000, 1_000)
"""Characters of an instruction that are kept: the most with which the tasks together stay below `SIZE`."""
SIZE = 13_000_000
"""Characters of the packed tasks of one page."""
WRONG = 20
"""Wrong rows of a cell that are kept: the first, so that methods can be compared on the same rows."""
TEXT = 600
"""Characters kept of a row's text."""
ANSWER = 200
"""Characters of an answer that was no label."""
LEVEL = 6
MEASURED = {"macro_f1", "low", "high", "uncalibrated_macro_f1", "accuracy", "n_unparsed", "n_truncated"}


def numbers(results: Results) -> dict[str, Any]:
    """The numbers that the script needs to draw tables."""
    live: Any = results.cells.loc[~results.cells["stale"], :]
    sizes = live.groupby("task")[["labels", "rows"]].max().fillna(0).astype(int)
    return {
        "scopes": [own.scope.title for own in results.by_scope],
        "series": [
            {"name": series.name, "method": series.method, "generator": series.generator} for series in results.series
        ],
        "ns": results.ns,
        "n": results.n,
        "seeds": sorted({int(seed) for seed in live["seed"]}),
        "tasks": [{"name": t, "labels": int(sizes["labels"][t]), "rows": int(sizes["rows"][t])} for t in results.tasks],
        "scores": [_scores(results, own) for own in results.by_scope],
        "outcome": outcome(results),
    }


def _scores(results: Results, own: Scores) -> list[Any]:
    """By series, n and task: macro-F1 or `None`, and failed cells. `None` for a series that the scope lacks."""
    places = [own.tasks.index(task) if task in own.tasks else None for task in results.tasks]

    def value(i: int, n: int, place: int | None) -> tuple[float | None, int]:
        if place is None or n not in own.ns:
            return None, 0
        score, failed = own.macro_f1[i, own.ns.index(n), place], own.failed[i, own.ns.index(n), place]
        return None if np.isnan(score) else round(float(score), 4), int(failed)

    numbers = {series: i for i, series in enumerate(own.series)}
    return [
        [[value(numbers[series], n, place) for place in places] for n in results.ns] if series in numbers else None
        for series in results.series
    ]


def task_details(results: Results) -> list[str]:
    """One packed JSON object per task, in order, of all its live cells."""
    live: Any = results.cells.loc[~results.cells["stale"], :].sort_values(["series", "seed", "n"])
    scopes = [own.scope for own in results.by_scope]
    places = {(scope.follower, scope.mode, scope.hidden): number for number, scope in enumerate(scopes)}
    # A name says the generator only where its own scope has several.
    orders = {(one.name, one.generator): number for number, one in enumerate(results.series)}
    found = {task: _Details() for task in results.tasks}
    for key, name, hidden in zip(live["key"], live["series"], live["hidden"], strict=True):
        record = results.run.records[key]
        cell = record.cell
        where = {"scope": places[cell.follower, cell.mode, hidden], "series": orders[name, cell.generator or None]}
        found[cell.task].add(results.run, record, where)
    packed: list[str] = []
    for length in INSTRUCTION:
        packed = [_pack(details.content(length)) for details in found.values()]
        if sum(map(len, packed)) <= SIZE:
            break
    return packed


def _pack(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), LEVEL)).decode()


class _Details:
    """The cells of one task. Rows, instructions and label sets that several cells share are stored once."""

    def __init__(self) -> None:
        # Values with their numbers, which cells name.
        self._labels: dict[tuple[str, ...], int] = {}
        self._instructions: dict[str, int] = {}
        self._rows: dict[Example, int] = {}
        self._cells: list[dict[str, Any]] = []

    def content(self, length: int) -> dict[str, Any]:
        """What `page.js` reads, with the first `length` characters of every instruction."""
        instructions = [[text[:length], len(text)] for text in self._instructions]
        texts = [(_cut(row.text, TEXT), row.label) for row in self._rows]
        return {"labels": [*self._labels], "texts": texts, "instructions": instructions, "cells": self._cells}

    def add(self, run: Run, record: Record, where: dict[str, Any]) -> None:
        """Add a cell, done or failed."""
        where |= {"n": record.cell.n, "seed": record.cell.seed}
        made = record.instruction
        if record.status == "failed" or made is None or made.measured is None:
            self._cells.append(where | {"error": record.error or "no score was recorded"})
            return
        cost, measured = made.cost, made.measured
        self._cells.append(
            where
            | measured.model_dump(include=MEASURED)
            | {
                "rows": measured.n,
                "tokens": measured.prompt_tokens_per_query,
                "fitted": made.provenance.n if takes_what_fits(record.cell.method) else record.cell.n,
                "calls": cost.calls,
                "calibration_calls": made.calibration_cost.calls,
                "made_tokens": cost.tokens,
                "notes": made.provenance.notes,
                "labels": self._labels.setdefault(made.labels, len(self._labels)),
                "instruction": self._instructions.setdefault(made.text, len(self._instructions)),
            }
            | self._answers(record, run.queries[str(record.query)].examples, made.labels)
        )

    def _answers(self, record: Record, rows: Sequence[Example], labels: Sequence[str]) -> dict[str, Any]:
        """`confusion`: gold, predicted (number of labels: none), count, and so on; `wrong`: row, predicted, answer."""
        answers, none = record.columns, len(labels)
        numbers = {label: number for number, label in enumerate(labels)}
        gold = [numbers[row.label] for row in rows]
        predicted = [none if number is None else number for number in answers.labels]
        counts = Counter(zip(gold, predicted, strict=True))
        wrong = [i for i, (g, p) in enumerate(zip(gold, predicted, strict=True)) if g != p]
        shown: list[list[Any]] = []
        for i in wrong[:WRONG]:
            answer = answers.answers[i] if predicted[i] == none else None  # one that is a label says nothing more
            said = [] if answer is None else [_cut(answer, ANSWER)]
            shown.append([self._rows.setdefault(rows[i], len(self._rows)), predicted[i], *said])
        confusion = [number for (g, p), count in sorted(counts.items()) for number in (g, p, count)]
        return {"confusion": confusion, "wrong": shown, "n_wrong": len(wrong)}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length].rstrip()} …"
