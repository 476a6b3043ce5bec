"""The top of the page: the winner, the planned tests, and the facts of the run.

The method under test is compared with each baseline for which no model writes (in-context learning and the label
list), at one n chosen without looking at scores. p-values are adjusted (Holm) for all these comparisons together.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from promptmii.data.nameless import shown_name
from promptmii.messages import counted, listed
from promptmii.metrics import ALPHA, holm
from promptmii.records import Run
from promptmii.report.methods import Role, is_known, is_unwritten, planned_rivals, role, shows_examples, under_test
from promptmii.report.scores import Scope, Scores, Series, in_order, short_names
from promptmii.report.statistics import Mean, Paired, detectable, means, paired, shared_means
from promptmii.report.tables import NOTHING, ReportTable, number, p_value, pair_row, prompt_length, span, with_interval
from promptmii.train.run_folder import VALIDATION, Curves

LISTED_NAMES = 8
"""Names that a fact lists; more are counted."""
DIGITS = 3
"""Decimals of the leader's score. Methods tie if these are equal."""


def facts(run: Run, cells: pd.DataFrame, folders: Iterable[object]) -> dict[str, str]:
    """The facts of the run, by name."""
    live: Any = cells.loc[~cells["stale"], :]
    records = [run.records[key] for key in live["key"]]
    tasks = sorted({shown_name(task) for task in live["task"]})
    series = {Series(name, method, None) for name, method in zip(live["series"], live["method"], strict=True)}
    ns = sorted({int(n) for n in live["n"] if n})
    seeds = live.loc[live["n"] > 0, "seed"].nunique()
    draws = "once" if seeds == 1 else f"{seeds} times (seeds)"
    rows = sorted({int(count) for count in live["rows"].dropna()})
    generators, followers, modes = ([*live[name].dropna().unique()] for name in ("generator", "follower", "mode"))
    # A model has several if its weights changed under one name, or if machines used different number formats.
    revisions = dict.fromkeys(f"{name} {revision}" for record in records for name, revision in record.revisions.items())
    done = int(live["macro_f1"].notna().sum())
    damaged = f", {counted(len(run.damaged), 'damaged line')}" if run.damaged else ""
    dates = sorted(record.finished[:10] for record in records)
    texts = {
        "Tasks": f"{len(tasks)}: {listed(tasks, LISTED_NAMES)}",
        "Methods": listed([name for name, *_ in sorted(series, key=in_order)], LISTED_NAMES),
        "Examples given": f"n = {', '.join(map(str, ns))}, drawn {draws}" if ns else "none",
        "Rows labelled": f"{span([f'{count:,}' for count in rows])} per task" if rows else NOTHING,
        "Generators": listed(generators, LISTED_NAMES) or "none",
        "Followers": listed(followers, LISTED_NAMES),
        "Mode": listed(modes, LISTED_NAMES),
        # Records of earlier versions have neither of the next two.
        "Machine": "; ".join(dict.fromkeys(record.machine for record in records if record.machine)),
        "Revisions": ", ".join(revisions),
        "Cells": f"{done:,} done, {len(live) - done:,} failed{damaged}",
        "Records": f"{', '.join(map(str, folders))}, finished {span(dates)}",
    }
    return {name: text for name, text in texts.items() if text}


class Claim(NamedTuple):
    """A planned comparison: the method under test minus a rival, over the tasks that both finished."""

    scope: Scope
    tested: Mean
    rival: Mean
    pair: Paired
    p: float
    """Adjusted for all planned comparisons; NaN if there is no test."""
    detectable: float
    """The smallest true difference that this grid finds four times in five."""

    @property
    def clear(self) -> bool:
        """Both the interval and the test show a difference."""
        return (self.pair.low > 0 or self.pair.high < 0) and self.p < ALPHA

    @property
    def name(self) -> str:
        """The rival's name, and the relative length of its prompts if they hold the examples."""
        if not shows_examples(self.rival.series.method) or not (self.tested.tokens > 0 and self.rival.tokens > 0):
            return self.rival.series.name
        return (
            f"{self.rival.series.name} (whose prompts are {self.rival.tokens / self.tested.tokens:.1f} times as long)"
        )


