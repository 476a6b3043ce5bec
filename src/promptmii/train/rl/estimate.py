"""What a run will take, before it runs: nothing is trained, and neither weights nor a GPU are needed.

Batches, steps and calls follow from the settings. Tokens are counted on a few visits, with the generator's own
tokenizer if that is on this machine. Time follows from the rates in the table [plan].
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from promptmii.calibrate import CONTENT_FREE
from promptmii.calibration_kinds import READS, Reads
from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.inducers.writing import Writer
from promptmii.models import ScriptedModel, weights_of
from promptmii.models.base import LanguageModel, ModelCard
from promptmii.progress import QUIET, Progress
from promptmii.prompts import FRAME_SLOTS, Template, frame_prompt
from promptmii.schema import Settings
from promptmii.train.paper import PAPER, RELEASE, SAVED, TRL, VALIDATED, authors_style
from promptmii.train.plan import Plan, plan_of
from promptmii.train.rl.memory import Term, memory
from promptmii.train.rl.plan import OURS, Batches, GrpoPlan, grpo_plan
from promptmii.train.settings import PlanSettings, TrainSettings
from promptmii.train.tasks import TaskSplit, read_split
from promptmii.train.visits import Visit, Visits, readable

try:
    from transformers import AutoConfig, AutoTokenizer

    from promptmii.models.chat import ChatFormat
    from promptmii.models.hf.engines import PlainEngine
    from promptmii.models.hf.model import HfTokenizer, quiet
    from promptmii.models.local import LocalModel
    from promptmii.train.validation import NO_VALIDATION, cases
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

SAMPLED = 24
"""Visits on which tokens are counted."""
WORD = 1.5
"""Tokens per word, if there is no tokenizer."""
UNSHOWN = ("stage", "endpoint", "plan", "trl")
"""Settings that are listed elsewhere, or that change nothing of what is learned."""


@dataclass(frozen=True)
class SettingValue:
    """One value of the run beside the paper's."""

    value: Any
    origin: str
    """`given` (file or command line), the default of `paper`, `promptmii` or `TRL`, or `follows` from others, or
    the `preset`."""
    paper: Any = None
    """What the paper says, in our terms; `None` where it says nothing."""
    release: Any = None
    """What the authors' code does, where that is another thing, or more."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    settings: Mapping[str, SettingValue]
    """Ours."""
    options: Mapping[str, SettingValue]
    """TRL's."""
    batches: Batches
    tasks: int
    validation: int
    skipped: tuple[str, ...]
    counted: bool
    """Tokens were counted with the generator's tokenizer rather than estimated from words."""
    prompt_tokens: float
    """Of one visit."""
    shortened: float
    """Share of the visits that read fewer examples than the schedule asks for."""
    calls: int
    """Of all followers, for rewards in the whole run."""
    validations: int
    """Of the run, that before the first step and that after the last included."""
    validation_cases: int
    """Instructions of one validation."""
    validation_calls: int
    """Of all followers, for all validations."""
    follower_tokens: float
    """Of one call."""
    warnings: tuple[str, ...]
    memory: tuple[Term, ...]
    """Of one GPU; empty if the model's configuration is not on this machine."""
    hours: tuple[tuple[str, float], ...]
    """By phase; empty if the settings state no rates."""


def estimate(settings: TrainSettings, folder: Path, progress: Progress = QUIET) -> Estimate:
    """What a run will take. Raises `DataError` and `ConfigError` as the run would."""
    plan, grpo = plan_of(settings), grpo_plan(settings)
    split = read_split(plan.selection, progress)
    model, counted = _counter(plan.model)
    scale = 1.0 if counted else WORD
    prompting = replace(plan.prompting, longest_prompt=int(plan.prompting.longest_prompt / scale))
    writer = prompting.writer(model)
    split = readable(split, plan.draws, writer)
    visits = Visits(split.train, plan.draws, writer)
    batches = grpo.batches(visits.per_pass, settings.plan.processes)
    config = grpo.config(folder, batches, cpu=True, processes=1)
    sampled = [visits.visit(number) for number in range(min(SAMPLED, batches.visits))]
    estimated = Estimate(
        settings=_settings(settings, grpo),
        options=_options(settings, grpo, config, batches),
        batches=batches,
        tasks=len(split.train),
        validation=len(split.validation),
        skipped=split.skipped,
        counted=counted,
        prompt_tokens=scale * fmean(model.count_tokens([visit.chat[0]["content"] for visit in sampled])),
        shortened=fmean(visit.shortened for visit in sampled),
        calls=_reward_calls(plan, batches, sampled),
        **_validations(plan, split, batches),
        follower_tokens=_follower_tokens(sampled, writer, settings.plan.length, scale),
        warnings=() if cases(split.validation, plan.validation) else (NO_VALIDATION,),
        memory=memory(settings, grpo),
        hours=(),
    )
    return replace(estimated, hours=_hours(settings.plan, estimated))


