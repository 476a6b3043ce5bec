"""Rejection sampling: the best of several drafts per visit becomes a training pair for `--stage sft`.

It needs no gradients, so it is the cheapest way to improve a generator that sometimes writes well.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import fmean

from promptmii.errors import EndpointError
from promptmii.files import append_line
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.models.base import Completion
from promptmii.models.threads import parallel
from promptmii.models.wrappers import for_threads
from promptmii.progress import QUIET, Progress
from promptmii.serving import served
from promptmii.train.reward import Draft, Judged, Reward
from promptmii.train.run_folder import RunFolder, is_training_run, open_run, read_curves
from promptmii.train.settings import BestOfSettings
from promptmii.train.tasks import read_split
from promptmii.train.visits import Visit, Visits, readable, style_of
from promptmii.train.warmup.pairs import Pair, pair_line

PAIRS = "pairs.jsonl"
CHANGEABLE = ("visits", "together", "endpoint", "reward.serve")
"""Settings that a resumed run may change."""


def best_of(
    settings: BestOfSettings,
    folder: Path,
    *,
    config: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Write the pairs file of a run folder and return its path; see `run_stage`. No good draft, no file."""
    style = style_of(settings)
    split = read_split(settings, progress)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(folder, settings, config, resume=resume, changeable=CHANGEABLE))
        finished = _finished_visits(folder)
        if finished >= settings.visits:
            return folder / PAIRS
        reward_settings = settings.reward
        serving = served(
            reward_settings.followers, reward_settings.serve, settings.endpoint, folder / "servers", progress
        )
        endpoint = stack.enter_context(serving)
        load = endpoint.loader()
        models = {
            name: stack.enter_context(closing(load(name)))
            for name in dict.fromkeys((settings.model, *reward_settings.followers))
        }
        writer = Writer(models[settings.model], style, settings.budget)
        split = readable(split, settings, writer)
        for task in split.skipped:
            progress.note(f"Skipped {task}")
        facts = {"stage": settings.stage, "data": split.key, "meta": writer.template.key, "skipped": split.skipped}
        run.describe(facts, fixed=("data", "meta"))
        followers = [
            Follower(for_threads(models[name]), reward_settings.mode, reward_settings.calibration)
            for name in reward_settings.followers
        ]
        reward = Reward(reward_settings, followers, style, progress)
        visits = Visits(split.train, settings, writer)
        progress.step("Drafting", (settings.visits - finished) * settings.drafts, "drafts")
        reward.check(visits.visit(finished).episode)
        write = partial(_write, writer, settings)
        for start in range(finished, settings.visits, settings.together):
            end = min(start + settings.together, settings.visits)
            batch = [visits.visit(number) for number in range(start, end)]
            written = sorted(parallel(write, batch, writer.model.card.concurrency), key=itemgetter(0))
            drafts = [visit_drafts for _, visit_drafts in written]
            judged = iter(reward.judge([draft for visit_drafts in drafts for draft in visit_drafts]))
            for visit, visit_drafts in zip(batch, drafts, strict=True):
                results = [(draft, next(judged)) for draft in visit_drafts]
                progress.advance(settings.drafts, _record(run, settings, visit, results))
    if not (folder / PAIRS).exists():
        progress.note("No draft was good enough to keep, so there is no pairs file. Lower margin or least")
    return folder / PAIRS


def _finished_visits(folder: Path) -> int:
    """Number of visits that an earlier run in this folder finished."""
    if not is_training_run(folder):
        return 0
    return max(read_curves([folder])[0].metrics.get("kept", {0: 0.0}))


def _write(writer: Writer, settings: BestOfSettings, visit: Visit) -> list[Draft]:
    """Write the drafts of a visit. Raises `EndpointError` if all fail."""
    support = visit.episode.support
    contrast = writer.contrast(support, support.examples)
    sampling = writer.sampling(support.labels, visit.episode.seed, settings.temperature, contrast)
    answers = writer.model.generate([visit.chat] * settings.drafts, sampling)
    completions = [answer for answer in answers if isinstance(answer, Completion)]
    if not completions:
        raise EndpointError(
            f"The generator {settings.model} failed on every draft of a visit. Check it, then continue with --resume."
        )
    texts = [completion.text.strip() for completion in completions]
    counts = writer.model.count_tokens(texts)
    return [
        Draft(visit.episode, text, tokens, completion.truncated)
        for text, tokens, completion in zip(texts, counts, completions, strict=True)
    ]


def _record(run: RunFolder, settings: BestOfSettings, visit: Visit, judged: Sequence[tuple[Draft, Judged]]) -> str:
    """Save the best draft as a pair if it is good enough, and log the visit as finished. Returns a progress note."""
    step = visit.number + 1
    scored = [(result.reward, draft) for draft, result in judged if result.reward is not None]
    if not scored:
        run.log_metrics(step, {"kept": 0.0})
        return f"visit {step}: not judged"
    mean = fmean(reward for reward, _ in scored)
    best, draft = max(scored, key=lambda pair: pair[0])
    good = best - mean >= settings.margin and best >= settings.least and not draft.unfinished and bool(draft.text)
    if good and visit.number not in _recorded_visits(run.path / PAIRS):
        pair = Pair(visit.episode.support, draft.text)
        line = pair_line(pair, task=visit.episode.task, visit=visit.number, reward=round(best, 6))
        append_line(run.path / PAIRS, line)
    length = fmean(draft.tokens for draft, _ in judged)
    run.log_metrics(step, {"train/reward": mean, "best": best, "kept": float(good), "length": length})
    return f"visit {step}: reward {mean:.3f}, best {best:.3f}"


def _recorded_visits(path: Path) -> set[int]:
    """Visits with a pair in the file. If the run was killed, the last one may not be logged as finished."""
    visits: set[int] = set()
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # a truncated line
            visits.add(int(json.loads(line)["visit"]))
    return visits
