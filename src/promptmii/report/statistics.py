"""Statistics of methods over many tasks, at the same number of examples.

The unit is the task. Intervals are 95 % t intervals over tasks; the spread of the scores holds the noise of their rows
too. With six tasks a t interval covers the mean in 93 to 95 % of all samples, a bootstrap over tasks in 84 to 88 %.
Methods are compared on the tasks that both finished. Nothing here picks the best n of a method, except `best_within`,
which says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from promptmii.metrics import holm
from promptmii.report.scores import Floats, Scores, Series

TIE = 1e-9
"""Scores closer than this are equal."""
LEVEL = 0.05
"""Of a test."""
FEWEST = 6
"""Tasks for a signed-rank test: with five, no outcome reaches p = 0.05."""


class Mean(NamedTuple):
    """The scores of a series over tasks at one n."""

    series: Series
    n: int
    """0 where it reads no examples."""
    mean: float
    """Macro-F1 over the tasks that it has; NaN without any."""
    low: float
    high: float
    """95 % interval over tasks; of a single task, over its rows."""
    common: float
    """Macro-F1 over the tasks that every series of the scope has at this n."""
    uncalibrated: float
    """`mean` without the calibration; NaN if any task lacks it."""
    tokens: float
    """Prompt tokens per query; NaN if unknown for any task."""
    tasks: int
    missing: tuple[str, ...]
    """Tasks that other series of the scope have and this one lacks."""
    seeds: int
    """Finished cells of the task that has most of them."""
    failed: int
    """Cells, all seeds."""


def means(scores: Scores, only: int | None = None) -> list[Mean]:
    """Every series at every n, or at this one. A series that reads no examples is repeated for each n, with n = 0."""
    found: list[Mean] = []
    for i, series in enumerate(scores.series):
        for j, n in enumerate(scores.ns):
            if only not in (None, n):
                continue
            values = scores.macro_f1[i, j]
            has = ~np.isnan(values)
            common = ~np.isnan(scores.macro_f1[:, j]).any(axis=0)
            low, high = _interval(values[has], scores.error[i, j][has])
            found.append(
                Mean(
                    series,
                    0 if scores.constant[i] else n,
                    _mean(values[has]),
                    low,
                    high,
                    _mean(values[common]),
                    _mean(scores.uncalibrated[i, j][has]),
                    _mean(scores.tokens[i, j][has]),
                    int(has.sum()),
                    scores.missing(series.name, n),
                    int(scores.seeds[i, j].max(initial=0)),
                    int(scores.failed[i, j].sum()),
                )
            )
    return found


def _interval(values: Floats, errors: Floats) -> tuple[float, float]:
    """Over tasks; of a single task, over its rows."""
    if len(values) == 1:
        low, high = values[0] - 1.96 * errors[0], values[0] + 1.96 * errors[0]
    else:
        low, high = interval_of_mean(values)
    return tuple(np.clip([low, high], 0, 1).tolist())


def interval_of_mean(values: Floats) -> tuple[float, float]:
    """95 % t interval of the mean of `values`, one per task. NaN for fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def detectable(differences: Floats, level: float = LEVEL, power: float = 0.8) -> float:
    """The smallest true mean difference that a paired t test on as many tasks, as noisy as these, finds that often.

    NaN for fewer than two tasks.
    """
    tasks = len(differences)
    if tasks < 2:
        return np.nan
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    limit = t.ppf(1 - level / 2, tasks - 1)

    def lacking(effect: float) -> float:
        shift = effect * np.sqrt(tasks)
        wrong_side = np.nan_to_num(nct.cdf(-limit, tasks - 1, shift))  # scipy has no number for some that are near 0
        return float(nct.sf(limit, tasks - 1, shift) + wrong_side) - power

    most = 1.0
    while lacking(most) < 0:
        most *= 2
    found: Any = brentq(lacking, 0.0, most)
    return float(found * differences.std(ddof=1))


class Paired(NamedTuple):
    """Two series on the tasks that both finished, at one n: `a` minus `b`."""

    a: str
    b: str
    n: int
    differences: Mapping[str, float]
    """Macro-F1 by task."""
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
    """Tasks that are left out because this side lacks them."""
    p: float
    """Two-sided Wilcoxon signed-rank test over tasks, ties left out; NaN with a reason."""
    reason: str = ""

    @property
    def record(self) -> str:
        """Wins, ties and losses."""
        return f"{self.wins} / {self.ties} / {self.losses}"


