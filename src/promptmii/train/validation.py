"""Validation: the instruction that users would get, on tasks of other sources, through the code that evaluates it."""

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
from promptmii.models.base import Chat, Completion, Failure, LanguageModel, Sampling
from promptmii.models.threads import parallel
from promptmii.scoring import score
from promptmii.task import Task, content_key
from promptmii.train.settings import ValidationSettings

THREADS = 32
"""Cases that are judged at once."""
NO_VALIDATION = (
    "No task is left for validation, so nothing decides which weights are best. Raise validation.share, or name tasks."
)


@dataclass(frozen=True)
class Case:
    """A validation task, read from n examples."""

    task: Task
    n: int
    nameless: bool = False
    """The names of its labels are hidden."""


class Written(NamedTuple):
    """A case and the instruction for it."""

    case: Case
    instruction: Instruction | None
    """`None` where there is none."""
    tokens: int = 0


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
    named = [Case(task, n) for task in tasks for n in chosen.n if n <= len(task.train)]
    hidden = [Case(nameless(one.task), one.n, nameless=True) for one in named] if chosen.nameless else []
    return [*named, *hidden]


class _UnansweredError(Exception):
    """The model has yet to be asked."""


class _Answers:
    """A model as an inducer sees it that repeats what was answered, and collects what was not."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._known: dict[str, Completion | Failure] = {}
        self._asked: dict[str, tuple[Chat, Sampling]] = {}
        self.card = replace(model.card, contrasts=False)  # the cases of a batch share one sampling
        self.count_tokens, self.choose, self.close = model.count_tokens, model.choose, model.close

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        keys = [content_key(list(chat)) for chat in chats]
        new = {key: (chat, sampling) for key, chat in zip(keys, chats, strict=True) if key not in self._known}
        if new:
            self._asked |= new
            raise _UnansweredError
        return [self._known[key] for key in keys]

    def ask(self) -> bool:
        """Have the collected chats answered in one batch; whether there were any."""
        asked, self._asked = self._asked, {}
        if asked:
            chats, (sampling, *_) = [chat for chat, _ in asked.values()], [one for _, one in asked.values()]
            self._known |= zip(asked, self._model.generate(chats, sampling), strict=True)
        return bool(asked)


def write(writer: Writer, given: Sequence[Case]) -> list[Written]:
    """A greedy instruction for each case, in the same few batches in every process that is given the same cases."""
    answers = _Answers(writer.model)
    inducer = MetaInducer(writer.using(answers))
    while True:
        written = [_attempt(inducer, case) for case in given]
        if not answers.ask():
            return written


def _attempt(inducer: MetaInducer, case: Case) -> Written:
    try:
        instruction = inducer.induce(draw_support(case.task, case.n))
    except (_UnansweredError, ConfigError, EndpointError):  # not yet; not one example fits its prompt; it wrote nothing
        return Written(case, None)
    return Written(case, instruction, inducer.writer.model.count_tokens([instruction.text])[0])


def judge(given: Sequence[Written], followers: Sequence[Follower], rows: int) -> list[Outcome]:
    """What the instructions are worth to every follower, in their order."""

    def run(one: Written) -> Outcome:
        case, instruction, tokens = one
        if instruction is None:
            return Outcome(case, "", 0.0)
        support, query = draw_support(case.task, case.n), draw_query(case.task, rows)
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
    line: dict[str, float] = {"validation/failed": len(outcomes) - len(scored)}
    if not scored:
        return line
    parts = {f"/n={n}": [one for one in scored if one.case.n == n] for n in sorted({one.case.n for one in scored})}
    parts |= {"": scored, "/nameless": [one for one in scored if one.case.nameless]}
    for name, part in parts.items():
        if part:
            line[f"{VALIDATION}{name}"] = fmean(one.macro_f1 or 0.0 for one in part)
    line["validation/unparsed"] = fmean(one.unparsed for one in scored)
    line["validation/length"] = fmean(one.tokens for one in scored)
    return line
