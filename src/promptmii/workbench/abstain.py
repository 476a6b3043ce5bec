"""Abstain from uncertain labels: a probability threshold, set by the user or chosen on labelled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptmii.data import Source, read_table
from promptmii.errors import ConfigError, DataError, UnsupportedError
from promptmii.follower import Follower
from promptmii.instruction import Instruction
from promptmii.messages import counted
from promptmii.progress import Progress
from promptmii.task import content_key
from promptmii.workbench.formats import DIGITS
from promptmii.workbench.measure import no_likelihoods, score

FOLDS = 10
"""Folds for cross-fitting the precision."""


@dataclass(frozen=True)
class Threshold:
    """A row whose label is less probable than `value` gets no label."""

    value: float
    chosen: "ThresholdChoice | None" = None
    """How it was chosen, or `None` if the user set it."""


@dataclass(frozen=True)
class ThresholdChoice:
    """The precision of a threshold, estimated on the rows it was chosen on.

    The precision and its exact 95 % interval are cross-fitted: the threshold for each row is chosen without that row,
    so the estimate is not optimistic.
    """

    target: float
    rows: int
    kept: int
    """Rows at or above the threshold."""
    precision: float
    low: float
    high: float

    def __str__(self) -> str:
        hint = "" if self.low >= self.target else f" More rows would tell whether it is {self.target:.1%}."
        return (
            f"it keeps {self.kept} of {counted(self.rows, 'held-back row')}; of new rows that it keeps, "
            f"{self.precision:.1%} [{self.low:.1%}, {self.high:.1%}] should be right.{hint}"
        )


@dataclass(frozen=True)
class Abstain:
    """The user's choice: a threshold, or the precision to reach on held-back rows."""

    threshold: float | None = None
    precision: float | None = None
    held_back: Source = None

    def __post_init__(self) -> None:
        """Raises `ConfigError`."""
        if self.threshold is not None and self.precision is not None:
            raise ConfigError("Use --threshold or --precision, not both.")
        if (self.precision is None) != (self.held_back is None):
            raise ConfigError("--precision needs labelled rows to choose a threshold on: give both it and --held-back.")
        value = self.precision if self.threshold is None else self.threshold
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"The threshold or precision is {value}; expected more than 0 and at most 1, like 0.95.")

    @property
    def key(self) -> str | None:
        """Content hash of the held-back rows. Raises `DataError` if they cannot be read."""
        if self.held_back is None:
            return None
        return content_key([{name: str(cell) for name, cell in row.items()} for row in read_table(self.held_back).rows])

    def threshold_for(self, instruction: Instruction, follower: Follower, progress: Progress) -> Threshold | None:
        """The threshold, or `None` if the user asked for none.

        Raises `UnsupportedError` if the follower gives no probabilities, `DataError` if no threshold is precise enough.
        """
        if self.threshold is None and self.precision is None:
            return None
        if not follower.gives_probabilities:
            raise UnsupportedError(f"A threshold needs probabilities, and {no_likelihoods(follower)}")
        if self.precision is None:
            return Threshold(self.threshold or 0.0)
        held_back = score(instruction, self.held_back, follower, progress=progress)
        held_back.refuse_failures()
        scored = held_back.scored
        probabilities = [max(p.probabilities or (0.0,)) for p in scored.predictions]
        correct = [label == gold for label, gold in zip(scored.labels, scored.gold, strict=True)]
        return choose_threshold(probabilities, correct, self.precision)


def choose_threshold(probabilities: Sequence[float], correct: Sequence[bool], target: float) -> Threshold:
    """The threshold that keeps the most rows at a precision of `target`. Raises `DataError` if none reaches it."""
    from scipy.stats import binomtest

    p, hit = np.array(probabilities), np.array(correct, dtype=bool)
    value, best = _lowest_threshold(p, hit, target)
    if value is None:
        raise DataError(
            f"No threshold gives {target:.1%} precision on {counted(len(p), 'held-back row')}; the best is {best:.1%}. "
            "Give more rows, a lower --precision, or a better instruction."
        )
    fold = np.empty(len(p), dtype=int)
    fold[np.argsort(p, kind="stable")] = np.arange(len(p)) % min(FOLDS, len(p))
    kept = np.zeros(len(p), dtype=bool)
    for number in range(fold.max() + 1):
        threshold, _ = _lowest_threshold(p[fold != number], hit[fold != number], target)
        if threshold is not None:
            kept |= (fold == number) & (p >= threshold)
    labelled = kept if kept.any() else p >= value
    test = binomtest(int(hit[labelled].sum()), int(labelled.sum()))
    interval: Any = test.proportion_ci(0.95, method="exact")
    chosen = ThresholdChoice(
        target, len(p), int((p >= value).sum()), float(test.statistic), float(interval.low), float(interval.high)
    )
    return Threshold(value, chosen)


def _lowest_threshold(p: Any, hit: Any, target: float) -> tuple[float | None, float]:
    """The lowest threshold that reaches the target precision, or `None` and the best precision of any threshold."""
    if not len(p):
        return None, 0.0
    order = np.argsort(-p, kind="stable")
    ordered = p[order]
    precision = np.cumsum(hit[order]) / np.arange(1, len(p) + 1)
    is_cut = np.append(ordered[:-1] != ordered[1:], True)  # no threshold separates equal probabilities
    reached = np.flatnonzero(is_cut & (precision >= target))
    if not len(reached):
        return None, float(precision[is_cut].max())
    value = float(ordered[reached[-1]])
    return np.floor(value * 10**DIGITS) / 10**DIGITS, 1.0