def _follower_tokens(visits: Sequence[Visit], writer: Writer, length: float, scale: float) -> float:
    """Of one call, under an instruction of average length."""
    instruction, frame = " ".join(["word"] * int(length / scale)), Template(writer.style.frame, FRAME_SLOTS)
    asked = [
        frame_prompt(frame, instruction, visit.episode.support.labels, row.text)
        for visit in visits
        for row in visit.episode.query[:4]
    ]
    return scale * fmean(writer.model.count_tokens(asked))


def _reward_calls(plan: Plan, batches: Batches, sampled: Sequence[Visit]) -> int:
    calibrating = fmean(_calibrating(plan, len(visit.episode.support.examples)) for visit in sampled)
    drafts = batches.visits * batches.generations
    return int(drafts * (plan.draws.query + calibrating) * len(plan.reward.followers))


def _validations(plan: Plan, split: TaskSplit, batches: Batches) -> dict[str, int]:
    chosen = cases(split.validation, plan.validation)
    times = 1 + math.ceil(batches.steps / plan.validation.every) if chosen else 0
    calls = sum(min(plan.validation.rows, len(one.task.test)) + _calibrating(plan, one.n) for one in chosen)
    return {
        "validations": times,
        "validation_cases": len(chosen),
        "validation_calls": times * len(plan.reward.followers) * calls,
    }


def _calibrating(plan: Plan, examples: int) -> int:
    """Calls that a follower's calibration adds to an instruction made from so many examples."""
    return {Reads.CONTENT_FREE: len(CONTENT_FREE), Reads.SUPPORT: examples}.get(READS[plan.reward.calibration], 0)


def _settings(settings: TrainSettings, grpo: GrpoPlan) -> dict[str, SettingValue]:
    """Every setting of ours that has a say in what is learned, by its dotted name."""
    papers = {**PAPER, "validation.every": VALIDATED * grpo.boundary}
    releases = {**RELEASE, "style": authors_style(settings.model)}
    listed: dict[str, SettingValue] = {}

    def add(name: str, value: Any, given: bool) -> None:
        paper, release = papers.get(name), releases.get(name)
        theirs = release if release is not None else paper
        known = theirs is not None and value in (paper, release)
        origin = (
            "preset" if settings.preset and value == theirs else "given" if given else "paper" if known else "promptmii"
        )
        listed[name] = SettingValue(value, origin, paper, release)

    for name, value in settings:
        if isinstance(value, Settings) and name not in UNSHOWN:
            for inner, below in value:
                add(f"{name}.{inner}", below, inner in value.model_fields_set)
        elif name not in UNSHOWN:
            add(name, value, name in settings.model_fields_set)
    return listed


def _options(settings: TrainSettings, grpo: GrpoPlan, config: Any, batches: Batches) -> dict[str, SettingValue]:
    """TRL's options: those that somebody chose, those that follow from ours, and a default that the paper names."""
    papers = {**PAPER, **TRL, "save_steps": SAVED * grpo.boundary}
    listed: dict[str, SettingValue] = {}
    for name, value in grpo.options.items():
        origin = "given" if name in settings.trl else "promptmii" if name in OURS else "paper"
        listed[name] = SettingValue(value, origin, papers.get(name))
    for name, value in {
        "generation_batch_size": config.generation_batch_size,
        "gradient_accumulation_steps": batches.accumulation,
        "max_steps": config.max_steps,
        "seed": config.seed,
    }.items():
        listed.setdefault(name, SettingValue(value, "follows", papers.get(name)))
    if hasattr(config, "entropy_coef"):
        listed.setdefault("entropy_coef", SettingValue(config.entropy_coef, "TRL", papers["entropy_coef"]))
    return listed


def _counter(reference: str) -> tuple[LanguageModel, bool]:
    """A model that can only lay out and count prompts, and whether it does so with the generator's tokenizer."""
    with suppress(OSError, ValueError, UnknownModelError), quiet():
        if weights := weights_of(reference):
            config: Any = AutoConfig.from_pretrained(weights.source, local_files_only=True)
            tokenizer: Any = AutoTokenizer.from_pretrained(weights.source, local_files_only=True)
            card = ModelCard(reference, "tokenizer", int(config.max_position_embeddings), gives_scores=False)
            return LocalModel(card, ChatFormat(HfTokenizer(tokenizer, None)), PlainEngine(None)), True
    return ScriptedModel(context_length=131072), False


def _hours(plan: PlanSettings, work: Estimate) -> tuple[tuple[str, float], ...]:
    if not (plan.writes and plan.learns and plan.reads):
        return ()
    drafts = work.batches.visits * work.batches.generations
    validated = work.validations * work.validation_cases
    reading = work.follower_tokens / plan.reads
    seconds = {
        "generate": drafts * plan.length / plan.writes,
        "reward": work.calls * reading,
        "update": drafts * (work.prompt_tokens + plan.length) / plan.learns,
        "validation": validated * plan.length / plan.writes + work.validation_calls * reading,
    }
    return tuple((name, value / 3600) for name, value in seconds.items())
