"""The reward as TRL calls it: once per process and rollout, with the drafts of that process."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from promptmii.errors import EndpointError
from promptmii.train.reward import Draft, Judged, Reward
from promptmii.train.run_folder import RunFolder
from promptmii.train.visits import Visits
from promptmii.tuning.model import TrainableModel

SAMPLED = 10
"""Drafts that are written down at each step."""


@dataclass
class RewardFunction:
    """Turns tokens into drafts, has them judged, and logs what came out."""

    reward: Reward
    visits: Visits
    policy: TrainableModel
    folder: RunFolder | None
    lost: str | None = None
    """Why the last rollout could not be judged."""
    __name__ = "follower"

    def __call__(
        self,
        completion_ids: Sequence[Sequence[int]],
        visit: Sequence[int],
        trainer_state: Any,
        log_metric: Any,
        **_: Any,
    ) -> list[float | None]:
        """One reward per draft; `None` if a follower failed."""
        drafts = [self._draft(ids, number) for ids, number in zip(completion_ids, visit, strict=True)]
        try:
            judged = self.reward.judge(drafts)
        except EndpointError as error:
            self.lost = str(error)
            return [None] * len(drafts)
        self.lost = None
        self._log(drafts, judged, visit, log_metric)
        if self.folder:
            rows = zip(drafts[:SAMPLED], judged, visit, strict=False)
            self.folder.samples([_row(trainer_state.global_step + 1, *row) for row in rows])
        return [one.reward for one in judged]

    def _draft(self, ids: Sequence[int], number: int) -> Draft:
        form = self.policy.form
        unfinished = not ids or ids[-1] not in form.ends
        return Draft(self.visits.visit(number).episode, form.decode(ids).strip(), len(ids), unfinished)

    def _log(self, drafts: Sequence[Draft], judged: Sequence[Judged], visit: Sequence[int], log_metric: Any) -> None:
        known = [(one, draft) for one, draft in zip(judged, drafts, strict=True) if one.reward is not None]
        if known:
            log_metric("train/score", fmean(one.score or 0.0 for one, _ in known))
            log_metric("unparsed", fmean([one.unparsed for one, draft in known if draft.text] or [0.0]))
        log_metric("copied", fmean(one.copied for one in judged))
        log_metric("failed", fmean(one.reward is None for one in judged))
        log_metric("fewer_examples", fmean(self.visits.visit(number).shortened for number in visit))
        distinct = len({(number, draft.text) for number, draft in zip(visit, drafts, strict=True)})
        log_metric("repeated", 1 - (distinct - len(set(visit))) / max(len(drafts) - len(set(visit)), 1))


def _row(step: int, draft: Draft, judged: Judged, visit: int) -> dict[str, Any]:
    episode = draft.episode
    return {
        "step": step,
        "task": episode.task,
        "visit": visit,
        "n": len(episode.support.examples),
        "reward": judged.reward,
        "score": judged.score,
        "tokens": draft.tokens,
        "unfinished": draft.unfinished,
        "unparsed": round(judged.unparsed, 3),
        "copied": judged.copied,
        "failure": judged.failure,
        "text": draft.text,
    }
