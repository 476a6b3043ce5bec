"""The top of the page: what was run, in facts, and what was found, in one sentence per follower that a sceptic can accept."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from promptmii.report.curves import VALIDATION, Run
from promptmii.report.grid import Grid
from promptmii.report.methods import baselines, shows_examples, under_test
from promptmii.report.statistics import Mean, Scores, Series, in_order, means, short_names
from promptmii.report.tables import NOTHING, Table, number, p_value

POSTER_N = 20
"""The number of examples that the poster's headline is about."""
LEVEL = 0.05
MANY = 8
"""Names that a fact lists in full."""


def chosen_n(ns: Iterable[int]) -> int:
    """The n at which the page opens: the poster's where it was run, else the middle one. Never chosen by score."""
    known = sorted(ns)
    return POSTER_N if POSTER_N in known else known[len(known) // 2]


def facts(grid: Grid, cells: pd.DataFrame, folders: Iterable[object]) -> list[tuple[str, str]]:
    """What was run, by name."""
    live: Any = cells.loc[~cells["stale"], :]
    done, given = int(live["macro_f1"].notna().sum()), len(live)
    rows = sorted({int(count) for count in live["rows"].dropna()})
    ns = sorted({int(n) for n in live["n"] if n})
    seeds = len(set(live.loc[live["n"] > 0, "seed"]))
    times = sorted(str(time)[:10] for time in live["finished"])
    return [
        ("Tasks", f"{live['task'].nunique()}: {_names(sorted(set(live['task'])))}"),
        ("Methods", _names(series.name for series in sorted(_series(live), key=in_order))),
        ("Examples given", f"n = {', '.join(map(str, ns))}, drawn {_times(seeds)}" if ns else "none"),
        ("Rows labelled", f"{_range(rows)} per task" if rows else NOTHING),
        ("Generators", _names(dict.fromkeys(live["generator"].dropna())) or "none"),
        ("Followers", _names(dict.fromkeys(live["follower"]))),
        ("Mode", _names(dict.fromkeys(live["mode"]))),
        (
            "Cells",
            f"{done:,} done, {given - done:,} failed"
            + (f", {len(grid.damaged):,} damaged lines" if grid.damaged else ""),
        ),
        ("Records", f"{', '.join(map(str, folders))}, finished {' to '.join(dict.fromkeys([times[0], times[-1]]))}"),
    ]


def _series(live: pd.DataFrame) -> set[Series]:
    return {Series(name, method, None) for name, method in zip(live["series"], live["method"], strict=True)}


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MANY} more" if len(listed) > MANY + 1 else ""
    return ", ".join(listed[:MANY] if more else listed) + more


def _times(seeds: int) -> str:
    return "once" if seeds == 1 else f"{seeds} times (seeds)"


def _range(numbers: Sequence[int]) -> str:
    return " to ".join(f"{x:,}" for x in dict.fromkeys([numbers[0], numbers[-1]]))


class Finding(NamedTuple):
    """What is said about one follower: a sentence, and the numbers behind it."""

    sentence: str
    evidence: str


def finding(scores: Scores, n: int, tests: Table | None) -> Finding:
    """How the method under test does at n examples, against its rivals. `tests` is the pair table of that n."""
    found = means(scores)
    at_n = {mean.series: mean for mean in found if mean.n in (0, n)}
    hero = next((s for method in under_test() for s in scores.series if s.method == method), scores.series[0])
    own = at_n[hero]
    if not own.tasks:
        return Finding(f"{hero.name} has no score at n={n}.", "")
    rivals = [next((s for s in scores.series if s.method == method and s != hero), None) for method in baselines()]
    pairs = [_Pair.of(tests.data, own, at_n[rival]) for rival in rivals if rival and tests]
    told = [pair for pair in pairs if pair.tasks]
    sentence = f"With {own.n} examples" if own.n else "Without examples"
    sentence += f", {hero.name} scores {number(own.mean)} macro-F1 [{number(own.low)}, {number(own.high)}] over "
    sentence += f"{own.tasks}{f' of {len(scores.tasks)}' if own.missing else ''} {'task' if own.tasks == 1 else 'tasks'}{_claims(told)}."
    long = _long_icl(found, own, max(scores.ns))
    evidence = [f"Paired differences at n={n}: {'; '.join(pair.evidence for pair in told)}."] if told else []
    return Finding(sentence, " ".join([*evidence, *([long] if long else [])]))