def paired(scores: Scores, a: str, b: str, n: int) -> Paired:
    """Compare two series at equal n. Raises `ValueError` for a name or an n that the scores lack."""
    left, right = scores.at(a, n), scores.at(b, n)
    has = ~(np.isnan(left) | np.isnan(right))
    differences = left[has] - right[has]
    differences[np.abs(differences) < TIE] = 0.0
    tasks = [task for task, matched in zip(scores.tasks, has, strict=True) if matched]
    by_task = dict(zip(tasks, differences.tolist(), strict=True))
    low, high = np.clip(interval_of_mean(differences), -1, 1).tolist()
    mean, (p, reason) = _mean(differences), signed_rank(differences)
    wins, ties, losses = (int(found.sum()) for found in (differences > 0, differences == 0, differences < 0))
    missing = scores.missing(a, n), scores.missing(b, n)
    return Paired(a, b, n, by_task, mean, low, high, wins, ties, losses, *missing, p, reason)


def signed_rank(differences: Floats) -> tuple[float, str]:
    """Two-sided p of Wilcoxon's signed-rank test (scipy; zeros left out), or NaN and why there is none."""
    if len(differences) < FEWEST:
        return float("nan"), f"fewer than {FEWEST} tasks"
    if not differences.any():
        return float("nan"), "equal on every task"
    from scipy.stats import wilcoxon

    # Rounded, so that differences which are equal but for the last bit share their rank.
    result: Any = wilcoxon(np.round(differences[differences != 0], 9))
    return float(result.pvalue), ""


def comparisons(scores: Scores, n: int) -> list[tuple[Paired, float]]:
    """Every pair of series at one n with its p-value adjusted over all pairs that were tested there."""
    names = scores.names
    pairs = [paired(scores, a, b, n) for i, a in enumerate(names) for b in names[i + 1 :]]
    return list(zip(pairs, holm([pair.p for pair in pairs]), strict=True))


def comparable(scores: Scores) -> Scores:
    """The scores on the tasks that most points have in common; a point that lacks one of them has none.

    Means over different tasks cannot be compared: whoever lacks the hard ones looks better. Of the sets of tasks that
    points have, the one counts that leaves the most scores.
    """
    has = ~np.isnan(scores.macro_f1)
    given = has[has.any(axis=2)]  # (P, T)
    if not len(given):
        return scores
    left = [(int(given[:, tasks].all(axis=1).sum() * tasks.sum()), int(tasks.sum()), tasks) for tasks in given]
    *_, chosen = max(left, key=lambda one: one[:2])
    whole = has[:, :, chosen].all(axis=2, keepdims=True)
    names = ("error", "uncalibrated", "tokens", "seeds", "failed")
    return replace(
        scores,
        tasks=tuple(compress(scores.tasks, chosen)),
        macro_f1=np.where(whole, scores.macro_f1[:, :, chosen], np.nan),
        **{name: getattr(scores, name)[:, :, chosen] for name in names},
    )


def points(scores: Scores) -> list[Mean]:
    """Every series at every n of its own, once, where the tokens are known: the points of the figures.

    All are means over the same tasks, those of `comparable`.
    """
    known = [mean for mean in means(comparable(scores)) if mean.tasks and not np.isnan(mean.tokens)]
    return list({(mean.series, mean.n): mean for mean in known}.values())


def frontier(points: Sequence[Mean]) -> list[Mean]:
    """The points that no other beats in both macro-F1 and tokens, by rising tokens."""
    best: list[Mean] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.mean)):
        if not best or point.mean > best[-1].mean:
            best.append(point)
    return best


def best_within(points: Sequence[Mean], budget: float) -> Mean | None:
    """The point of highest macro-F1 among those of at most `budget` prompt tokens per query.

    Descriptive: it is chosen on the scores that it is reported with, so it flatters whoever has many points.
    """
    return max((p for p in points if p.tokens <= budget), key=lambda p: p.mean, default=None)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
