"""The reward: how well frozen followers label rows that the writer never saw. It uses the one scorer, a batch a step.

Equal instructions of one visit are scored once. A follower that fails gives no reward (`None`, which leaves the draft
out of its group), never a zero: a dead server must not teach anything.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from promptmii import metrics
from promptmii.errors import ConfigError, EndpointError
from promptmii.follower import Follower
from promptmii.inducers.copying import copied_runs
from promptmii.instruction import Instruction
from promptmii.models.base import FailureKind
from promptmii.models.threads import parallel
from promptmii.progress import QUIET, Progress
from promptmii.prompts import Template, follower_frame
from promptmii.scoring import Scored, score
from promptmii.task import Episode
from promptmii.train.settings import Measure, RewardSettings

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


@dataclass(frozen=True)
class _Asked:
    """A different instruction under one follower."""

    follower: Follower
    episode: Episode
    text: str


class Reward:
    """Judges drafts. Several threads may use it; the limit of requests under way is the follower's own."""

    def __init__(
        self,
        settings: RewardSettings,
        followers: Sequence[Follower],
        frame: Template | None = None,
        progress: Progress = QUIET,
    ) -> None:
        self._settings = settings
        self._followers = followers
        self._frame = (frame or follower_frame()).text
        self._progress = progress

    def check(self, episode: Episode) -> None:
        """Ask every follower once. Raises `EndpointError` if one is silent, `ConfigError` if the measure needs more."""
        for follower in self._followers:
            found = self._score(_Asked(follower, episode, "Label the input."))
            if isinstance(found, EndpointError) or found.n_failed:
                raise EndpointError(
                    f"The follower {follower.model.card.reference} does not answer, so nothing can be learned: "
                    f"{_reason(found)}"
                )
            measured(found, episode.support.labels, self._settings.measure)

    def judge(self, drafts: Sequence[Draft]) -> list[Judged]:
        """One judgement per draft, in order. Waits for failing followers, then raises `EndpointError`."""
        asked = list(
            dict.fromkeys(
                _Asked(follower, draft.episode, draft.text) for draft in drafts for follower in self._asked(draft)
            )
        )
        found = dict(zip(asked, self._score_all(asked), strict=True))
        deadline = time.monotonic() + self._settings.wait
        while _share_failed(found) > self._settings.failures and _may_pass(found.values()):
            if time.monotonic() >= deadline:
                break
            self._progress.note("Followers fail; waiting for them")
            time.sleep(min(PAUSE, self._settings.wait))
            again = [one for one, scored in found.items() if _reason(scored)]
            found |= dict(zip(again, self._score_all(again), strict=True))
        if _share_failed(found) > self._settings.failures:
            reason = next(_reason(scored) for scored in found.values() if _reason(scored))
            raise EndpointError(
                f"{_share_failed(found):.0%} of the instructions of a step could not be scored (first: {reason}). "
                "See to the follower, then go on with --resume."
            )
        return [
            self._judged(draft, [found[_Asked(follower, draft.episode, draft.text)] for follower in self._asked(draft)])
            for draft in drafts
        ]

    def _asked(self, draft: Draft) -> Sequence[Follower]:
        """Who is asked about it: nobody about an empty text, which is worth nothing."""
        return self._followers if draft.text else ()

    def _score_all(self, asked: Sequence[_Asked]) -> list[Scored | EndpointError]:
        threads = max([TOGETHER, *(one.follower.model.card.concurrency for one in asked)])
        found = dict(parallel(self._score, asked, threads))
        return [found[position] for position in range(len(asked))]

    def _score(self, asked: _Asked) -> Scored | EndpointError:
        """The score, or why there is none: the follower failed on more than a row, say while it was calibrated."""
        episode = asked.episode
        written = Instruction(text=asked.text, labels=episode.support.labels, method="mii", frame=self._frame)
        try:
            return score(asked.follower, asked.follower.prepare(written, episode.support), episode.query)
        except EndpointError as error:
            return error

    def _judged(self, draft: Draft, found: Sequence[Scored | EndpointError]) -> Judged:
        if not found:
            return Judged(-self._price(draft), 0.0)
        failure = next((reason for reason in map(_reason, found) if reason), None)
        copied = bool(copied_runs(draft.text, (example.text for example in draft.episode.support.examples)))
        if failure:
            return Judged(None, None, copied=copied, failure=failure)
        scores = [
            measured(scored, draft.episode.support.labels, self._settings.measure)
            for scored in found
            if isinstance(scored, Scored)
        ]
        unparsed = fmean(scored.n_unparsed / scored.n for scored in found if isinstance(scored, Scored))
        reward = fmean(scores) - self._price(draft) - self._settings.copy_penalty * copied
        return Judged(reward, fmean(scores), unparsed, copied)

    def _price(self, draft: Draft) -> float:
        """What length and a missing end take off."""
        settings = self._settings
        return (
            settings.token_price * max(draft.tokens - settings.free_tokens, 0)
            + settings.unfinished_penalty * draft.unfinished
        )


def measured(scored: Scored, labels: tuple[str, ...], measure: Measure) -> float:
    """A score between 0 and 1. Raises `ConfigError` if the measure needs likelihoods and there are none."""
    if measure == "macro_f1":
        return metrics.macro_f1(scored.gold, scored.labels)
    probabilities = [prediction.probabilities for prediction in scored.predictions]
    known = [row for row in probabilities if row is not None]
    if len(known) < len(probabilities):
        raise ConfigError(
            f"The measure {measure} needs likelihoods, and a follower gives none (no server does). "
            "Set reward.measure = 'macro_f1', or name only local models in reward.followers."
        )
    of = metrics.expected_macro_f1 if measure == "expected_macro_f1" else metrics.gold_probability
    return of(scored.gold, known, labels)


def _share_failed(found: Mapping[_Asked, Scored | EndpointError]) -> float:
    """Of the distinct instructions: one follower that fails is enough to leave an instruction without a reward."""
    failed = {(one.episode, one.text): False for one in found}
    for one, scored in found.items():
        failed[one.episode, one.text] |= _reason(scored) is not None
    return fmean(failed.values()) if failed else 0.0


def _reason(scored: Scored | EndpointError) -> str | None:
    """Why it cannot be counted; `None` where it can."""
    if isinstance(scored, EndpointError):
        return str(scored)
    return next((f"{p.failure.kind}: {p.failure.message}" for p in scored.predictions if p.failure), None)


def _may_pass(found: Iterable[Scored | EndpointError]) -> bool:
    """Some failure is of a kind that waiting helps against."""
    return any(kind in PASSING for scored in found for kind in _kinds(scored))


def _kinds(scored: Scored | EndpointError) -> list[str | None]:
    """Of its failures; `None` is an error of no known kind."""
    return (
        [scored.kind]
        if isinstance(scored, EndpointError)
        else [p.failure.kind for p in scored.predictions if p.failure]
    )
