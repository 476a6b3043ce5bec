"""The data for the page's script: the numbers of its tables, and for each task the instructions, confusion matrices and
wrong rows of all its cells.

Each task is compressed (deflate, base64), so that a page of 12,000 cells stays small. The browser unpacks a task when
it is opened.
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
from promptmii.report.results import Results
from promptmii.report.scores import Scores, Series
from promptmii.report.tables import shortened
from promptmii.task import Example

INSTRUCTION_LENGTHS = (4_000, 2_000, 1_000)
"""Characters kept of an instruction: the first number that keeps all packed tasks within `MAX_SIZE`, or the last."""
MAX_SIZE = 13_000_000
"""Characters of all packed tasks of a page."""
MAX_WRONG = 20
"""Wrong rows kept of a cell: the first ones, so that methods can be compared on the same rows."""
TEXT_LENGTH = 600
"""Characters kept of a row's text."""
ANSWER_LENGTH = 200
"""Characters kept of an answer that is not a label."""
COMPRESSION_LEVEL = 6
SCORE_FIELDS = {"macro_f1", "low", "high", "uncalibrated_macro_f1", "accuracy", "n_unparsed", "n_truncated"}


def numbers(results: Results) -> dict[str, Any]:
    """The numbers from which the script draws tables."""
    live: Any = results.cells.loc[~results.cells["stale"], :]
    sizes = live.groupby("task")[["labels", "rows"]].max().fillna(0).astype(int)
    return {
        "scopes": [scores.scope.title for scores in results.by_scope],
        "series": [
            {"name": series.name, "method": series.method, "generator": series.generator} for series in results.series
        ],
        "ns": results.ns,
        "n": results.n,
        "seeds": sorted({int(seed) for seed in live["seed"]}),
        "tasks": [
            {"name": task, "labels": int(sizes["labels"][task]), "rows": int(sizes["rows"][task])}
            for task in results.tasks
        ],
        "scores": [_by_series(results, scores) for scores in results.by_scope],
        "outcome": _outcome(results),
    }


def _outcome(results: Results) -> dict[str, int] | None:
    """The two instructions that the side-by-side view opens with, by number."""
    chosen = results.side_by_side
    return chosen and {
        "task": results.tasks.index(chosen.task),
        "scope": [scores.scope for scores in results.by_scope].index(chosen.scores.scope),
        "left": results.series.index(chosen.left),
        "right": results.series.index(chosen.right),
    }


def _by_series(results: Results, scores: Scores) -> list[Any]:
    """By series, n and task: macro-F1 or None, and the number of failed cells. None for a series not in the scope."""

    def value(series: Series, n: int, task: str) -> tuple[float | None, int]:
        if task not in scores.tasks or n not in scores.ns:
            return None, 0
        index = scores.series.index(series), scores.ns.index(n), scores.tasks.index(task)
        macro_f1 = float(scores.macro_f1[index])
        return None if np.isnan(macro_f1) else round(macro_f1, 4), int(scores.failed[index])

    return [
        [[value(series, n, task) for task in results.tasks] for n in results.ns] if series in scores.series else None
        for series in results.series
    ]


def task_details(results: Results) -> list[str]:
    """The live cells of each task, in order of tasks, as packed JSON."""
    live: Any = results.cells.loc[~results.cells["stale"], :].sort_values(["series", "seed", "n"])
    scopes = [scores.scope for scores in results.by_scope]
    scope_numbers = {(scope.follower, scope.mode, scope.hidden): number for number, scope in enumerate(scopes)}
    # The name alone may be ambiguous: it gives the generator only if its scope has several.
    series_numbers = {(series.name, series.generator): number for number, series in enumerate(results.series)}
    by_task = {task: _Details() for task in results.tasks}
    for key, name, hidden in zip(live["key"], live["series"], live["hidden"], strict=True):
        record = results.run.records[key]
        cell = record.cell
        scope = scope_numbers[cell.follower, cell.mode, hidden]
        series = series_numbers[name, cell.generator or None]
        by_task[cell.task].add(results.run, record, scope, series)
    packed: list[str] = []
    for length in INSTRUCTION_LENGTHS:
        packed = [_pack(details.content(length)) for details in by_task.values()]
        if sum(map(len, packed)) <= MAX_SIZE:
            break
    return packed


def _pack(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), COMPRESSION_LEVEL)).decode()


class _Details:
    """The cells of one task. Rows, instructions and label sets that cells share are stored once, by number."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, ...], int] = {}
        self._instructions: dict[str, int] = {}
        self._rows: dict[Example, int] = {}
        self._cells: list[dict[str, Any]] = []

    def content(self, length: int) -> dict[str, Any]:
        """The object that `tasks.js` reads, with the first `length` characters of every instruction."""
        instructions = [[text[:length], len(text)] for text in self._instructions]
        texts = [(shortened(row.text, TEXT_LENGTH), row.label) for row in self._rows]
        return {"labels": [*self._labels], "texts": texts, "instructions": instructions, "cells": self._cells}

    def add(self, run: Run, record: Record, scope: int, series: int) -> None:
        """Add a cell, done or failed."""
        coordinates = {"scope": scope, "series": series, "n": record.cell.n, "seed": record.cell.seed}
        instruction = record.instruction
        if record.status == "failed" or instruction is None or instruction.measured is None:
            self._cells.append(coordinates | {"error": record.error or "no score was recorded"})
            return
        cost, measured = instruction.cost, instruction.measured
        self._cells.append(
            coordinates
            | measured.model_dump(include=SCORE_FIELDS)
            | {
                "rows": measured.n,
                "tokens": measured.prompt_tokens_per_query,
                "fitted": instruction.provenance.n if takes_what_fits(record.cell.method) else record.cell.n,
                "calls": cost.calls,
                "calibration_calls": instruction.calibration_cost.calls,
                "made_tokens": cost.tokens,
                "notes": instruction.provenance.notes,
                "labels": self._labels.setdefault(instruction.labels, len(self._labels)),
                "instruction": self._instructions.setdefault(instruction.text, len(self._instructions)),
            }
            | self._answers(record, run.queries[str(record.query)].examples, instruction.labels)
        )

    def _answers(self, record: Record, rows: Sequence[Example], labels: Sequence[str]) -> dict[str, Any]:
        """The confusion matrix and the wrong rows of a cell. Labels are numbers; `len(labels)` is an unparsed answer.

        `confusion` is a flat list that repeats gold label, predicted label, count. Each entry of `wrong` is a row
        number, the predicted label and, if unparsed, the answer.
        """
        columns, unparsed = record.columns, len(labels)
        numbers = {label: number for number, label in enumerate(labels)}
        gold = [numbers[row.label] for row in rows]
        predicted = [unparsed if number is None else number for number in columns.labels]
        counts = Counter(zip(gold, predicted, strict=True))
        wrong = [i for i, (g, p) in enumerate(zip(gold, predicted, strict=True)) if g != p]
        shown: list[list[Any]] = []
        for i in wrong[:MAX_WRONG]:
            entry: list[Any] = [self._rows.setdefault(rows[i], len(self._rows)), predicted[i]]
            answer = columns.answers[i]
            if predicted[i] == unparsed and answer is not None:
                entry.append(shortened(answer, ANSWER_LENGTH))
            shown.append(entry)
        confusion = [number for (g, p), count in sorted(counts.items()) for number in (g, p, count)]
        return {"confusion": confusion, "wrong": shown, "n_wrong": len(wrong)}
