"""Rejection sampling: several drafts for each visit, judged by the reward, the best of them kept as pairs for `--stage sft`.

It needs no gradient, so it is the cheapest way up from a generator that sometimes writes well.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean

from pydantic import Field

from promptmii.curves import is_training_run, read_curves
from promptmii.errors import EndpointError
from promptmii.files import append_line
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.models.base import Completion, LanguageModel
from promptmii.models.dynamic_batching import for_threads
from promptmii.progress import QUIET, Progress
from promptmii.train.reward import Draft, Judged, Reward
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import Stage, TrainSettings
from promptmii.train.tasks import read_source
from promptmii.train.visits import Deck, Visit, readable_source, writer_for
from promptmii.train.warmup.pairs import Pair, pair_line

PAIRS = "pairs.jsonl"


class BestOfSettings(TrainSettings):
    """The tasks, the generator and the reward are those of reinforcement learning."""

    stage: Stage = "best-of"
    drafts: int = Field(default=8, ge=2)
    """For each visit."""
    visits: int = Field(default=200, ge=1)
    together: int = Field(default=4, ge=1)
    """Visits that are written and judged in one batch."""
    temperature: float = Field(default=1.0, gt=0)
    margin: float = Field(default=0.02, ge=0)
    """How much better than the mean of its visit a draft must be to be kept: where all drafts are alike the best is luck."""
    least: float = 0.0
    """Reward below which even the best draft of a visit is not kept."""


def best_of(
    settings: BestOfSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Write the pairs file of a run folder (`given` is the configuration file) and return its path.

    With `resume` it goes on after the last visit that was finished. Raises `ConfigError`, `DataError`, `ModelError`, `OutputError`.
    """
    source = read_source(settings, progress)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(folder, settings, given, resume=resume, free=("visits", "together")))
        generator = stack.enter_context(closing(settings.endpoint.load(settings.model)))
        writer = writer_for(settings, generator)
        source = readable_source(source, settings, writer)
        for line in source.skipped:
            progress.note(f"Skipped {line}")
        reward = Reward(
            settings.reward,
            [_follower(model, settings) for model in _models(settings, generator, stack)],
            progress=progress,
        )
        deck = Deck(source.train, settings, writer)
        run.describe(
            {"stage": settings.stage, "data": source.key, "meta": writer.template.key, "skipped": source.skipped}
        )
        first = _finished(run)
        if first >= settings.visits:
            return folder / PAIRS
        progress.step("Drafting", settings.visits - first, "drafts")
        reward.check(deck.visit(first).episode)
        # A batch is written as a whole even where a kill left some of its visits finished: its drafts depend on each other.
        for start in range(first - first % settings.together, settings.visits, settings.together):
            visits = [deck.visit(number) for number in range(start, min(start + settings.together, settings.visits))]
            written = list(zip(visits, _write(writer, visits, settings), strict=True))
            left = [(visit, drafts) for visit, drafts in written if visit.number >= first]
            judged = _judge(reward, [drafts for _, drafts in left])
            _keep(run, settings, [(*row, one) for row, one in zip(left, judged, strict=True)], progress)
    return folder / PAIRS


def _follower(model: LanguageModel, settings: BestOfSettings) -> Follower:
    return Follower(for_threads(model), settings.reward.mode, settings.reward.calibration)


def _models(settings: BestOfSettings, generator: LanguageModel, stack: ExitStack) -> Iterable[LanguageModel]:
    """Each loaded once; the generator itself where it follows too."""
    for reference in settings.reward.followers:
        yield (
            generator
            if reference == settings.model
            else stack.enter_context(closing(settings.endpoint.load(reference)))
        )


def _write(writer: Writer, visits: Sequence[Visit], settings: BestOfSettings) -> list[list[Draft]]:
    """The drafts of each visit. Raises `EndpointError` when the generator gives none for one of them."""
    seed = visits[0].episode.seed
    chats = [visit.chat for visit in visits for _ in range(settings.drafts)]
    answers = writer.model.generate(chats, writer.sampling(seed, settings.temperature))
    drafts: list[list[Draft]] = []
    for place, visit in enumerate(visits):
        own = answers[place * settings.drafts : (place + 1) * settings.drafts]
        written = [answer for answer in own if isinstance(answer, Completion)]
        if not written:
            raise EndpointError(
                f"The generator {settings.model} failed on every draft of a visit. See to it, then go on with --resume."
            )
        texts = [answer.text.strip() for answer in written]
        counts = writer.model.count_tokens(texts)
        drafts.append([Draft(visit.episode, t, n, a.truncated) for t, n, a in zip(texts, counts, written, strict=True)])
    return drafts


def _judge(reward: Reward, drafts: Sequence[Sequence[Draft]]) -> list[list[Judged]]:
    judged = iter(reward.judge([draft for own in drafts for draft in own]))
    return [[next(judged) for _ in own] for own in drafts]


def _keep(
    run: RunFolder,
    settings: BestOfSettings,
    rows: Sequence[tuple[Visit, list[Draft], list[Judged]]],
    progress: Progress,
) -> None:
    """Append the pairs first and the curves after them: a visit counts as finished when its line of the curves is there."""
    known = _visits(run.path / PAIRS)
    for visit, drafts, judged in rows:
        rewards = [one.reward for one in judged if one.reward is not None]
        if not rewards:
            run.metrics(visit.number + 1, {"kept": 0.0})
            continue
        place = max(
            (i for i, one in enumerate(judged) if one.reward is not None), key=lambda i: judged[i].reward or 0.0
        )
        top, draft = max(rewards), drafts[place]
        kept = (
            top - fmean(rewards) >= settings.margin
            and top >= settings.least
            and not draft.unfinished
            and bool(draft.text)
        )
        if kept and visit.number not in known:
            pair = Pair(visit.episode.support, draft.text)
            append_line(
                run.path / PAIRS, pair_line(pair, task=visit.episode.task, visit=visit.number, reward=round(top, 6))
            )
        line = {
            "train/reward": fmean(rewards),
            "best": top,
            "kept": float(kept),
            "length": fmean(draft.tokens for draft in drafts),
        }
        run.metrics(visit.number + 1, line)
        progress.advance(1, f"visit {visit.number + 1}: reward {fmean(rewards):.3f}, best {top:.3f}")


def _finished(run: RunFolder) -> int:
    """Visits that need not be made again."""
    return max(read_curves([run.path])[0].metrics.get("kept", {0: 0.0})) if is_training_run(run.path) else 0


def _visits(path: Path) -> set[int]:
    """The visits whose pair is in the file already, as after a kill between the two lines."""
    if not path.exists():
        return set()
    found: set[int] = set()
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            found.add(int(json.loads(line)["visit"]))
        except (ValueError, KeyError, TypeError):
            continue  # half a line
    return found