def claims(scopes: Iterable[tuple[Scores, int]]) -> list[Claim]:
    """The planned comparisons of each scope, at its n, for which both methods share a task."""
    comparisons: list[tuple[Scope, Mean, Mean, Paired]] = []
    for scores, n in scopes:
        tested = _under_test(scores, n)
        by_method = {mean.series.method: mean for mean in reversed(means(scores, n))}  # the first of each method
        for rival in filter(None, map(by_method.get, planned_rivals())):
            if tested and rival.series != tested.series:
                pair = paired(scores, tested.series.name, rival.series.name, n)
                if pair.differences:
                    comparisons.append((scores.scope, tested, rival, pair))
    adjusted = holm([pair.p for *_, pair in comparisons])
    level = ALPHA / max(len(comparisons), 1)
    return [
        Claim(scope, tested, rival, pair, p, detectable(np.array([*pair.differences.values()]), level))
        for (scope, tested, rival, pair), p in zip(comparisons, adjusted, strict=True)
    ]


def claim_table(planned: Sequence[Claim]) -> ReportTable:
    """The planned comparisons with their tests."""
    data = [
        {"follower": c.scope.follower, "mode": c.scope.mode, "hidden": c.scope.hidden}
        | pair_row(c.pair, c.p)
        | {"detectable": c.detectable}
        for c in planned
    ]
    shown = [
        {"comparison": f"{c.pair.a} − {c.pair.b}, n={c.pair.n}", "follower": f"{c.scope.name}, {c.scope.way}"}
        | {"difference": f"{_signed(c.pair.mean)} [{_signed(c.pair.low)}, {_signed(c.pair.high)}]"}
        | {"tasks": len(c.pair.differences), "wins / ties / losses": c.pair.record}
        | {"p, Holm": p_value(c.p, c.pair.reason), "smallest difference to find": number(c.detectable)}
        for c in planned
    ]
    tested = sum(not np.isnan(c.p) for c in planned)
    which = "planned comparisons" if tested == len(planned) else f"of the {len(planned)} that have a test"
    adjusted = f"adjusted (Holm) for all {tested} {which}" if tested else "for which there are too few"
    note = (
        "Difference in macro-F1 [95 % t interval over tasks]; Wilcoxon's signed-rank test over tasks, "
        f"{adjusted}. The last column is the smallest true difference that this grid "
        "finds four times in five. It can easily miss a smaller one, so a large p does not prove equality."
    )
    return ReportTable("headline", "The planned comparisons", note, pd.DataFrame(data), pd.DataFrame(shown))


def winner(scores: Scores, n: int) -> str:
    """A sentence on the methods with the highest mean at n over shared tasks, under test or not.

    Those with the same rounded mean tie, the shortest prompts first. A lead whose interval includes 0 is within noise.
    """
    ranked = sorted(shared_means(scores, n), key=lambda mean: (-round(mean.mean, DIGITS), mean.tokens))
    if not ranked:
        return f"No method has a score at n={n}."
    best, *others = ranked
    name, score = best.series.name, number(best.mean, DIGITS)
    tied = [mean.series.name for mean in others if number(mean.mean, DIGITS) == score]
    behind = [paired(scores, name, mean.series.name, n) for mean in others[len(tied) :]]
    close = [pair.b for pair in behind if pair.low <= 0 <= pair.high]
    it = name if tied else "It"
    caveat = f" {it} needs no instruction from a model." if is_unwritten(best.series.method) else ""
    if role(best.series.method) is Role.CONTROL:
        caveat = f" {it} is a control: it lacks the content that is meant to help."
    part = f" over {best.tasks} of {len(scores.tasks)} tasks" if best.tasks < len(scores.tasks) else ""
    return (
        f"{listed([name, *tied], LISTED_NAMES)} {'tie' if tied else 'leads'} at n={n} with a mean macro-F1 of "
        f"{score}{part}, at {prompt_length(best.tokens)}{f' for {name}' if tied else ''}"
        f"{f', within noise of {listed(close, LISTED_NAMES)}' if close else ''}.{caveat}"
    )


