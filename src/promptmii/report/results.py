"""All that a report shows: the records of its runs, what follows from them, and the curves of training runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from promptmii.curves import Curves, is_training_run, read_curves
from promptmii.errors import ArtefactError
from promptmii.records import RECORDS, Run
from promptmii.report.headline import Claim, claims
from promptmii.report.methods import compared, single_call
from promptmii.report.scores import Scores, Series, all_cells, chosen_n, in_order, scopes, scores


@dataclass(frozen=True)
class Results:
    """All that a report shows."""

    run: Run
    curves: Sequence[Curves] = ()
    folders: Sequence[Path] = ()

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Self:
        """Read runs of `promptmii evaluate`, and training runs for their curves.

        Raises `ArtefactError` where the evaluations hold no cell.
        """
        evaluations, training = split_folders(folders)
        run = Run.read(*evaluations)
        if not run.records:
            folder = evaluations[0] if evaluations else "runs/first"
            raise ArtefactError(
                f"No finished cell in {', '.join(map(str, folders))}. Run: promptmii evaluate -o {folder}"
            )
        return cls(run, read_curves(training), folders)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """From `all_cells`."""
        return all_cells(self.run)

    @cached_property
    def by_scope(self) -> list[Scores]:
        """The scores of each scope."""
        return [scores(self.cells, scope) for scope in scopes(self.cells)]

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
        """The n of figures and tables for a single n, or the one they open with."""
        return chosen_n(self.ns)

    @cached_property
    def tasks(self) -> list[str]:
        """Of all scopes."""
        return sorted({task for scores in self.by_scope for task in scores.tasks})

    @property
    def untrained(self) -> list[str]:
        """Generators run both under test and untrained."""
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
