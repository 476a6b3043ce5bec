"""The records of one or more runs as one table, which statistics, tables, figures and page all start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from promptmii.errors import ArtefactError
from promptmii.records import Query, Record, Run

COLUMNS = (
    *(
        "key",
        "task",
        "method",
        "n",
        "fitted",
        "seed",
        "generator",
        "follower",
        "mode",
        "macro_f1",
        "low",
        "high",
        "accuracy",
    ),
    *(
        "rows",
        "unparsed",
        "truncated",
        "tokens",
        "one_off_tokens",
        "one_off_calls",
        "calibration_calls",
        "calibration_tokens",
        "uncalibrated_macro_f1",
        "query_calls",
        "seconds",
        "one_off_seconds",
    ),
    *("money", "one_off_money", "labels"),
)

UNKNOWN = ["tokens", "one_off_tokens", "calibration_tokens", "uncalibrated_macro_f1", "money", "one_off_money"]
"""Columns that are NaN where the number is unknown."""


@dataclass(frozen=True)
class Grid:
    """The done cells as a data frame, and what is behind them."""

    cells: pd.DataFrame
    """One row per done cell, columns `COLUMNS`. `tokens` are prompt tokens per query; `seconds`, `query_calls` and
    `money` those of labelling all `rows`; `calibration_*` those of calibrating, `one_off_*` those of making the
    instruction. `fitted` of the `n` examples were read."""
    records: dict[str, Record]
    """Every cell by key, failed ones too."""
    queries: dict[str, Query]
    failed: tuple[Record, ...]
    damaged: tuple[str, ...]


def read_grid(folders: Sequence[Path]) -> Grid:
    """The latest record of every cell, a finished one before a failed one. Raises `ArtefactError` if there is none."""
    runs = [Run.read(folder) for folder in folders]
    records: dict[str, Record] = {}
    for key, record in (pair for run in runs for pair in run.records.items()):
        known = records.get(key)
        if known is None or (record.status == "done", record.finished) >= (known.status == "done", known.finished):
            records[key] = record
    queries = {key: query for run in runs for key, query in run.queries.items()}
    if not records:
        raise ArtefactError(
            f"No finished cell in {', '.join(map(str, folders))}. Run: promptmii evaluate -o {folders[0]}"
        )
    rows = [row for record in records.values() if (row := _row(record)) is not None]
    failed = tuple(record for record in records.values() if record.status == "failed")
    damaged = tuple(f"{run.folder}: {line}" for run in runs for line in run.damaged)
    cells = pd.DataFrame(rows, columns=list(COLUMNS))
    cells[UNKNOWN] = cells[UNKNOWN].astype(float)
    return Grid(cells, records, queries, failed, damaged)


def _row(record: Record) -> dict[str, object] | None:
    made, cell = record.instruction, record.cell
    if record.status != "done" or made is None or made.measured is None:
        return None
    measured, cost = made.measured, made.cost
    return {
        "key": record.key,
        **cell.model_dump(include={"task", "method", "n", "seed", "generator", "follower", "mode"}),
        "fitted": made.provenance.n,
        **measured.model_dump(include={"macro_f1", "low", "high", "accuracy"}),
        "rows": measured.n,
        "unparsed": measured.n_unparsed,
        "truncated": measured.n_truncated,
        "tokens": measured.prompt_tokens_per_query,
        "one_off_tokens": cost.tokens,
        "one_off_calls": cost.calls,
        "calibration_calls": made.calibration_cost.calls,
        "calibration_tokens": made.calibration_cost.tokens,
        "uncalibrated_macro_f1": measured.uncalibrated_macro_f1,
        "query_calls": record.spent.calls,
        "seconds": record.spent.seconds,
        "one_off_seconds": cost.seconds,
        "money": record.spent.money,
        "one_off_money": cost.money,
        "labels": len(made.labels),
    }
