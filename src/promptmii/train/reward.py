"""The reward: how well frozen followers label rows that the writer never saw. It uses the one scorer, a batch a step.

Equal instructions of one visit are scored once. A follower that fails gives no reward (`None`, which leaves the draft
out of its group), never a zero: a dead server must not teach anything.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from promptmii.errors import EndpointError
from promptmii.follower import Follower
from promptmii.inducers.writing import copied_runs
from promptmii.instruction import Instruction
from promptmii.models.base import FailureKind
from promptmii.models.threads import parallel
from promptmii.progress import QUIET, Progress
from promptmii.scoring import Scored, score_each
from promptmii.styles import Style
from promptmii.task import Episode
from promptmii.train.measures import measured
from promptmii.train.settings import RewardSettings

PASSING = (FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER)
"""Failures that may be over after a while."""
TOGETHER = 16
"""Instructions under way for a model that takes one call at a time: it answers for all of them in one batch."""
PAUSE = 5.0
"""Seconds between two attempts at a follower that fails."""


@dataclass(frozen=True)
class Draft:
    """An instruction as it was written."""

    episode: Episode
    text: str
    tokens: int
    unfinished: bool = False
    """It ran into its limit."""


@dataclass(frozen=True)
class Judged:
    """What a draft is worth."""

    reward: float | None
    """`None` where a follower failed."""
    score: float | None
    """The measure alone, mean of the followers."""
    unparsed: float = 0.0
    """Share of answers that were no label."""
    copied: bool = False
    """It repeats training text."""
    failure: str | None = None


class _Question(NamedTuple):
    """A distinct instruction under one follower."""

    follower: Follower
    episode: Episode
    text: str


class _Scoring(NamedTuple):
    """What a follower made of an instruction, or why there is no score."""

    scored: Scored | None
    failure: str | None = None
    passing: bool = False
    """Waiting may help."""


@dataclass(frozen=True)
class Reward:
    """Judges drafts. Several threads may use it; the limit of requests under way is the follower's own."""

    settings: RewardSettings
    followers: Sequence[Follower]
    style: Style = field(default_factory=Style)
    """The frame in which an instruction is read, and the length of an answer."""
    progress: Progress = QUIET

    def check(self, episode: Episode) -> None:
        """Ask every follower once. Raises `EndpointError` if one is silent, `ConfigError` if the measure needs more."""
        for follower in self.followers:
            ((scored, failure, _),) = self._ask([_Question(follower, episode, "Label the input.")])
            if scored is None:
                name = follower.model.card.reference
                raise EndpointError(f"The follower {name} does not answer, so nothing can be learned: {failure}")
            measured(scored, episode.support.labels, self.settings.measure)

    def judge(self, drafts: Sequence[Draft]) -> list[Judged]:
        """One judgement per draft, in order. Waits for failing followers, then raises `EndpointError`."""
        answers = self._ask_all(list(dict.fromkeys(one for draft in drafts for one in self._questions(draft))))
        deadline = time.monotonic() + self.settings.wait
        while self._too_many_fail(answers) and time.monotonic() < deadline:
            if not any(answer.passing for answer in answers.values()):
                break
            self.progress.note("Followers fail; waiting for them")
            time.sleep(min(PAUSE, self.settings.wait))
            answers |= self._ask_all([question for question, answer in answers.items() if answer.scored is None])
        if self._too_many_fail(answers):
            reason = next(answer.failure for answer in answers.values() if answer.scored is None)
            raise EndpointError(
                f"{_share_failed(answers):.0%} of the instructions of a step could not be scored (first: {reason}). "
                "Check the follower, then continue with --resume."
            )
        return [self._judged(draft, [answers[question] for question in self._questions(draft)]) for draft in drafts]

    def _questions(self, draft: Draft) -> list[_Question]:
        """Nobody is asked about an empty text, which is worth nothing."""
        return [_Question(follower, draft.episode, draft.text) for follower in self.followers if draft.text]

    def _ask_all(self, questions: Sequence[_Question]) -> dict[_Question, _Scoring]:
        threads = max([TOGETHER, *(question.follower.model.card.concurrency for question in questions)])
        batches = _batches(questions)
        answered = parallel(self._ask, batches, threads)
        return {
            question: answer
            for position, answers in answered
            for question, answer in zip(batches[position], answers, strict=True)
        }

    def _ask(self, questions: Sequence[_Question]) -> list[_Scoring]:
        """About one episode under one follower."""
        (follower, episode, _), *_ = questions
        labels, style = episode.support.labels, self.style
        written = [
            Instruction(text=text, labels=labels, method="mii", frame=style.frame, answer=style.answer)
            for _, _, text in questions
        ]
        try:
            ready = [follower.prepare(instruction, episode.support) for instruction in written]
            return [_answer(scored) for scored in score_each(follower, ready, episode.query)]
        except EndpointError as error:  # it failed on more than a row, say while it was calibrated
            return [_Scoring(None, str(error), error.kind in PASSING)] * len(questions)

    def _too_many_fail(self, answers: Mapping[_Question, _Scoring]) -> bool:
        return _share_failed(answers) > self.settings.failures

    def _judged(self, draft: Draft, answers: Sequence[_Scoring]) -> Judged:
        if not answers:
            return Judged(-self._price(draft), 0.0)
        copied = bool(copied_runs(draft.text, (example.text for example in draft.episode.support.examples)))
        scored = [answer.scored for answer in answers if answer.scored]
        if len(scored) < len(answers):
            failure = next(answer.failure for answer in answers if answer.scored is None)
            return Judged(None, None, copied=copied, failure=failure)
        value = fmean(measured(one, draft.episode.support.labels, self.settings.measure) for one in scored)
        unparsed = fmean(one.n_unparsed / one.n for one in scored)
        return Judged(value - self._price(draft) - self.settings.copy_penalty * copied, value, unparsed, copied)

    def _price(self, draft: Draft) -> float:
        priced = max(draft.tokens - self.settings.free_tokens, 0)
        return self.settings.token_price * priced + self.settings.unfinished_penalty * draft.unfinished


def _batches(questions: Sequence[_Question]) -> list[list[_Question]]:
    """What is asked in one go: of a model that takes one call at a time, all drafts of an episode."""
    batches: dict[object, list[_Question]] = {}
    for question in questions:
        follower, episode, _ = question
        local = follower.mode == "choose" and follower.model.card.concurrency == 1
        batches.setdefault((id(follower), episode) if local else question, []).append(question)
    return list(batches.values())


def _answer(scored: Scored) -> _Scoring:
    failures = [prediction.failure for prediction in scored.predictions if prediction.failure]
    if not failures:
        return _Scoring(scored)
    first = f"{failures[0].kind}: {failures[0].message}"
    return _Scoring(None, first, any(failure.kind in PASSING for failure in failures))


def _share_failed(answers: Mapping[_Question, _Scoring]) -> float:
    """Of the distinct instructions: one follower that fails is enough to leave an instruction without a reward."""
    asked = {(episode, text) for _, episode, text in answers}
    failed = {(episode, text) for (_, episode, text), answer in answers.items() if answer.scored is None}
    return len(failed) / max(len(asked), 1)
