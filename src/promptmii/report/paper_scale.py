"""A run on the authors' scale: the same answers under their two scorers, beside ours (`paper_compat`)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from promptmii.paper_compat import analysis_f1, answers, reward_f1
from promptmii.report.grid import Grid
from promptmii.report.scores import Scope, Scores
from promptmii.report.tables import NOTHING, Table, number, scoped

MODE = "generate"
"""The authors' way of answering, and the only one in which the scorers differ."""
SCORERS = {"macro_f1": "ours", "reward_f1": "their reward", "analysis_f1": "their tables"}


def paper_scale_tables(grid: Grid, cells: pd.DataFrame, by_scope: Sequence[Scores]) -> list[Table]:
    """One table per follower that generated its answers."""
    return [_table(grid, cells, own.scope) for own in by_scope if own.scope.mode == MODE]


def _table(grid: Grid, cells: pd.DataFrame, scope: Scope) -> Table:
    own: Any = cells[
        (cells["follower"] == scope.follower)
        & (cells["mode"] == scope.mode)
        & cells["macro_f1"].notna()
        & ~cells["stale"]
    ]
    rescored = own[["series", "n", "task", "macro_f1"]].join(
        pd.DataFrame(
            [_rescored(grid, key) for key in own["key"]], index=own.index, columns=["reward_f1", "analysis_f1"]
        )
    )
    by_task = rescored.groupby(["series", "n", "task"], sort=False)[list(SCORERS)].mean()
    data = by_task.groupby(["series", "n"], sort=False).mean().reset_index()
    counts = (
        rescored.groupby(["series", "n"], sort=False)["analysis_f1"].agg(cells="size", scored="count").reset_index()
    )
    data["cells"], data["without_analysis_f1"] = counts["cells"], counts["cells"] - counts["scored"]
    shown = data.rename(columns=SCORERS | {"series": "method", "without_analysis_f1": "no number in their tables"})
    for name in SCORERS.values():
        shown[name] = [NOTHING if pd.isna(value) else number(value) for value in shown[name]]
    note = (
        "Macro-F1, mean over tasks, of the same answers under three scorers. The authors' reward takes what is no "
        "label for the first label; their tables leave out empty answers and count each other text as a class of its "
        "own. Use theirs to read a published number, ours to compare methods."
    )
    return Table(f"paper_scale-{scoped(scope)}", f"On the authors' scale: {scope.title}", note, data, shown)


def _rescored(grid: Grid, key: str) -> tuple[float, float | None]:
    record = grid.records[key]
    gold, _ = record.scored(grid.queries)
    given = answers(record.predictions)
    labels = record.instruction.labels if record.instruction else ()
    return reward_f1(gold, given, labels), analysis_f1(gold, given)
