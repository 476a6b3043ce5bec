"""The cost of a task with each method: numbers, table and figure."""

from typing import Any

import numpy as np
import pandas as pd

from promptmii.report.drawing import Drawn, blank_figure, looks, styled
from promptmii.report.figures import sample_size
from promptmii.report.scores import Scope, Scores, Series, in_order, within
from promptmii.report.tables import NOTHING, ReportTable, number

COSTS = {
    "calls": ("one_off_calls", "calls to make it"),
    "tokens": ("one_off_tokens", "tokens to make it"),
    "seconds": ("one_off_seconds", "seconds to make it"),
    "money": ("one_off_money", "money to make it"),
    "calibration_calls": ("calibration_calls", "calls to calibrate it"),
    "calibration_tokens": ("calibration_tokens", "tokens to calibrate it"),
    "tokens_per_query": ("tokens", "prompt tokens per query"),
    "label_calls": ("query_calls", "calls to label"),
    "label_seconds": ("seconds", "seconds to label"),
    "label_money": ("money", "money to label"),
}
"""Columns of `costs`: the column of `all_cells` that each is the mean of, and its heading."""


def costs(cells: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The cost of a task, averaged over tasks (and over seeds within them): a row per series and n.

    `calls`, `tokens`, `seconds` and `money` are those of making the instruction, once per task, `calibration_*` of
    calibrating it, `label_*` of labelling all `rows` of a task; `tokens_per_query` are prompt tokens. A number is NaN
    if any part of it is unknown.
    """
    done = within(cells, scope).dropna(subset="macro_f1")
    own: Any = done.rename(columns={old: new for new, (old, _) in COSTS.items()})
    for money, calls in (("money", "calls"), ("label_money", "label_calls")):
        own[money] = own[money].where(own[calls] > 0, 0.0)
    own[list(COSTS)] = own[list(COSTS)].fillna(np.inf)  # so that a mean over something unknown is unknown
    by_task = own.groupby(["series", "method", "n", "task"])[[*COSTS, "rows"]].mean()
    by_n = by_task.groupby(["series", "method", "n"]).mean().replace(np.inf, np.nan).reset_index()
    by_n["order"] = [
        in_order(Series(name, method, None)) for name, method in zip(by_n["series"], by_n["method"], strict=True)
    ]
    return by_n.sort_values(["order", "n"]).drop(columns="order").reset_index(drop=True)


def cost_table(cells: pd.DataFrame, scope: Scope) -> ReportTable:
    """The cost of each method per task: making the instruction once, and labelling the query rows."""
    data: Any = costs(cells, scope)
    digits = {"money": 4, "label_money": 4, "seconds": 1, "label_seconds": 1}
    known = {name: head for name, (_, head) in COSTS.items() if data[name].notna().any()}
    shown = pd.DataFrame(
        {"method": data["series"], "n": data["n"]}
        | {head: [number(float(x), digits.get(name, 0)) for x in data[name]] for name, head in known.items()}
    )
    note = (
        f"Means per task. An instruction is made once and then labels {data['rows'].mean():,.0f} rows per task on "
        "average. Follower calls of a search count as calls to make it. Tokens to make it are prompt and completion "
        f"tokens. Money is in the currency of the prices given; {NOTHING}: unknown."
    )
    return ReportTable.of(scope, "costs", "Cost per task", note, data, shown)


@styled
def cost_figure(cells: pd.DataFrame, scores: Scores, n: int) -> Drawn:
    """The cost of a task with each method at one n: calls, tokens, seconds."""
    from matplotlib.ticker import EngFormatter, NullLocator

    data = costs(cells, scores.scope)
    own = data.loc[data["n"].isin([0, n]), :].iloc[::-1]
    series = [Series(name, method, None) for name, method in zip(own["series"], own["method"], strict=True)]
    known = looks(series)
    figure, panels = blank_figure(f"costs-{scores.scope.slug}", 0.3 * len(own) + 1.3, 3, 3, sharey=True)
    totals = {
        "LLM calls per task,\nto make the instruction": own["calls"],
        "Tokens per task,\nto make it and to label": own["tokens"] + own["tokens_per_query"] * own["rows"],
        "Seconds per task,\nto make it and to label": own["seconds"] + own["label_seconds"],
    }
    for axes, (label, values) in zip(panels, totals.items(), strict=True):
        least = float(values[values > 0].min()) if (values > 0).any() else 1.0
        axes.set(xscale="log", xlim=(least / 2, np.nanmax([least, *values]) * 12))
        axes.grid(axis="y", visible=False)
        for place, (line, value) in enumerate(zip(series, values, strict=True)):
            axes.barh(place, value, height=0.62, color=known[line.name].colour, gid=f"series:{line.name}")
            text = axes.annotate(
                rounded(value), (max(least / 2, value), place), (3, 0), textcoords="offset points", va="center"
            )
            text.set(fontsize=8, gid=f"series:{line.name}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label, fontsize=8.5)
    panels[0].set_yticks(range(len(series)), [line.name for line in series])
    figure.suptitle(f"Cost per task at n={n}: {scores.scope.title}", x=0.01, ha="left")
    caption = (
        f"What one task costs at n={n} with each method: calls to make the instruction; tokens and seconds to make it "
        f"and to label the task's query rows ({sample_size(scores)}; means, logarithmic axes, no interval; no bar: "
        "zero)."
    )
    return Drawn(figure, caption)


def rounded(value: float) -> str:
    if np.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
