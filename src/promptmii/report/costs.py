"""The cost of a task with each method, as numbers, a table and a figure."""

from typing import Any

import numpy as np
import pandas as pd

from promptmii.report.drawing import Drawn, blank_figure, label, looks, scope_title, styled
from promptmii.report.figures import sample_size
from promptmii.report.scores import Scope, Scores, Series, in_order, known_means, within
from promptmii.report.tables import NOTHING, ReportTable, number

COSTS = {
    "calls": "calls to make it",
    "tokens": "tokens to make it",
    "seconds": "seconds to make it",
    "money": "money to make it",
    "calibration_calls": "calls to calibrate it",
    "calibration_tokens": "tokens to calibrate it",
    "tokens_per_query": "prompt tokens per query",
    "label_calls": "calls to label",
    "label_seconds": "seconds to label",
    "label_money": "money to label",
}
"""Columns of `mean_costs`, which averages those of `scores.MEASURED`, and their headings."""


def mean_costs(cells: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The mean cost of a task: a row per series and n. Seeds are averaged within tasks first.

    A mean is NaN if any value in it is unknown.
    """
    spent: Any = within(cells, scope).dropna(subset="macro_f1")
    for money, calls in (("money", "calls"), ("label_money", "label_calls")):
        spent[money] = spent[money].where(spent[calls] > 0, 0.0)  # nothing was paid, even if no price is known
    by_task = known_means(spent.groupby(["series", "method", "n", "task"]), [*COSTS, "rows"])
    by_n = known_means(by_task.groupby(["series", "method", "n"]), [*COSTS, "rows"]).reset_index()
    by_n["order"] = [
        in_order(Series(name, method, None)) for name, method in zip(by_n["series"], by_n["method"], strict=True)
    ]
    return by_n.sort_values(["order", "n"]).drop(columns="order").reset_index(drop=True)


def cost_table(cells: pd.DataFrame, scope: Scope) -> ReportTable:
    """The cost of each method per task: making the instruction once, and labelling the query rows."""
    data: Any = mean_costs(cells, scope)
    digits = {"money": 4, "label_money": 4, "seconds": 1, "label_seconds": 1}
    shown = pd.DataFrame({"method": data["series"], "n": data["n"]})
    for column, heading in COSTS.items():
        if data[column].notna().any():
            shown[heading] = [number(float(value), digits.get(column, 0)) for value in data[column]]
    rows = f"{data['rows'].mean():,.0f} rows per task on average" if len(data) else "the rows of each task"
    note = (
        f"Means per task. An instruction is made once and then labels {rows}. Follower calls of a search count as "
        "calls to make it. Tokens to make it are prompt and completion tokens. Money is in the currency of "
        f"the prices given; {NOTHING}: unknown."
    )
    return ReportTable.of(scope, "costs", "Cost per task", note, data, shown)


@styled
def cost_figure(cells: pd.DataFrame, scores: Scores, n: int) -> Drawn:
    """The cost of a task with each method at one n: calls, tokens, seconds."""
    from matplotlib.ticker import EngFormatter, NullLocator

    data = mean_costs(cells, scores.scope)
    at_n = data.loc[data["n"].isin([0, n]), :].iloc[::-1]
    series = [Series(name, method, None) for name, method in zip(at_n["series"], at_n["method"], strict=True)]
    styles = looks(series)
    figure, panels = blank_figure(f"costs-{scores.scope.slug}", 0.3 * len(at_n) + 1.3, 3, 3, sharey=True)
    totals = {
        "LLM calls per task,\nto make the instruction": at_n["calls"],
        "Tokens per task,\nto make it and to label": at_n["tokens"] + at_n["tokens_per_query"] * at_n["rows"],
        "Seconds per task,\nto make it and to label": at_n["seconds"] + at_n["label_seconds"],
    }
    for axes, (heading, values) in zip(panels, totals.items(), strict=True):
        smallest = float(values[values > 0].min()) if (values > 0).any() else 1.0
        axes.set(xscale="log", xlim=(smallest / 2, np.nanmax([smallest, *values]) * 12))
        axes.grid(axis="y", visible=False)
        for y, ((name, *_), value) in enumerate(zip(series, values, strict=True)):
            axes.barh(y, value, height=0.62, color=styles[name].colour, gid=f"series:{name}")
            end = (max(smallest / 2, value), y)
            text = axes.annotate(rounded(value), end, (3, 0), textcoords="offset points", va="center")
            text.set(fontsize=8, gid=f"series:{name}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(heading, fontsize=8.5)
    panels[0].set_yticks(range(len(series)), [label(name) for name, *_ in series])
    figure.suptitle(f"Cost per task at n={n}: {scope_title(scores.scope)}", x=0.01, ha="left")
    caption = (
        f"The cost of one task at n={n} with each method: calls to make the instruction; tokens and seconds to make it "
        f"and to label the task's query rows ({sample_size(scores)}; means, logarithmic axes, no intervals; no bar "
        "means zero)."
    )
    return Drawn(figure, caption)


def rounded(value: float) -> str:
    """A cost as short text, for bars and tooltips."""
    if np.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
