"""The contents of a report: the records of its runs, the statistics computed from them, and training curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from promptmii.errors import ArtefactError
from promptmii.files import quoted
from promptmii.records import RECORDS, Run
from promptmii.report.headline import Claim, claims
from promptmii.report.methods import side_by_side, single_call
from promptmii.report.scores import Scores, Series, all_cells, chosen_n, in_order, nearest_n, scopes
from promptmii.report.tables import ReportTable, summary_table
from promptmii.train.run_folder import Curves, is_training_run, read_curves


class SideBySide(NamedTuple):
    """Two instructions to compare: those that two methods made for one task."""

    scores: Scores
    task: str
    left: Series
    right: Series


@dataclass(frozen=True)
class Results:
    """The contents of a report."""

    run: Run
    curves: Sequence[Curves] = ()
    folders: Sequence[Path] = ()

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Self:
        """Read runs of `promptmii evaluate`, and the curves of training runs, which may be alone.

        Raises `ArtefactError` if there are evaluations without a cell, or a folder is neither.
        """
        training = [folder for folder in folders if is_training_run(folder) and not (folder / RECORDS).exists()]
        evaluations = [folder for folder in folders if folder not in training]
        results = cls(Run.read(*evaluations), read_curves(training), folders)
        if evaluations:
            results.require_cells(evaluations[0])
        return results

    def require_cells(self, folder: str | Path = "runs/first") -> None:
        """Raise an `ArtefactError` if there is no cell. It advises to evaluate into `folder`."""
        if not self.run.records:
            raise ArtefactError(
                f"No finished cell in {', '.join(map(str, self.folders))}. Run: promptmii evaluate -o {quoted(folder)}"
            )

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The table made by `all_cells`."""
        return all_cells(self.run)

    @cached_property
    def by_scope(self) -> list[Scores]:
        """The scores of each scope; empty if there are training runs alone."""
        return [Scores.of(self.cells, scope) for scope in scopes(self.cells)] if self.run.records else []

    @cached_property
    def series(self) -> list[Series]:
        """The series of all scopes, in registry order."""
        return sorted({series for scores in self.by_scope for series in scores.series}, key=in_order)

    @cached_property
    def ns(self) -> list[int]:
        """The numbers of examples of all scopes."""
        return sorted({n for scores in self.by_scope for n in scores.ns})

    @property
    def nothing_scored(self) -> bool:
        """Every cell failed, when it was last run."""
        live: Any = self.cells.loc[~self.cells["stale"], "status"]
        return bool((live == "failed").all())

    @property
    def n(self) -> int:
        """The n that figures and tables show, or open with."""
        return chosen_n(self.ns)

    @property
    def at_n(self) -> list[tuple[Scores, int]]:
        """The scores of each scope, and the n of its tables for a single n: `n`, if it was run."""
        return [(scores, nearest_n(scores.ns, self.n)) for scores in self.by_scope]

    @property
    def summaries(self) -> list[ReportTable]:
        """The mean of each method at the n of `at_n`, a table for each scope."""
        return [summary_table(scores, n) for scores, n in self.at_n]

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks of all scopes."""
        return sorted({task for scores in self.by_scope for task in scores.tasks})

    @property
    def untrained(self) -> list[str]:
        """Generators that wrote instructions both as the model under test and as the untrained one."""
        by_method = [
            {series.generator for series in self.series if series.method == method and series.generator}
            for method in single_call()
        ]
        return sorted(set.intersection(*by_method))

    @cached_property
    def side_by_side(self) -> SideBySide | None:
        """The two instructions that readers see first, or None if nothing was written.

        The task is the one with the median difference: typical rather than flattering.
        """
        left_methods, right_methods = side_by_side()
        if not any(series.generator or series.method in right_methods for series in self.series):
            return None
        right = _first(self.series, right_methods) or self.series[-1]
        left = _first([series for series in self.series if series != right], left_methods) or right
        names = left.name, right.name
        with_both = [scores for scores in self.by_scope if {*names} <= {*scores.names} and self.n in scores.ns]
        if not with_both:
            return SideBySide(self.by_scope[0], self.tasks[0], left, right)
        # Prefer hidden label names: there, only the instruction tells what a label means.
        scores = max(with_both, key=lambda one: one.scope.hidden)
        # Series of several followers may share a name: each `zero` is written by the follower itself.
        left, right = (scores.series[scores.names.index(name)] for name in names)
        differences = scores.at(right.name, self.n) - scores.at(left.name, self.n)
        ranked = np.argsort(differences)[: int((~np.isnan(differences)).sum())]  # NaN comes last
        task = scores.tasks[ranked[len(ranked) // 2]] if len(ranked) else self.tasks[0]
        return SideBySide(scores, task, left, right)

    @cached_property
    def claims(self) -> list[Claim]:
        """The planned comparisons."""
        return claims(self.at_n)


def _first(series: Sequence[Series], methods: Sequence[str]) -> Series | None:
    """The first series of the first method that has one."""
    return next((s for method in methods for s in series if s.method == method), None)
