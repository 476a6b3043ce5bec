"""Statistics of methods over many tasks, at the same number of examples.

The unit is the task. Intervals are 95 % t intervals over tasks; the spread between tasks includes the sampling noise of
their rows. With six tasks a t interval covers the mean in 93 to 95 % of samples, a bootstrap over tasks in 84 to 88 %.
Two methods are compared on the tasks that both finished. Only `best_within` picks a method's best n, and it is marked
as descriptive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from promptmii.metrics import ALPHA, holm
from promptmii.report.scores import ARRAYS, Floats, Scores, Series

TIE = 1e-9
"""Scores closer than this count as equal."""
POWER = 0.8
"""How often a test should find a difference that exists."""
MIN_TASKS = 6
"""Fewest tasks for a signed-rank test; with five, no outcome reaches p = 0.05."""


class Mean(NamedTuple):
    """One series at one n, averaged over tasks."""

    series: Series
    n: int
    """0 if the series reads no examples."""
    mean: float
    """Macro-F1 over the tasks with a score; NaN if there are none."""
    low: float
    high: float
    """95 % interval over tasks; for a single task, over its rows."""
    uncalibrated: float
    """`mean` without the calibration; NaN if any task lacks it."""
    tokens: float
    """Prompt tokens per query; NaN if unknown for any task."""
    tasks: int
    missing: tuple[str, ...]
    """Tasks of the scope without a score here."""
    seeds: int
    """Finished cells of the task with the most."""
    failed: int
    """Failed cells over all tasks and seeds."""


def means(scores: Scores, only: int | None = None) -> list[Mean]:
    """Every series at every n, or at `only`. A series that reads no examples is repeated for each n, as n = 0."""
    return [
        _mean_at(scores, i, j) for i in range(len(scores.series)) for j, n in enumerate(scores.ns) if only in (None, n)
    ]


def ranked(scores: Scores, n: int) -> list[Mean]:
    """Every series with a score at n, the highest mean first."""
    return sorted((mean for mean in means(scores, n) if mean.tasks), key=lambda mean: -mean.mean)


def _mean_at(scores: Scores, i: int, j: int) -> Mean:
    """The mean of the `i`-th series at the `j`-th n."""
    series, n = scores.series[i], scores.ns[j]
    values = scores.macro_f1[i, j]
    has_score = ~np.isnan(values)
    low, high = _interval(values[has_score], scores.error[i, j][has_score])
    return Mean(
        series,
        0 if scores.constant[i] else n,
        _mean(values[has_score]),
        low,
        high,
        uncalibrated=_mean(scores.uncalibrated[i, j][has_score]),
        tokens=_mean(scores.tokens[i, j][has_score]),
        tasks=int(has_score.sum()),
        missing=scores.missing(series.name, n),
        seeds=int(scores.seeds[i, j].max(initial=0)),
        failed=int(scores.failed[i, j].sum()),
    )


def _interval(values: Floats, errors: Floats) -> tuple[float, float]:
    """95 % interval over tasks; for a single task, over its rows."""
    if len(values) == 1:
        low, high = values[0] - 1.96 * errors[0], values[0] + 1.96 * errors[0]
    else:
        low, high = interval_of_mean(values)
    return tuple(np.clip([low, high], 0, 1).tolist())


def interval_of_mean(values: Floats) -> tuple[float, float]:
    """95 % t interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return np.nan, np.nan
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def detectable(differences: Floats, level: float = ALPHA) -> float:
    """The smallest true mean difference that a paired t test detects with `POWER`.

    The number of tasks and the noise are those of `differences`. NaN for fewer than two tasks, and without noise.
    """
    tasks = len(differences)
    if tasks < 2 or differences.std() < TIE:
        return np.nan
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = t.ppf(1 - level / 2, tasks - 1)

    def excess_power(effect: float) -> float:
        shift = effect * np.sqrt(tasks)
        wrong_side = np.nan_to_num(nct.cdf(-critical, tasks - 1, shift))  # scipy returns NaN for some values near 0
        return float(nct.sf(critical, tasks - 1, shift) + wrong_side) - POWER

    upper = 1.0
    while excess_power(upper) < 0:
        upper *= 2
    effect: Any = brentq(excess_power, 0.0, upper)
    return float(effect * differences.std(ddof=1))


class Paired(NamedTuple):
    """The difference `a` minus `b` of two series at one n, on the tasks that both finished."""

    a: str
    b: str
    n: int
    differences: Mapping[str, float]
    """Difference in macro-F1 by task."""
    mean: float
    low: float
    high: float
    """95 % interval over tasks; NaN for fewer than two."""
    wins: int
    """Tasks on which `a` is better."""
    ties: int
    losses: int
    missing_a: tuple[str, ...]
    missing_b: tuple[str, ...]
    """Tasks left out because this series lacks them."""
    p: float
    """Two-sided Wilcoxon signed-rank test over tasks, without ties; NaN if there is no test."""
    reason: str = ""
    """Explains a missing p-value."""

    @property
    def record(self) -> str:
        """Wins, ties and losses as text."""
        return f"{self.wins} / {self.ties} / {self.losses}"


