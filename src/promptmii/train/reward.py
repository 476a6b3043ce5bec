"""The reward: how well frozen followers label rows that the generator never saw, by the evaluation's scorer.

Drafts are scored as written. Use and validation also clean them (`Writer.text`: no thinking, no introduction, no
repeated list items), but what cleaning would mend must not earn a reward.

Identical instructions of one visit are scored once. If a follower fails, the draft gets None instead of zero, which
leaves it out of its group, so that a dead server teaches nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from promptmii.errors import EndpointError
from promptmii.follower import Follower
from promptmii.inducers import copied_runs
from promptmii.instruction import Instruction
from promptmii.models.base import OUTAGES
from promptmii.models.threads import parallel
from promptmii.progress import QUIET, Progress
from promptmii.scoring import Scored, score_each
from promptmii.styles import Style
from promptmii.task import Episode
from promptmii.train.measures import apply_measure
from promptmii.train.settings import RewardSettings

THREADS = 16
"""Batches scored at once; more if a follower allows more concurrent requests."""
PAUSE = 5.0
"""Seconds between attempts at a failing follower."""


@dataclass(frozen=True)
class Draft:
    """A generated instruction."""

    episode: Episode
    text: str
    tokens: int
    unfinished: bool = False
    """The text hit the token limit."""


@dataclass(frozen=True)
class Judged:
    """The reward of a draft."""

    reward: float | None
    """None if a follower failed."""
    score: float | None
    """The measure without penalties, averaged over the followers."""
    unparsed: float = 0.0
    """Share of answers that are not a label."""
    copied: bool = False
    """The text repeats six words in a row from an example."""
    failure: str | None = None


class _Request(NamedTuple):
    """A distinct instruction for one follower."""

    follower: Follower
    episode: Episode
    text: str


class _Result(NamedTuple):
    """A follower's scored predictions under an instruction, or the reason why it failed."""

    scored: Scored | None
    failure: str | None = None
    transient: bool = False


@dataclass(frozen=True)
class Reward:
    """Judges drafts. Several threads may use it; each follower limits its own concurrent requests."""

    settings: RewardSettings
    followers: Sequence[Follower]
    style: Style = field(default_factory=Style)
    """Sets the follower's prompt and the length of an answer."""
    progress: Progress = QUIET

    def check(self, episode: Episode) -> None:
        """Try every follower. Raises `EndpointError` if one fails, `ConfigError` if it lacks the likelihoods needed."""
        for follower in self.followers:
            (result,) = self._score([_Request(follower, episode, "Label the input.")])
            if result.scored is None:
                name = follower.model.card.reference
                raise EndpointError(f"The follower {name} does not answer, so nothing can be learned: {result.failure}")
            apply_measure(self.settings.measure, result.scored, episode.support.labels)

    def judge(self, drafts: Sequence[Draft]) -> list[Judged]:
        """One judgement per draft, in order. Waits for failing followers, then raises `EndpointError`."""
        requests = [request for draft in drafts for request in self._requests(draft)]
        results = self._score_all(list(dict.fromkeys(requests)))
        deadline = time.monotonic() + self.settings.wait
        while (share := _share_failed(results)) > self.settings.failures:
            failed = [request for request, result in results.items() if result.scored is None]
            if time.monotonic() >= deadline or not any(results[request].transient for request in failed):
                raise EndpointError(
                    f"{share:.0%} of the instructions of a step could not be scored (first: "
                    f"{results[failed[0]].failure}). Check the follower, then continue with --resume."
                )
            self.progress.note("Followers fail; waiting for them")
            time.sleep(min(PAUSE, self.settings.wait))
            results |= self._score_all(failed)
        return [self._judged(draft, [results[request] for request in self._requests(draft)]) for draft in drafts]

    def _requests(self, draft: Draft) -> list[_Request]:
        """One request per follower; none for an empty text, which scores 0."""
        return [_Request(follower, draft.episode, draft.text) for follower in self.followers if draft.text]

    def _score_all(self, requests: Sequence[_Request]) -> dict[_Request, _Result]:
        threads = max([THREADS, *(request.follower.model.card.concurrency for request in requests)])
        batches = _batches(requests)
        return {
            request: result
            for position, results in parallel(self._score, batches, threads)
            for request, result in zip(batches[position], results, strict=True)
        }

    def _score(self, requests: Sequence[_Request]) -> list[_Result]:
        """Score requests that share a follower and an episode."""
        follower, episode, _ = requests[0]
        labels, style = episode.support.labels, self.style
        instructions = [
            Instruction(text=request.text, labels=labels, method="mii", frame=style.frame, longest_answer=style.answer)
            for request in requests
        ]
        try:
            ready = [follower.prepare(instruction, episode.support) for instruction in instructions]
            return [_result(scored) for scored in score_each(follower, ready, episode.query)]
        except EndpointError as error:  # the whole batch failed, for example during calibration
            return [_Result(None, str(error), error.kind in OUTAGES)] * len(requests)

    def _judged(self, draft: Draft, results: Sequence[_Result]) -> Judged:
        penalty = self.settings.token_price * max(draft.tokens - self.settings.free_tokens, 0)
        penalty += self.settings.unfinished_penalty * draft.unfinished
        if not results:
            return Judged(-penalty, 0.0)
        copied = bool(copied_runs(draft.text, (example.text for example in draft.episode.support.examples)))
        scored = [result.scored for result in results if result.scored]
        if len(scored) < len(results):
            failure = next(result.failure for result in results if result.scored is None)
            return Judged(None, None, copied=copied, failure=failure)
        measure, labels = self.settings.measure, draft.episode.support.labels
        score = fmean(apply_measure(measure, rows, labels) for rows in scored)
        unparsed = fmean(rows.n_unparsed / rows.n for rows in scored)
        return Judged(score - penalty - self.settings.copy_penalty * copied, score, unparsed, copied)


def _batches(requests: Sequence[_Request]) -> list[list[_Request]]:
    """Single requests, except that a model that batches gets all drafts of an episode in one call."""
    batches: dict[object, list[_Request]] = {}
    for request in requests:
        follower, episode, _ = request
        local = follower.mode == "choose" and follower.model.card.batches
        batches.setdefault((id(follower), episode) if local else request, []).append(request)
    return list(batches.values())


def _result(scored: Scored) -> _Result:
    failures = [prediction.failure for prediction in scored.predictions if prediction.failure]
    if not failures:
        return _Result(scored)
    first = f"{failures[0].kind}: {failures[0].message}"
    return _Result(None, first, any(failure.kind in OUTAGES for failure in failures))


def _share_failed(results: Mapping[_Request, _Result]) -> float:
    """Share of the distinct instructions that at least one follower failed on."""
    tried = {(episode, text) for _, episode, text in results}
    failed = {(episode, text) for (_, episode, text), result in results.items() if result.scored is None}
    return len(failed) / max(len(tried), 1)
