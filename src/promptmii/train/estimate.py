"""What a run will take, before it is run: nothing is trained, and neither weights nor a GPU are needed.

Batches, steps and calls follow from the settings. Tokens are counted on a few visits, with the generator's own tokenizer where that is on
this machine. Memory follows from the number of parameters, and time from rates that the settings state (table [plan]).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.models import ScriptedModel, weights_of
from promptmii.models.base import LanguageModel
from promptmii.prompts import follower_frame, frame_prompt
from promptmii.train.config import TrainSettings
from promptmii.train.episodes import Deck
from promptmii.train.recipe import PAPER, Algebra, algebra, options, resolve
from promptmii.train.source import read_source

try:
    from promptmii.train.asking import tokens_of, writer_for
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

SAMPLED = 24
"""Visits on which tokens are counted."""
GIB = 2**30
WORD = 1.5
"""Tokens per word, where no tokenizer is at hand."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    options: Mapping[str, tuple[Any, str]]
    """TRL's options, with where each comes from."""
    batches: Algebra
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
    """Of all followers, in the whole run."""
    follower_tokens: float
    """Of one call."""
    memory: tuple[tuple[str, float], ...]
    """GiB on each device, by what takes them; empty where the number of parameters is not known."""
    hours: tuple[tuple[str, float], ...]
    """By phase; empty where the settings state no rates."""


def estimate(settings: TrainSettings, folder: Path, progress: Callable[[str], None] = lambda _: None) -> Estimate:
    """The plan of a run. Raises `DataError` and `ConfigError` as the run would, also where batches do not divide."""
    source = read_source(settings, progress)
    batches = algebra(settings, len(source.train) * sum(settings.schedule.values()), settings.plan.processes)
    resolve(settings, folder, algebra(settings, len(source.train), settings.plan.processes), cpu=True, processes=1)
    model, counted = _counter(settings)
    writer = writer_for(settings, model)
    deck = Deck(source.train, settings, writer)
    visits = [deck.visit(number) for number in range(min(SAMPLED, batches.visits))]
    scale = 1.0 if counted else WORD
    prompts = model.count_tokens([visit.chat[0]["content"] for visit in visits])
    asked = [
        frame_prompt(follower_frame(), " ".join(["word"] * int(settings.plan.length / scale)), v.episode.support.labels, row.text)
        for v in visits
        for row in v.episode.query[:4]
    ]
    drafts = batches.visits * batches.generations
    extra = fmean(len(v.episode.support.examples) for v in visits) if settings.reward.calibration not in ("none", "batch") else 0
    calls = int(drafts * (settings.query + extra) * len(settings.reward.followers))
    per_call = scale * fmean(model.count_tokens(asked))
    chosen = options(settings)
    return Estimate(
        options={name: (value, _origin(name, settings)) for name, value in chosen.items()},
        batches=batches,
        tasks=len(source.train),
        validation=len(source.validation),
        skipped=source.skipped,
        counted=counted,
        prompt_tokens=scale * fmean(prompts),
        shortened=fmean(visit.shortened for visit in visits),
        calls=calls,
        follower_tokens=per_call,
        memory=_memory(settings, scale * max(prompts)),
        hours=_hours(settings, drafts, scale * fmean(prompts), calls * per_call),
    )


def _origin(name: str, settings: TrainSettings) -> str:
    return "this file" if name in settings.trl else "paper" if name in list(PAPER)[:16] else "promptmii"


def _counter(settings: TrainSettings) -> tuple[LanguageModel, bool]:
    """Something that counts tokens, and whether it is the generator's tokenizer."""
    try:
        weights = weights_of(settings.model)
        return (tokens_of(settings.model, weights.source), True) if weights else (ScriptedModel(context_length=131072), False)
    except UnknownModelError:
        return ScriptedModel(context_length=131072), False


def _memory(settings: TrainSettings, longest: float) -> tuple[tuple[str, float], ...]:
    plan = settings.plan
    count = plan.parameters
    if count is None:
        return ()
    parts = plan.processes if plan.sharded else 1
    if settings.lora:
        trained = 0.01 * count * settings.lora.rank / 16  # adapters of all linear layers at rank 16
        learning = [("generator, frozen, 2 bytes a parameter", 2 * count), ("adapters with gradients and Adam, 16 bytes", 16 * trained)]
    else:
        learning = [
            ("generator, 4 bytes a parameter", 4 * count / parts),
            ("gradients, 4 bytes", 4 * count / parts),
            ("Adam, 8 bytes", 8 * count / parts),
        ]
        if plan.sharded:
            learning.append(("layers being computed, gathered", 2 * count / 16))
    per_device = int(options(settings)["per_device_train_batch_size"])
    width = (longest + options(settings)["max_completion_length"]) * per_device
    learning.append(("activations, checkpointed", width * plan.width * plan.layers * 2 + width * plan.width * 34))
    if plan.follower_parameters:
        learning.append(("follower, 2 bytes a parameter", 2 * plan.follower_parameters))
    if settings.trl.get("use_vllm") and settings.trl.get("vllm_mode", "colocate") == "colocate":
        learning.append(("vLLM", plan.gpu_memory * GIB * float(settings.trl.get("vllm_gpu_memory_utilization", 0.3))))
    return tuple((name, size / GIB) for name, size in learning)


def _hours(settings: TrainSettings, drafts: int, prompt: float, follower_tokens: float) -> tuple[tuple[str, float], ...]:
    plan = settings.plan
    if not (plan.writes and plan.learns and plan.reads):
        return ()
    seconds = {
        "generate": drafts * plan.length / plan.writes,
        "reward": follower_tokens / plan.reads,
        "update": drafts * (prompt + plan.length) / plan.learns,
    }
    return tuple((name, value / 3600) for name, value in seconds.items())