def finding(scores: Scores, n: int, planned: Sequence[Claim]) -> str:
    """A sentence on the method under test at n against its planned rivals, or `""` if no method is under test."""
    tested = _under_test(scores, n)
    if tested is None:
        return ""
    if not tested.tasks:
        return f"{tested.series.name} has no score at n={n}."
    sentence = f"With {tested.n} examples" if tested.n else "Without examples"
    score = f"{number(tested.mean)} macro-F1 [{number(tested.low)}, {number(tested.high)}]"
    total = f" of {len(scores.tasks)}" if tested.missing else ""
    tasks = f"{tested.tasks}{total} {'task' if tested.tasks == 1 else 'tasks'}"
    sentence += f", {tested.series.name} scores {score} at {prompt_length(tested.tokens)}, over {tasks}"
    in_scope = [claim for claim in planned if claim.scope == scores.scope]
    results = [
        f"{abs(claim.pair.mean):.3f} {'more' if claim.pair.mean > 0 else 'less'} than {claim.name}"
        for claim in in_scope
        if claim.clear
    ]
    unclear = [claim.name for claim in in_scope if not claim.clear]
    if unclear:
        results.append(f"no clear difference from {' or '.join(unclear)}")
    return f"{sentence}: {', '.join(results)}." if results else f"{sentence}."


def unbeaten(scores: Scores, n: int) -> str:
    """A sentence on the rivals and controls that the method under test does not beat at n on shared tasks, or `""`."""
    tested = _under_test(scores, n)
    if tested is None:
        return ""
    groups = {Role.RIVAL: "rivals that write no instruction", Role.CONTROL: "controls that lack its content"}
    parts: list[str] = []
    for group, title in groups.items():
        rivals = [series for series in scores.series if role(series.method) is group]
        texts = [text for rival in rivals if (text := _if_as_good(scores, rival, tested.series, n))]
        if texts:
            parts.append(f"{title}: {', '.join(texts)}")
    return f"{tested.series.name} does not beat {' and '.join(parts)}." if parts else ""


def _if_as_good(scores: Scores, rival: Series, tested: Series, n: int) -> str:
    """The rival with both means over shared tasks, or `""` if its mean is lower."""
    rival_scores, tested_scores = (scores.at(series.name, n) for series in (rival, tested))
    shared = ~np.isnan(rival_scores) & ~np.isnan(tested_scores)
    if not shared.any():
        return ""
    rival_mean, tested_mean = rival_scores[shared].mean(), tested_scores[shared].mean()
    if rival_mean < tested_mean:
        return ""
    return f"{rival.name} ({number(rival_mean)} against {number(tested_mean)})"


def long_prompts(scores: Scores, n: int) -> str:
    """A sentence on in-context learning with the most examples, or `""`."""
    tested, most = _under_test(scores, n), max(scores.ns)
    if tested is None or shows_examples(tested.series.method) or tested.n >= most:
        return ""
    at_most = [mean for mean in means(scores, most) if mean.n == most and mean.tasks]
    icl = next((mean for mean in at_most if shows_examples(mean.series.method)), None)
    if icl is None or not (tested.tokens > 0 and icl.tokens > 0):
        return ""
    return (
        f"With {icl.n} examples, {icl.series.name} scores {with_interval(icl)} "
        f"at {icl.tokens:,.0f} prompt tokens per query, {icl.tokens / tested.tokens:.1f} times as many as "
        f"{tested.series.name}."
    )


def series_under_test(series: Sequence[Series]) -> Series | None:
    """The series under test: the first by `under_test`, else a user's own method, else None."""
    candidates = [entry for method in under_test() for entry in series if entry.method == method]
    candidates += [entry for entry in series if not is_known(entry.method)]
    return candidates[0] if candidates else None


def _under_test(scores: Scores, n: int) -> Mean | None:
    series = series_under_test(scores.series)
    return next((mean for mean in means(scores, n) if mean.series == series), None)


def _signed(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:+.3f}".replace("-", "−")


def progress(run: Curves) -> str:
    """A sentence on a training run's first, last and best validation reward. The best is chosen on that same reward."""
    curve = run.metrics.get(VALIDATION, {})
    steps = max((step for metric in run.metrics.values() for step in metric), default=0)
    if not curve:
        return f"{run.name}: {steps:,} steps, without a validation reward."
    first, best = min(curve), max(curve, key=lambda step: curve[step])
    return (
        f"{run.name}: validation reward {number(curve[first])} at step {first:,}, {number(curve[max(curve)])} at step "
        f"{max(curve):,}; the best of {len(curve)}, {number(curve[best])}, at step {best:,}."
    )


def title(cells: pd.DataFrame) -> str:
    """The title of the page."""
    cells = cells.loc[~cells["stale"], :]
    methods, tasks = len(set(cells["method"])), len(set(map(shown_name, cells["task"])))
    followers = ", ".join(short_names(cells["follower"]).values())
    return f"{counted(methods, 'method')} on {counted(tasks, 'task')}, labelled by {followers}"
