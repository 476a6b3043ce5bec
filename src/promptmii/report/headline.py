"""The top of the page: who wins, the tests that were planned, and what was run.

The method under test is compared with each baseline for which no model writes (in-context learning and the label
list), at one n that no score has chosen. p-values are adjusted (Holm) for all these comparisons together.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptmii.curves import VALIDATION, Curves
from promptmii.data.nameless import shown_name
from promptmii.errors import counted, listed
from promptmii.metrics import holm
from promptmii.records import Run
from promptmii.report.methods import Role, is_known, is_unwritten, planned_rivals, role, shows_examples, under_test
from promptmii.report.scores import Scope, Scores, Series, in_order, nearest_n, short_names
from promptmii.report.statistics import LEVEL, Mean, Paired, comparable, detectable, means, paired
from promptmii.report.tables import NOTHING, ReportTable, number, p_value, pair_row, prompt_length, span, with_interval

REVISION = 16
"""Characters of a model's revision."""
MANY = 8
"""Names that a fact lists in full."""


def facts(run: Run, cells: pd.DataFrame, folders: Iterable[object]) -> dict[str, str]:
    """The facts of what was run, by name."""
    live: Any = cells.loc[~cells["stale"], :]
    records = [run.records[key] for key in live["key"]]
    tasks = sorted({shown_name(task) for task in live["task"]})
    series = {Series(name, method, None) for name, method in zip(live["series"], live["method"], strict=True)}
    ns = sorted({int(n) for n in live["n"] if n})
    seeds = live.loc[live["n"] > 0, "seed"].nunique()
    drawn = "once" if seeds == 1 else f"{seeds} times (seeds)"
    rows = sorted({int(count) for count in live["rows"].dropna()})
    generators, followers, modes = ([*live[name].dropna().unique()] for name in ("generator", "follower", "mode"))
    # A model has several where weights changed under one name, or machines computed in different number formats.
    revisions = dict.fromkeys(
        f"{name} {revision[:REVISION]}" for record in records for name, revision in record.revisions.items()
    )
    done = int(live["macro_f1"].notna().sum())
    damaged = f", {counted(len(run.damaged), 'damaged line')}" if run.damaged else ""
    times = sorted(record.finished[:10] for record in records)
    told = {
        "Tasks": f"{len(tasks)}: {listed(tasks, MANY)}",
        "Methods": listed([one.name for one in sorted(series, key=in_order)], MANY),
        "Examples given": f"n = {', '.join(map(str, ns))}, drawn {drawn}" if ns else "none",
        "Rows labelled": f"{span([f'{count:,}' for count in rows])} per task" if rows else NOTHING,
        "Generators": listed(generators, MANY) or "none",
        "Followers": listed(followers, MANY),
        "Mode": listed(modes, MANY),
        # Records of earlier versions know neither of these two.
        "Machine": "; ".join(dict.fromkeys(record.machine for record in records if record.machine)),
        "Revisions": ", ".join(revisions),
        "Cells": f"{done:,} done, {len(live) - done:,} failed{damaged}",
        "Records": f"{', '.join(map(str, folders))}, finished {span(times)}",
    }
    return {name: text for name, text in told.items() if text}


class Claim(NamedTuple):
    """A planned comparison: the method under test minus a rival, over the tasks that both finished."""

    scope: Scope
    own: Mean
    rival: Mean
    pair: Paired
    p: float
    """Adjusted for all planned comparisons; NaN if there is no test."""
    detectable: float
    """The smallest true difference that this grid finds four times in five."""

    @property
    def clear(self) -> bool:
        """Interval and test both say that there is a difference."""
        return (self.pair.low > 0 or self.pair.high < 0) and self.p < LEVEL

    @property
    def name(self) -> str:
        """The rival's, with how much longer its prompts are if they hold the examples."""
        if not shows_examples(self.rival.series.method) or not (self.own.tokens > 0 and self.rival.tokens > 0):
            return self.rival.series.name
        return f"{self.rival.series.name} (whose prompts are {self.rival.tokens / self.own.tokens:.1f} times as long)"