class _Pair(NamedTuple):
    """The method under test minus a rival, over the tasks that both finished."""

    own: Mean
    rival: Mean
    difference: float
    low: float
    high: float
    tasks: int
    p: float
    """Adjusted; NaN with a reason."""
    reason: str

    @classmethod
    def of(cls, pairs: pd.DataFrame, own: Mean, rival: Mean) -> "_Pair":
        names = [own.series.name, rival.series.name]
        found: Any = pairs.loc[pairs["a"].isin(names) & pairs["b"].isin(names), :].iloc[0]
        sign = 1 if found["a"] == names[0] else -1
        low, high = sorted((sign * found["low"], sign * found["high"]))
        return cls(
            own,
            rival,
            sign * found["difference"],
            low,
            high,
            int(found["matched_tasks"]),
            found["p_holm"],
            found["reason"],
        )

    @property
    def clear(self) -> bool:
        """Interval and test both say that there is a difference."""
        return (self.low > 0 or self.high < 0) and self.p < LEVEL

    @property
    def name(self) -> str:
        """The rival's, with how much longer its prompts are where they hold the examples."""
        if not shows_examples(self.rival.series.method) or not self.own.tokens:
            return self.rival.series.name
        return f"{self.rival.series.name} (whose prompts are {self.rival.tokens / self.own.tokens:.1f} times as long)"

    @property
    def evidence(self) -> str:
        p = f"not tested: {self.reason}" if pd.isna(self.p) else f"p {_equals(p_value(self.p))}"
        return f"{self.rival.series.name} {_signed(self.difference)} [{_signed(self.low)}, {_signed(self.high)}], {self.tasks} tasks, {p}"


def _claims(pairs: Sequence[_Pair]) -> str:
    clear = [
        f"{abs(pair.difference):.3f} {'more' if pair.difference > 0 else 'less'} than {pair.name}"
        for pair in pairs
        if pair.clear
    ]
    rest = " or ".join(pair.name for pair in pairs if not pair.clear)
    told = [*clear, *([f"no clear difference from {rest}"] if rest else [])]
    return f": {', '.join(told)}" if told else ""


def _equals(p: str) -> str:
    return p.replace("<", "< ") if p.startswith("<") else f"= {p}"


def _signed(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:+.3f}".replace("-", "−")


def _long_icl(found: Sequence[Mean], own: Mean, most: int) -> str:
    """What in-context learning reaches with the most examples: the poster's other headline."""
    longest = [mean for mean in found if shows_examples(mean.series.method) and mean.n == most > own.n and mean.tasks]
    if not longest or shows_examples(own.series.method) or not own.tokens:
        return ""
    icl = longest[0]
    return (
        f"With {icl.n} examples, {icl.series.name} scores {number(icl.mean)} [{number(icl.low)}, {number(icl.high)}] at {icl.tokens:,.0f} "
        f"prompt tokens per query, {icl.tokens / own.tokens:.1f} times the {own.tokens:,.0f} of {own.series.name}."
    )


def progress(run: Run) -> str:
    """What a training run's validation says; its best value was chosen by that same validation, and is said to be."""
    curve = run.metrics.get(VALIDATION, {})
    steps = max((step for curve in run.metrics.values() for step in curve), default=0)
    if not curve:
        return f"{run.name}: {steps:,} steps, without a validation."
    first, best = min(curve), max(curve, key=lambda step: curve[step])
    return (
        f"{run.name}: validation reward {number(curve[first])} at step {first:,}, {number(curve[max(curve)])} at step {max(curve):,}; "
        f"the best of {len(curve)}, {number(curve[best])}, at step {best:,}."
    )


def title(cells: pd.DataFrame) -> str:
    """For the head of the page."""
    methods, tasks = len(set(cells["method"])), len(set(cells["task"]))
    followers = ", ".join(short_names(cells["follower"]).values())
    return f"{_counted(methods, 'method')} on {_counted(tasks, 'task')}, read by {followers}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