def paired(scores: Scores, a: str, b: str, n: int) -> Paired:
    """Compare two series at the same n. Raises `ValueError` for an unknown name or n."""
    scores_a, scores_b = scores.at(a, n), scores.at(b, n)
    matched = ~(np.isnan(scores_a) | np.isnan(scores_b))
    differences = scores_a[matched] - scores_b[matched]
    differences[np.abs(differences) < TIE] = 0.0
    low, high = np.clip(interval_of_mean(differences), -1, 1).tolist()
    p, reason = signed_rank(differences)
    return Paired(
        a,
        b,
        n,
        differences=dict(zip(compress(scores.tasks, matched), differences.tolist(), strict=True)),
        mean=_mean(differences),
        low=low,
        high=high,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        missing_a=scores.missing(a, n),
        missing_b=scores.missing(b, n),
        p=p,
        reason=reason,
    )


def signed_rank(differences: Floats) -> tuple[float, str]:
    """Two-sided p-value of Wilcoxon's signed-rank test without zeros, 1 if all are zero.

    NaN and a reason if there is no test.
    """
    if len(differences) < MIN_TASKS:
        return float("nan"), f"fewer than {MIN_TASKS} tasks"
    if not differences.any():
        return 1.0, ""  # not NaN: it was planned, so the adjustment for several tests has to count it
    from scipy.stats import wilcoxon

    # Rounded so that differences equal up to floating-point error share a rank.
    result: Any = wilcoxon(np.round(differences[differences != 0], 9))
    return float(result.pvalue), ""


def comparisons(scores: Scores, n: int) -> list[tuple[Paired, float]]:
    """Every pair of series at one n, each with its p-value adjusted (Holm) for all pairs tested."""
    names = scores.names
    pairs = [paired(scores, a, b, n) for i, a in enumerate(names) for b in names[i + 1 :]]
    return list(zip(pairs, holm([pair.p for pair in pairs]), strict=True))


def comparable(scores: Scores) -> Scores:
    """The scores on one set of tasks; a point that lacks any of these tasks has no score.

    Means over different tasks are not comparable: a method that lacks the hard tasks looks better. Among the task sets
    of the points (a point is one series at one n), this takes the one that keeps the most scores.
    """
    has_score = ~np.isnan(scores.macro_f1)
    task_sets = has_score[has_score.any(axis=2)]  # (points, T)
    if not len(task_sets):
        return scores

    def scores_kept(tasks: NDArray[np.bool_]) -> tuple[int, int]:
        """The number of scores that a task set keeps; its number of tasks breaks ties."""
        complete_points = task_sets[:, tasks].all(axis=1)
        return int(complete_points.sum() * tasks.sum()), int(tasks.sum())

    chosen = max(task_sets, key=scores_kept)
    complete = has_score[:, :, chosen].all(axis=2, keepdims=True)
    macro_f1 = np.where(complete, scores.macro_f1, np.nan)
    own_tasks = tuple(compress(scores.tasks, chosen))
    arrays = {name: getattr(scores, name)[:, :, chosen] for name in ARRAYS}
    return replace(scores, tasks=own_tasks, **arrays | {"macro_f1": macro_f1[:, :, chosen]})


def shared_means(scores: Scores, n: int) -> list[Mean]:
    """The series with a score at n, all as means over the same tasks.

    These are the tasks of the figures (`points`), unless these leave out series that share tasks at this n, as in a run
    that is not finished.
    """
    of_figures, of_n = (
        [mean for mean in means(comparable(part), n) if mean.tasks] for part in (scores, scores.only(n))
    )
    return of_figures if len(of_figures) >= len(of_n) else of_n


def points(scores: Scores) -> list[Mean]:
    """The points of the figures: every series at each of its n, once, if its prompt tokens are known.

    All are means over the tasks of `comparable`.
    """
    plottable = [mean for mean in means(comparable(scores)) if mean.tasks and not np.isnan(mean.tokens)]
    return list({(mean.series, mean.n): mean for mean in plottable}.values())


def frontier(points: Sequence[Mean]) -> list[Mean]:
    """The points that no other beats in both macro-F1 and tokens, ordered by tokens."""
    best: list[Mean] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.mean)):
        if not best or point.mean > best[-1].mean:
            best.append(point)
    return best


def best_within(points: Sequence[Mean], budget: float) -> Mean | None:
    """The point with the highest macro-F1 within `budget` prompt tokens per query.

    Descriptive only: it is chosen on the scores it is reported with, which favours methods with many points.
    """
    affordable = [point for point in points if point.tokens <= budget]
    return max(affordable, key=lambda point: point.mean, default=None)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