def claims(by_scope: Sequence[Scores], n: int) -> list[Claim]:
    """Every planned comparison that was run."""
    sides: list[tuple[Scores, Mean, Mean, Paired]] = []
    for scores in by_scope:
        at_n = _at(scores, n)
        own = _under_test(at_n)
        rivals = [next((m for m in at_n if m.series.method == name), None) for name in planned_rivals()]
        for rival in rivals:
            if own and rival and rival != own:
                pair = paired(scores, own.series.name, rival.series.name, nearest_n(scores.ns, n))
                if pair.differences:
                    sides.append((scores, own, rival, pair))
    adjusted = holm([pair.p for *_, pair in sides])
    level = LEVEL / max(len(sides), 1)
    return [
        Claim(scores.scope, own, rival, pair, p, detectable(np.array([*pair.differences.values()]), level))
        for (scores, own, rival, pair), p in zip(sides, adjusted, strict=True)
    ]


def claim_table(found: Sequence[Claim]) -> ReportTable:
    """The planned comparisons with their tests."""
    data = [
        {"follower": c.scope.follower, "mode": c.scope.mode, "hidden": c.scope.hidden}
        | pair_row(c.pair, c.p)
        | {"detectable": c.detectable}
        for c in found
    ]
    shown = [
        {"comparison": f"{c.pair.a} − {c.pair.b}, n={c.pair.n}", "follower": f"{c.scope.name}, {c.scope.way}"}
        | {"difference": f"{_signed(c.pair.mean)} [{_signed(c.pair.low)}, {_signed(c.pair.high)}]"}
        | {"tasks": len(c.pair.differences), "wins / ties / losses": c.pair.record}
        | {"p, Holm": p_value(c.p, c.pair.reason), "smallest difference to find": number(c.detectable)}
        for c in found
    ]
    note = (
        "Difference in macro-F1 [95 % t interval over tasks]; Wilcoxon's signed-rank test over tasks, adjusted (Holm) "
        f"for all {len(found)} planned comparisons. The last column is the smallest true difference that this grid "
        "finds four times in five. It easily misses a smaller one, so a large p is no proof of equality."
    )
    return ReportTable("headline", "The planned comparisons", note, pd.DataFrame(data), pd.DataFrame(shown))


def winner(scores: Scores, n: int) -> str:
    """The method with the highest mean at n over the same tasks, whether or not it is under test."""
    ranked = sorted((m for m in _at(comparable(scores), n) if m.tasks), key=lambda m: -m.mean)
    if not ranked:
        return f"No method has a score at n={nearest_n(scores.ns, n)}."
    best = ranked[0]
    control = " No model writes an instruction for it." if is_unwritten(best.series.method) else ""
    if role(best.series.method) is Role.CONTROL:
        control = " It is a control, without the content that is to count."
    some = f" over {best.tasks} of {len(scores.tasks)} tasks" if best.tasks < len(scores.tasks) else ""
    return (
        f"{best.series.name} leads at n={nearest_n(scores.ns, n)} with a mean macro-F1 of {number(best.mean)}{some}, "
        f"at {prompt_length(best.tokens)}.{control}"
    )


def finding(scores: Scores, n: int, found: Sequence[Claim]) -> str:
    """How the method under test does at n, against its planned rivals; nothing if there are only rivals."""
    own = _under_test(_at(scores, n))
    if own is None:
        return ""
    if not own.tasks:
        return f"{own.series.name} has no score at n={nearest_n(scores.ns, n)}."
    sentence = f"With {own.n} examples" if own.n else "Without examples"
    missing = f" of {len(scores.tasks)}" if own.missing else ""
    sentence += (
        f", {own.series.name} scores {number(own.mean)} macro-F1 [{number(own.low)}, {number(own.high)}] at "
        f"{prompt_length(own.tokens)}, over {own.tasks}{missing} {'task' if own.tasks == 1 else 'tasks'}"
    )
    here = [claim for claim in found if claim.scope == scores.scope]
    told = [
        f"{abs(claim.pair.mean):.3f} {'more' if claim.pair.mean > 0 else 'less'} than {claim.name}"
        for claim in here
        if claim.clear
    ]
    if rest := " or ".join(claim.name for claim in here if not claim.clear):
        told.append(f"no clear difference from {rest}")
    return f"{sentence}: {', '.join(told)}." if told else f"{sentence}."


