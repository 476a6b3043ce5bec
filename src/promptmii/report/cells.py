"""The records of one or more runs as one table, which statistics, tables, figures and page all start from."""

import re
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import pandas as pd

from promptmii.data.nameless import is_nameless
from promptmii.records import Record, Run
from promptmii.styles import split_style

COORDINATES = ["task", "method", "n", "seed", "generator", "follower", "mode"]
MEASURED = {
    "macro_f1": "instruction.measured.macro_f1",
    "low": "instruction.measured.low",
    "high": "instruction.measured.high",
    "uncalibrated_macro_f1": "instruction.measured.uncalibrated_macro_f1",
    "rows": "instruction.measured.n",
    "unparsed": "instruction.measured.n_unparsed",
    "truncated": "instruction.measured.n_truncated",
    "tokens": "instruction.measured.prompt_tokens_per_query",
    "one_off_calls": "instruction.cost.calls",
    "one_off_tokens": "instruction.cost.tokens",
    "one_off_seconds": "instruction.cost.seconds",
    "one_off_money": "instruction.cost.money",
    "calibration_calls": "instruction.calibration_cost.calls",
    "calibration_tokens": "instruction.calibration_cost.tokens",
    "query_calls": "spent.calls",
    "seconds": "spent.seconds",
    "money": "spent.money",
}
"""Numbers of a cell, and where its record has them; NaN where unknown. `tokens` are prompt tokens per query,
`one_off_*` what making the instruction took, and the last three what labelling all `rows` took."""


def all_cells(run: Run) -> pd.DataFrame:
    """A row per cell: `COORDINATES`, `MEASURED`, `labels` (how many), and what stands behind and beside them.

    A cell measured again under a changed template, model or data has two records. The later one counts; the earlier
    one is `stale`, enters no statistic, and is counted in the table of failures. Scores are paired, so these are stale
    too: cells on other rows than the latest cell of their task, and cells at n = 0 of a method that was later measured
    at each n, or the other way round.
    """
    cells = pd.DataFrame(map(_row, run.records.values())).sort_values("finished", kind="stable")
    cells[[*MEASURED]] = cells[[*MEASURED]].astype(float)
    latest = cells.groupby("task")["query"].transform("last")  # failed cells have none, and count for nothing here
    other_rows = cells["query"].notna() & (cells["query"] != latest)
    alone = cells["n"] == 0
    other_kind = alone != alone.groupby(
        [cells[name].fillna("") for name in COORDINATES if name not in ("n", "seed")]
    ).transform("last")
    cells["stale"] = cells.duplicated(COORDINATES, keep="last") | other_rows | other_kind
    cells["series"] = _series_names(cells)
    cells["hidden"] = [is_nameless(task) for task in cells["task"]]
    return cells.reset_index(drop=True)


def _row(record: Record) -> dict[str, Any]:
    made = record.instruction
    done = record.status == "done" and made is not None and made.measured is not None
    about = {name: getattr(record, name) for name in ("key", "status", "finished", "query")}
    numbers = {name: attrgetter(place)(record) if done else None for name, place in MEASURED.items()}
    return about | record.cell.model_dump() | numbers | {"labels": len(made.labels) if made else None}


def _series_names(cells: pd.DataFrame) -> list[str]:
    """The method, and its generator where one scope has it with several of them."""
    writers: dict[tuple[str, str, str], set[str]] = {}
    rows = list(zip(cells["follower"], cells["mode"], cells["method"], cells["generator"].fillna(""), strict=True))
    for follower, mode, method, generator in rows:
        writers.setdefault((follower, mode, method), set()).add(generator)
    names = short_names(row[3] for row in rows)
    return [f"{m} · {names[g]}" if g and len(writers[f, mode, m]) > 1 else m for f, mode, m, g in rows]


def short_name(reference: str) -> str:
    """A model reference without its engine, owner and address: `hf:me/llama#ours` is `llama#ours`."""
    model, style = split_style(reference)
    model = re.sub(r"^\w+:", "", model.partition("@http")[0])
    return "#".join(filter(None, (model.rstrip("/").split("/")[-1], style)))


def short_names(references: Iterable[str]) -> dict[str, str]:
    """The short name of each, or its whole reference where two would be alike, in file names too.

    Models may differ in their owner, folder or address alone.
    """
    short = {reference: short_name(reference) for reference in references}
    alike = Counter(map(slug, short.values()))
    return {reference: name if alike[slug(name)] == 1 else reference for reference, name in short.items()}


def slug(*parts: object) -> str:
    """For file names."""
    return "-".join(re.sub(r"[^a-z0-9]+", "_", str(part).lower()).strip("_") for part in parts)
