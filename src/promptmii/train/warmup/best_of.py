"""Rejection sampling: several drafts for each visit, judged by the reward, the best kept as pairs for `--stage sft`.

It needs no gradient, so it is the cheapest way up from a generator that sometimes writes well.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean

from promptmii.curves import is_training_run, read_curves
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
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import BestOfSettings
from promptmii.train.tasks import read_split
from promptmii.train.visits import Visit, Visits, readable, style_of
from promptmii.train.warmup.pairs import Pair, pair_line

PAIRS = "pairs.jsonl"
FREE = ("visits", "together", "endpoint", "reward.serve")
"""Settings that a resumed run may change."""


def best_of(
    settings: BestOfSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Write the pairs file of a run folder and return its path, as `run_stage` says. `given` is its file."""
    style = style_of(settings)
    split = read_split(settings, progress)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(folder, settings, given, resume=resume, free=FREE))
        first = _finished(run)
        if first >= settings.visits:
            return folder / PAIRS
        chosen = settings.reward
        serving = served(chosen.followers, chosen.serve, settings.endpoint, folder / "servers", progress)
        endpoint = stack.enter_context(serving)
        limit = endpoint.limit()
        models = {
            name: stack.enter_context(closing(endpoint.load(name, limit=limit)))
            for name in dict.fromkeys((settings.model, *chosen.followers))
        }
        writer = Writer(models[settings.model], style, settings.budget)
        split = readable(split, settings, writer)
        for line in split.skipped:
            progress.note(f"Skipped {line}")
        facts = {"stage": settings.stage, "data": split.key, "meta": writer.template.key, "skipped": split.skipped}
        run.describe(facts, same=("data", "meta"))
        followers = [Follower(for_threads(models[name]), chosen.mode, chosen.calibration) for name in chosen.followers]
        reward = Reward(chosen, followers, style, progress)
        visits = Visits(split.train, settings, writer)
        progress.step("Drafting", settings.visits - first, "drafts")
        reward.check(visits.visit(first).episode)
        for start in range(first, settings.visits, settings.together):
            drawn = [visits.visit(number) for number in range(start, min(start + settings.together, settings.visits))]
            drafts = dict(parallel(lambda visit: _write(writer, visit, settings), drawn, writer.model.card.concurrency))
            judged = iter(reward.judge([draft for place in range(len(drawn)) for draft in drafts[place]]))
            for place, visit in enumerate(drawn):
                own = drafts[place]
                said = _keep(run, settings, visit, [(draft, next(judged)) for draft in own])
                progress.advance(1, said)
    return folder / PAIRS


def _write(writer: Writer, visit: Visit, settings: BestOfSettings) -> list[Draft]:
    """The drafts of a visit. Raises `EndpointError` if the generator gives none."""
    support = visit.episode.support
    contrast = writer.contrast(support, support.examples)
    sampling = writer.sampling(support.labels, visit.episode.seed, settings.temperature, contrast)
    answers = writer.model.generate([visit.chat] * settings.drafts, sampling)
    written = [answer for answer in answers if isinstance(answer, Completion)]
    if not written:
        raise EndpointError(
            f"The generator {settings.model} failed on every draft of a visit. Check it, then continue with --resume."
        )
    texts = [answer.text.strip() for answer in written]
    counts = writer.model.count_tokens(texts)
    return [Draft(visit.episode, t, n, a.truncated) for t, n, a in zip(texts, counts, written, strict=True)]


def _keep(run: RunFolder, settings: BestOfSettings, visit: Visit, judged: Sequence[tuple[Draft, Judged]]) -> str:
    """Append the pair if it is good enough, and the curves after it: a visit is finished when its curves are there."""
    step = visit.number + 1
    scored = [(one.reward, draft) for draft, one in judged if one.reward is not None]
    if not scored:
        run.metrics(step, {"kept": 0.0})
        return f"visit {step}: not judged"
    mean = fmean(reward for reward, _ in scored)
    top, draft = max(scored, key=lambda pair: pair[0])
    kept = top - mean >= settings.margin and top >= settings.least and not draft.unfinished and bool(draft.text)
    if kept and visit.number not in _visits(run.path / PAIRS):
        pair = Pair(visit.episode.support, draft.text)
        line = pair_line(pair, task=visit.episode.task, visit=visit.number, reward=round(top, 6))
        append_line(run.path / PAIRS, line)
    length = fmean(draft.tokens for draft, _ in judged)
    run.metrics(step, {"train/reward": mean, "best": top, "kept": float(kept), "length": length})
    return f"visit {step}: reward {mean:.3f}, best {top:.3f}"


def _finished(run: RunFolder) -> int:
    """Visits that need not be made again."""
    return max(read_curves([run.path])[0].metrics.get("kept", {0: 0.0})) if is_training_run(run.path) else 0


def _visits(path: Path) -> set[int]:
    """The visits whose pair is in the file already, as after a kill between the two lines."""
    visits: set[int] = set()
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            visits.add(int(json.loads(line)["visit"]))
        except (ValueError, KeyError, TypeError):
            continue  # half a line
    return visits
