"""Validation on tasks of other sources, with the code that writes and evaluates instructions for users."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from promptmii.curves import VALIDATION
from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import nameless
from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.inducers import MetaInducer, Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Chat, Completion, Failure, LanguageModel, ModelCard, Sampling
from promptmii.models.threads import parallel
from promptmii.models.wrappers import Wrapper
from promptmii.scoring import score
from promptmii.task import Task, content_key
from promptmii.train.settings import ValidationSettings

THREADS = 32
"""Cases judged at once."""
NO_VALIDATION = (
    "No task is left for validation, so the best weights are unknown. Raise validation.share, or name validation.tasks."
)


@dataclass(frozen=True)
class Case:
    """A validation task with n examples."""

    task: Task
    n: int
    nameless: bool = False
    """Label names are hidden."""


class Written(NamedTuple):
    """A case and its instruction."""

    case: Case
    instruction: Instruction | None
    """None if the generator wrote none."""
    tokens: int = 0


@dataclass(frozen=True)
class Outcome:
    """The score of a case."""

    case: Case
    text: str
    macro_f1: float | None
    """None if a follower failed; 0 without an instruction."""
    unparsed: float = 0.0
    tokens: int = 0


def cases(tasks: Sequence[Task], chosen: ValidationSettings) -> list[Case]:
    """Every task with each number of examples that it has enough rows for, and again without names if chosen."""
    named = [Case(task, n) for task in tasks for n in chosen.n if n <= len(task.train)]
    hidden = [Case(nameless(case.task), case.n, nameless=True) for case in named] if chosen.nameless else []
    return [*named, *hidden]


class _PendingError(Exception):
    """The answer is not there yet."""


class _BatchedModel(Wrapper):
    """A model that collects unanswered chats, to batch them over all cases, and repeats the answers it has."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self._answers: dict[str, Completion | Failure] = {}
        self._pending: dict[str, tuple[Chat, Sampling]] = {}

    @property
    def card(self) -> ModelCard:
        return replace(self._model.card, contrasts=False)  # no two cases could share a batch

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        keys = [content_key(list(chat)) for chat in chats]
        new = {key: (chat, sampling) for key, chat in zip(keys, chats, strict=True) if key not in self._answers}
        if new:
            self._pending |= new
            raise _PendingError
        return [self._answers[key] for key in keys]

    def answer_pending(self) -> bool:
        """Have the collected chats answered, one batch per sampling; False if there are none."""
        pending, self._pending = self._pending, {}
        for sampling in dict.fromkeys(sampling for _, sampling in pending.values()):
            chats = {key: chat for key, (chat, own) in pending.items() if own == sampling}
            self._answers |= zip(chats, self._model.generate(list(chats.values()), sampling), strict=True)
        return bool(pending)


def write(writer: Writer, cases: Sequence[Case]) -> list[Written]:
    """A greedy instruction for each case, in the same few batches in every process with the same cases."""
    model = _BatchedModel(writer.model)
    inducer = MetaInducer(writer.with_model(model))
    while True:
        written = [_attempt(inducer, case) for case in cases]
        if not model.answer_pending():
            return written


def _attempt(inducer: MetaInducer, case: Case) -> Written:
    try:
        instruction = inducer.induce(draw_support(case.task, case.n))
    except (_PendingError, ConfigError, EndpointError):  # the latter two: no example fits, or it wrote nothing
        return Written(case, None)
    return Written(case, instruction, inducer.writer.model.count_tokens([instruction.text])[0])


def judge(written: Sequence[Written], followers: Sequence[Follower], rows: int) -> list[Outcome]:
    """Score each instruction with every follower, in order."""

    def run(item: Written) -> Outcome:
        case, instruction, tokens = item
        if instruction is None:
            return Outcome(case, "", 0.0)
        support, query = draw_support(case.task, case.n), draw_query(case.task, rows)
        try:
            results = [score(follower, follower.prepare(instruction, support), query) for follower in followers]
        except EndpointError:
            return Outcome(case, instruction.text, None, tokens=tokens)
        scores = [result.macro_f1 for result in results if result.macro_f1 is not None]
        mean = fmean(scores) if len(scores) == len(results) else None
        return Outcome(case, instruction.text, mean, fmean(r.n_unparsed / r.n for r in results), tokens)

    outcomes = dict(parallel(run, written, THREADS))
    return [outcomes[position] for position in range(len(written))]


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Values for the curves; only the number of failed cases if none has a score."""
    scored = [outcome for outcome in outcomes if outcome.macro_f1 is not None]
    values: dict[str, float] = {"validation/failed": len(outcomes) - len(scored)}
    if not scored:
        return values
    parts = {f"/n={n}": [o for o in scored if o.case.n == n] for n in sorted({o.case.n for o in scored})}
    parts |= {"": scored, "/nameless": [outcome for outcome in scored if outcome.case.nameless]}
    for name, part in parts.items():
        if part:
            values[f"{VALIDATION}{name}"] = fmean(outcome.macro_f1 or 0.0 for outcome in part)
    values["validation/unparsed"] = fmean(outcome.unparsed for outcome in scored)
    values["validation/length"] = fmean(outcome.tokens for outcome in scored)
    return values
