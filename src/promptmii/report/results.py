"""All that a report shows, and the numbers from which the script of the page draws tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from promptmii.curves import Curves, is_training_run, read_curves
from promptmii.errors import ArtefactError
from promptmii.records import RECORDS, Run
from promptmii.report.cells import all_cells
from promptmii.report.headline import Claim, claims
from promptmii.report.methods import compared, single_call
from promptmii.report.scores import Scores, Series, chosen_n, in_order, scopes, scores


@dataclass(frozen=True)
class Results:
    """All that a report shows."""

    run: Run
    cells: pd.DataFrame
    """From `all_cells`."""
    by_scope: Sequence[Scores]
    curves: Sequence[Curves]
    folders: Sequence[Path]

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Self:
        """Of runs of `promptmii evaluate`, and of training runs for their curves.

        Raises `ArtefactError` where the evaluations hold no cell.
        """
        evaluations, training = split_folders(folders)
        run = Run.read(*evaluations)
        if not run.records:
            folder = evaluations[0] if evaluations else "runs/first"
            raise ArtefactError(
                f"No finished cell in {', '.join(map(str, folders))}. Run: promptmii evaluate -o {folder}"
            )
        cells = all_cells(run)
        by_scope = [scores(cells, scope) for scope in scopes(cells)]
        return cls(run, cells, by_scope, read_curves(training), folders)

    @cached_property
    def series(self) -> list[Series]:
        """Of all scopes, in order."""
        return sorted({series for scores in self.by_scope for series in scores.series}, key=in_order)

    @cached_property
    def ns(self) -> list[int]:
        """Numbers of examples of all scopes."""
        return sorted({n for scores in self.by_scope for n in scores.ns})

    @property
    def n(self) -> int:
        """The one that figures and tables of a single n are about, or open with."""
        return chosen_n(self.ns)

    @cached_property
    def tasks(self) -> list[str]:
        """Of all scopes."""
        return sorted({task for scores in self.by_scope for task in scores.tasks})

    @property
    def untrained(self) -> list[str]:
        """Generators that were run both as the one under test and as an untrained one."""
        by_method = [
            {s.generator for s in self.series if s.method == method and s.generator} for method in single_call()
        ]
        return sorted(set.intersection(*by_method))

    @cached_property
    def claims(self) -> list[Claim]:
        """The planned comparisons."""
        return claims(self.by_scope, self.n)


def split_folders(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Evaluations, and training runs."""
    training = [folder for folder in folders if is_training_run(folder) and not (folder / RECORDS).exists()]
    return [folder for folder in folders if folder not in training], training


def numbers(results: Results) -> dict[str, Any]:
    """What the script needs to draw tables."""
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


def outcome(results: Results) -> dict[str, int] | None:
    """Which two series and which task the side-by-side view opens with, by number. `None` where nothing was written.

    The task is the one whose difference is the median: a typical one, not the most flattering.
    """
    series = results.series
    if not any(one.generator or one.method in compared()[1] for one in series):
        return None
    lefts, rights = compared()
    right = _first(series, rights) or series[-1]
    left = _first([one for one in series if one != right], lefts) or right
    both = [i for i, s in enumerate(results.by_scope) if {left.name, right.name} <= set(s.names) and results.n in s.ns]
    # Where names are hidden, the text alone says what a label means.
    scope, task = next(iter(sorted(both, key=lambda i: not results.by_scope[i].scope.hidden)), None), 0
    if scope is not None:
        own = results.by_scope[scope]
        differences = own.at(right.name, results.n) - own.at(left.name, results.n)
        order = np.argsort(differences)[: int((~np.isnan(differences)).sum())]  # NaN comes last
        task = results.tasks.index(own.tasks[order[len(order) // 2]]) if len(order) else 0
    return {"task": task, "scope": scope or 0, "left": series.index(left), "right": series.index(right)}


def _first(series: Sequence[Series], methods: Sequence[str]) -> Series | None:
    return next((one for method in methods for one in series if one.method == method), None)