def unbeaten(scores: Scores, n: int) -> str:
    """The rivals and controls that score as much as the method under test at n, or more, on the tasks of both."""
    tested = _under_test(_at(scores, n))
    if tested is None:
        return ""
    own = tested.series
    names = {Role.RIVAL: "rivals that write no instruction", Role.CONTROL: "controls that lack its content"}
    told = [
        f"{name}: {', '.join(found)}"
        for kind, name in names.items()
        if (found := [*filter(None, (_as_good(scores, s, own, n) for s in scores.series if role(s.method) is kind))])
    ]
    return f"{own.name} does not beat {' and '.join(told)}." if told else ""


def _as_good(scores: Scores, rival: Series, own: Series, n: int) -> str:
    """The rival with both means if its mean is no lower, else nothing."""
    theirs, ours = (scores.at(series.name, nearest_n(scores.ns, n)) for series in (rival, own))
    both = ~np.isnan(theirs) & ~np.isnan(ours)
    if not both.any() or theirs[both].mean() < ours[both].mean():
        return ""
    return f"{rival.name} ({number(theirs[both].mean())} against {number(ours[both].mean())})"


def long_prompts(scores: Scores, n: int) -> str:
    """The score of in-context learning with the most examples: the poster's other headline."""
    own, most = _under_test(_at(scores, n)), max(scores.ns)
    if own is None:
        return ""
    longest = [m for m in means(scores) if shows_examples(m.series.method) and m.n == most > own.n and m.tasks]
    if not longest or shows_examples(own.series.method) or not (own.tokens > 0 and longest[0].tokens > 0):
        return ""
    icl = longest[0]
    return (
        f"With {icl.n} examples, {icl.series.name} scores {with_interval(icl)} "
        f"at {icl.tokens:,.0f} prompt tokens per query, {icl.tokens / own.tokens:.1f} times as many as "
        f"{own.series.name}."
    )


def _at(scores: Scores, n: int) -> list[Mean]:
    """Every series once, at this n."""
    return means(scores, nearest_n(scores.ns, n))


def tested(series: Sequence[Series]) -> Series | None:
    """The series under test: the first by the registry's order, else a user's own method; `None` if all are rivals."""
    preferred = [one for method in under_test() for one in series if one.method == method]
    return next(iter([*preferred, *(one for one in series if not is_known(one.method))]), None)


def _under_test(at_n: Sequence[Mean]) -> Mean | None:
    one = tested([mean.series for mean in at_n])
    return next((mean for mean in at_n if mean.series == one), None)


def _signed(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:+.3f}".replace("-", "−")


def progress(run: Curves) -> str:
    """A training run's validation reward: the first, the last, and the best, which that same validation chose."""
    curve = run.metrics.get(VALIDATION, {})
    steps = max((step for curve in run.metrics.values() for step in curve), default=0)
    if not curve:
        return f"{run.name}: {steps:,} steps, without a validation reward."
    first, best = min(curve), max(curve, key=lambda step: curve[step])
    return (
        f"{run.name}: validation reward {number(curve[first])} at step {first:,}, {number(curve[max(curve)])} at step "
        f"{max(curve):,}; the best of {len(curve)}, {number(curve[best])}, at step {best:,}."
    )


def title(cells: pd.DataFrame) -> str:
    """For the head of the page."""
    methods, tasks = len(set(cells["method"])), len(set(map(shown_name, cells["task"])))
    followers = ", ".join(short_names(cells["follower"]).values())
    return f"{counted(methods, 'method')} on {counted(tasks, 'task')}, read by {followers}"
