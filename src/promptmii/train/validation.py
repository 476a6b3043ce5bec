"""Validation: the instruction that users would get, on tasks of other sources, through the code that evaluates it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import nameless
from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.inducers import MetaInducer
from promptmii.models.base import LanguageModel
from promptmii.models.dynamic_batching import Batched
from promptmii.models.threads import parallel
from promptmii.scoring import score
from promptmii.task import Task
from promptmii.train.settings import ValidationSettings
from promptmii.train.visits import Prompting

THREADS = 32
"""Cases under way at once; a local generator writes for all of them in one batch."""
NO_VALIDATION = (
    "No task is left for validation, so no weights are called the best. Raise validation.share, or name tasks there."
)


@dataclass(frozen=True)
class Case:
    """A validation task, read from n examples."""

    task: Task
    n: int
    nameless: bool = False
    """The names of its labels are hidden."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: Case
    text: str
    macro_f1: float | None
    """`None` where a follower failed. An empty instruction is worth 0."""
    unparsed: float = 0.0
    tokens: int = 0


def cases(tasks: Sequence[Task], chosen: ValidationSettings) -> list[Case]:
    """Every task with every number of examples it has, and once more without names where the settings say so."""
    counts = chosen.n
    found = [Case(task, n) for task in tasks for n in counts if n <= len(task.train)]
    if chosen.nameless:
        found += [Case(nameless(task), n, nameless=True) for task in tasks for n in counts if n <= len(task.train)]
    return found


def validate(
    model: LanguageModel, prompting: Prompting, followers: Sequence[Follower], given: Sequence[Case], rows: int
) -> list[Outcome]:
    """Greedy instructions for the cases, scored by every follower; in the order of the cases."""
    writer = MetaInducer(prompting.writer(Batched(model)))

    def run(case: Case) -> Outcome:
        support = draw_support(case.task, case.n)
        try:
            instruction = writer.induce(support)
        except (ConfigError, EndpointError):  # it wrote nothing, or not one example fits its prompt
            return Outcome(case, "", 0.0)
        tokens = model.count_tokens([instruction.text])[0]
        query = draw_query(case.task, rows)
        try:
            found = [score(follower, follower.prepare(instruction, support), query) for follower in followers]
        except EndpointError:
            return Outcome(case, instruction.text, None, tokens=tokens)
        scores = [scored.macro_f1 for scored in found if scored.macro_f1 is not None]
        reached = fmean(scores) if len(scores) == len(found) else None
        return Outcome(case, instruction.text, reached, fmean(s.n_unparsed / s.n for s in found), tokens)

    found = dict(parallel(run, given, THREADS))
    return [found[position] for position in range(len(given))]


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The curves' values; without any scored case only the count of failed ones."""
    scored = [outcome for outcome in outcomes if outcome.macro_f1 is not None]
    line: dict[str, Any] = {"validation/failed": len(outcomes) - len(scored)}
    if scored:
        line |= {
            "validation/reward": fmean(outcome.macro_f1 or 0.0 for outcome in scored),
            "validation/unparsed": fmean(outcome.unparsed for outcome in scored),
            "validation/length": fmean(outcome.tokens for outcome in scored),
        }
        for n in sorted({outcome.case.n for outcome in scored}):
            line[f"validation/reward/n={n}"] = fmean(
                outcome.macro_f1 or 0.0 for outcome in scored if outcome.case.n == n
            )
        hidden = [outcome.macro_f1 or 0.0 for outcome in scored if outcome.case.nameless]
        if hidden:
            line["validation/reward/nameless"] = fmean(hidden)
    return line
