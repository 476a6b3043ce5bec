"""Validation on tasks from other sources, with the same code that writes and evaluates instructions for users."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

from promptmii.data import draw_query, draw_support
from promptmii.data.nameless import is_nameless, nameless
from promptmii.errors import ConfigError, EndpointError, SpendingLimitError
from promptmii.follower import Follower
from promptmii.inducers import MetaInducer, Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Chat, Completion, Failure, LanguageModel, ModelCard, Sampling
from promptmii.models.threads import parallel
from promptmii.models.wrappers import Wrapper
from promptmii.scoring import score
from promptmii.task import Task, content_key
from promptmii.train.run_folder import VALIDATION
from promptmii.train.settings import ValidationSettings

THREADS = 32
"""Cases judged concurrently."""
NO_VALIDATION = (
    "No task is left for validation, so the run leaves checkpoints, but no best/. Name some in validation.tasks, and "
    "give tasks of at least two sources, because a source is never on both sides."
)


@dataclass(frozen=True)
class Case:
    """A validation task with n examples."""

    task: Task
    n: int


class Written(NamedTuple):
    """A case and its instruction."""

    case: Case
    instruction: Instruction | None
    """None if the generator failed to write one."""
    tokens: int = 0


@dataclass(frozen=True)
class Outcome:
    """The score of a case."""

    case: Case
    text: str
    macro_f1: float | None
    """None if a follower failed or the spending limit was reached; 0 without an instruction."""
    unparsed: float = 0.0
    tokens: int = 0
    failure: str = ""
    """The error that left the case without a score."""


def cases(tasks: Sequence[Task], settings: ValidationSettings) -> list[Case]:
    """Each task with every `n` that it has rows for; if `nameless` is set, also with hidden label names."""
    named = [Case(task, n) for task in tasks for n in settings.n if n <= len(task.train)]
    hidden = [Case(nameless(case.task), case.n) for case in named] if settings.nameless else []
    return [*named, *hidden]


class _PendingError(Exception):
    """The answer is not available yet."""


class _BatchedModel(Wrapper):
    """Batches the chats of all cases.

    `generate` returns stored answers. New chats raise `_PendingError` and wait for `answer_pending`.
    """

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
        """Answer the collected chats in one batch per sampling. Returns False if there are none."""
        pending, self._pending = self._pending, {}
        for sampling in dict.fromkeys(sampling for _, sampling in pending.values()):
            chats = {key: chat for key, (chat, own) in pending.items() if own == sampling}
            self._answers |= zip(chats, self._model.generate(list(chats.values()), sampling), strict=True)
        return bool(pending)


def write(writer: Writer, cases: Sequence[Case]) -> list[Written]:
    """Write a greedy instruction for each case. Processes with the same cases send the model the same few batches."""
    model = _BatchedModel(writer.model)
    inducer = MetaInducer(replace(writer, model=model))
    while True:
        written = [_attempt(inducer, case) for case in cases]
        if not model.answer_pending():
            return written


def _attempt(inducer: MetaInducer, case: Case) -> Written:
    try:
        instruction = inducer.induce(draw_support(case.task, case.n))
    except (_PendingError, ConfigError, EndpointError):  # or no example fits the prompt, or the model wrote nothing
        return Written(case, None)
    return Written(case, instruction, inducer.writer.model.count_tokens([instruction.text])[0])


def judge(written: Sequence[Written], followers: Sequence[Follower], rows: int) -> list[Outcome]:
    """Score each instruction with every follower, in order."""

    def judge_case(item: Written) -> Outcome:
        case, instruction, tokens = item
        if instruction is None:
            return Outcome(case, "", 0.0)
        support, query = draw_support(case.task, case.n), draw_query(case.task, rows)
        try:
            results = [score(follower, follower.prepare(instruction, support), query) for follower in followers]
        except (EndpointError, SpendingLimitError) as error:  # the next rollout stops at the limit, with a checkpoint
            return Outcome(case, instruction.text, None, tokens=tokens, failure=str(error))
        scores = [result.macro_f1 for result in results if result.macro_f1 is not None]
        mean = fmean(scores) if len(scores) == len(results) else None
        unparsed = fmean(result.n_unparsed / result.n for result in results)
        return Outcome(case, instruction.text, mean, unparsed, tokens)

    return [outcome for _, outcome in sorted(parallel(judge_case, written, THREADS), key=itemgetter(0))]


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Values for the curves. If no case has a score, this is only the share of failed cases."""
    scored = [outcome for outcome in outcomes if outcome.macro_f1 is not None]
    values = {"validation/failed": fmean(outcome.macro_f1 is None for outcome in outcomes)}
    if not scored:
        return values
    subsets = {
        f"/n={n}": [outcome for outcome in scored if outcome.case.n == n]
        for n in sorted({outcome.case.n for outcome in scored})
    }
    subsets |= {"": scored, "/nameless": [outcome for outcome in scored if is_nameless(outcome.case.task.name)]}
    for suffix, subset in subsets.items():
        if subset:
            values[f"{VALIDATION}{suffix}"] = fmean(outcome.macro_f1 or 0.0 for outcome in subset)
    values["validation/unparsed"] = fmean(outcome.unparsed for outcome in scored)
    values["validation/length"] = fmean(outcome.tokens for outcome in scored)
    return values
