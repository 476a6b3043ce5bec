"""What a run will take, before it is run: nothing is trained, and neither weights nor a GPU are needed.

Batches, steps and calls follow from the settings. Tokens are counted on a few visits, with the generator's own tokenizer where that is on
this machine. Memory follows from the number of parameters, and time from rates that the settings state (table [plan]).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from promptmii.calibrate import CONTENT_FREE
from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.models import ScriptedModel, weights_of
from promptmii.models.base import LanguageModel, ModelCard
from promptmii.progress import QUIET, Progress
from promptmii.prompts import follower_frame, frame_prompt
from promptmii.schema import Settings
from promptmii.train.rl.plan import (
    OURS,
    PAPER,
    PAPER_RUN,
    SAVED,
    VALIDATED,
    Algebra,
    algebra,
    options,
    resolve,
    updates_per_rollout,
)
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import Source, read_source
from promptmii.train.visits import Deck, readable_source, writer_for

try:
    from transformers import AutoConfig, AutoTokenizer

    from promptmii.models.chat import ChatFormat
    from promptmii.models.hf.engines import PlainEngine
    from promptmii.models.hf.model import quiet
    from promptmii.models.hf.tokenizer import HfTokenizer
    from promptmii.models.local import LocalModel
    from promptmii.train.rl.likelihoods import POSITIONS
    from promptmii.train.validation import cases
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

SAMPLED = 24
"""Visits on which tokens are counted."""
GIB = 2**30
WORD = 1.5
"""Tokens per word, where no tokenizer is at hand."""
VOCABULARY = 152064
"""Rows of the output layer where the model is not at hand: Qwen2.5-7B's, the largest of the recipes."""
TILE = 4096 * 32768 * 2
"""Bytes of the logits that TRL holds at a time (`trl/kernels/chunked_logprob.py`), in bfloat16."""
UNSHOWN = ("stage", "endpoint", "plan", "trl")
"""Tables of the settings that are listed elsewhere, or that change nothing of what is learned."""


def tokens_of(reference: str, source: str) -> LocalModel:
    """A model that can only lay out and count prompts: no weights are loaded. Raises `UnknownModelError`."""
    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(source, local_files_only=True)
            tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)
            card = ModelCard(reference, "tokenizer", int(config.max_position_embeddings), gives_scores=False)
            return LocalModel(card, ChatFormat(HfTokenizer(tokenizer, None)), PlainEngine(None))
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"{reference} is not on this machine: {str(error).strip().splitlines()[0]}") from error


@dataclass(frozen=True)
class Setting:
    """One value of the run beside the paper's."""

    value: Any
    origin: str
    """`given` (by file or command line), `paper`, `promptmii` or `TRL` (whose default it is), or `follows` from others."""
    paper: Any = None
    """In our terms; `None` where the authors say nothing."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    settings: Mapping[str, Setting]
    """Ours."""
    options: Mapping[str, Setting]
    """TRL's."""
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
    """Of all followers, for rewards in the whole run."""
    validations: int
    """Of the run, that before the first step and that after the last included."""
    validation_cases: int
    """Instructions of one validation."""
    validation_calls: int
    """Of all followers, for all validations."""
    follower_tokens: float
    """Of one call."""
    memory: tuple[tuple[str, float], ...]
    """GiB on each device, by what takes them; empty where the number of parameters is not known."""
    hours: tuple[tuple[str, float], ...]
    """By phase; empty where the settings state no rates."""
    warnings: tuple[str, ...]


def estimate(settings: TrainSettings, folder: Path, progress: Progress = QUIET) -> Estimate:
    """The plan of a run. Raises `DataError` and `ConfigError` as the run would, also where batches do not divide."""
    source = read_source(settings, progress)
    model, counted = _counter(settings)
    scale = 1.0 if counted else WORD
    writer = writer_for(settings, model)
    writer = replace(writer, longest_prompt=int(settings.longest_prompt / scale))
    source = readable_source(source, settings, writer)
    deck = Deck(source.train, settings, writer)
    batches = algebra(settings, deck.per_pass, settings.plan.processes)
    resolved = resolve(settings, folder, batches, cpu=True, processes=1)
    visits = [deck.visit(number) for number in range(min(SAMPLED, batches.visits))]
    prompt = scale * fmean(model.count_tokens([visit.chat[0]["content"] for visit in visits]))
    asked = [
        frame_prompt(
            follower_frame(), " ".join(["word"] * int(settings.plan.length / scale)), v.episode.support.labels, row.text
        )
        for v in visits
        for row in v.episode.query[:4]
    ]
    followers = len(settings.reward.followers)
    per_visit = settings.query + fmean(_calibrating(settings, len(visit.episode.support.examples)) for visit in visits)
    drafts = batches.visits * batches.generations
    calls = int(drafts * per_visit * followers)
    looked = cases(source.validation, settings)
    every = settings.validation.every
    times = 1 + math.ceil(batches.steps / every) if looked else 0
    watched = (
        times
        * followers
        * sum(min(settings.validation.rows, len(one.task.test)) + _calibrating(settings, one.n) for one in looked)
    )
    per_call = scale * fmean(model.count_tokens(asked))
    memory = _memory(settings)
    return Estimate(
        settings=_settings(settings),
        options=_options(settings, resolved, batches),
        batches=batches,
        tasks=len(source.train),
        validation=len(source.validation),
        skipped=source.skipped,
        counted=counted,
        prompt_tokens=prompt,
        shortened=fmean(visit.shortened for visit in visits),
        calls=calls,
        validations=times,
        validation_cases=len(looked),
        validation_calls=watched,
        follower_tokens=per_call,
        memory=memory,
        hours=_hours(settings, drafts, prompt, calls * per_call, times * len(looked), watched * per_call),
        warnings=tuple(_warnings(settings, source, memory)),
    )


def _calibrating(settings: TrainSettings, examples: int) -> int:
    """Calls that a follower's calibration adds to an instruction made from so many examples."""
    kind = settings.reward.calibration
    return 0 if kind in ("none", "batch") else len(CONTENT_FREE) if kind == "contextual" else examples


def _settings(settings: TrainSettings) -> dict[str, Setting]:
    """Every setting of ours that has a say in what is learned, by its dotted name."""
    papers = {**PAPER_RUN, "validation.every": VALIDATED * updates_per_rollout(settings)}
    found: dict[str, Setting] = {}

    def add(name: str, value: Any, given: bool) -> None:
        paper = papers.get(name)
        origin = "given" if given else "paper" if paper is not None and value == paper else "promptmii"
        found[name] = Setting(value, origin, paper)

    for name, value in settings:
        if isinstance(value, Settings) and name not in UNSHOWN:
            for inner, below in value:
                add(f"{name}.{inner}", below, inner in value.model_fields_set)
        elif name not in UNSHOWN:
            add(name, value, name in settings.model_fields_set)
    return found


def _options(settings: TrainSettings, resolved: Any, batches: Algebra) -> dict[str, Setting]:
    """TRL's options: those that somebody chose, those that follow from our settings, and the one of its defaults that the paper names."""
    papers = {**PAPER, "save_steps": SAVED * updates_per_rollout(settings)}
    found: dict[str, Setting] = {}
    for name, value in options(settings).items():
        chosen = name in settings.trl or f"gradient_{name.removeprefix('activation_')}" in settings.trl
        origin = "given" if chosen else "promptmii" if name in OURS else "paper"
        found[name] = Setting(value, origin, papers.get(name, PAPER_RUN.get(name)))
    for name, value in {
        "generation_batch_size": resolved.generation_batch_size,
        "gradient_accumulation_steps": batches.accumulation,
        "max_steps": resolved.max_steps,
        "seed": resolved.seed,
    }.items():
        found.setdefault(name, Setting(value, "follows", PAPER_RUN.get(name)))
    if hasattr(resolved, "entropy_coef"):
        found.setdefault("entropy_coef", Setting(resolved.entropy_coef, "TRL", PAPER_RUN["entropy_coef"]))
    return found


def _warnings(settings: TrainSettings, source: Source, memory: tuple[tuple[str, float], ...]) -> list[str]:
    needed = sum(size for _, size in memory)
    found: list[str] = []
    if needed > settings.plan.gpu_memory:
        found.append(
            f"{needed:.0f} GiB on each device are more than plan.gpu_memory = {settings.plan.gpu_memory:g}. Lower "
            "trl.per_device_train_batch_size, longest_prompt or trl.vllm_gpu_memory_utilization, or train adapters ([lora])."
        )
    if not cases(source.validation, settings):
        found.append(
            "No task is left for validation, so no weights are called the best. Raise validation.share, or name tasks there."
        )
    return found


def _counter(settings: TrainSettings) -> tuple[LanguageModel, bool]:
    """Something that counts tokens, and whether it is the generator's tokenizer."""
    try:
        weights = weights_of(settings.model)
        return (
            (tokens_of(settings.model, weights.source), True)
            if weights
            else (ScriptedModel(context_length=131072), False)
        )
    except UnknownModelError:
        return ScriptedModel(context_length=131072), False


def _vocabulary(settings: TrainSettings) -> int:
    """Rows of the generator's output layer."""
    try:
        weights = weights_of(settings.model)
        known: Any = AutoConfig.from_pretrained(weights.source, local_files_only=True) if weights else None
        return int(known.get_text_config().vocab_size) if known else VOCABULARY
    except (UnknownModelError, OSError, ValueError):
        return VOCABULARY


def _memory(settings: TrainSettings) -> tuple[tuple[str, float], ...]:
    """For the longest prompts and drafts there can be, since one batch of them is enough to end a run."""
    plan, chosen = settings.plan, options(settings)
    count = plan.parameters
    if count is None:
        return ()
    parts = plan.processes if plan.sharded else 1
    if settings.lora:
        trained = 0.01 * count * settings.lora.rank / 16  # adapters of all linear layers at rank 16
        learning = [
            ("generator, frozen, 2 bytes a parameter", 2 * count),
            ("adapters with gradients and Adam, 16 bytes", 16 * trained),
        ]
    else:
        learning = [
            ("generator, 4 bytes a parameter", 4 * count / parts),
            ("gradients, 4 bytes", 4 * count / parts),
            ("Adam, 8 bytes", 8 * count / parts),
        ]
        if plan.sharded:
            learning.append(("layers being computed, gathered", 2 * count / 16))
    rows, draft = int(chosen["per_device_train_batch_size"]), int(chosen["max_completion_length"])
    # One process learns from a group in one row, which holds the prompt once (`train/rl/likelihoods.py`); several do as TRL does.
    shared = plan.processes == 1
    prompts = math.ceil(rows / int(chosen["num_generations"])) if shared else rows
    tokens = prompts * settings.longest_prompt + rows * draft
    layer = tokens * plan.width * 34  # half precision, attention not held
    if chosen["activation_checkpointing"]:
        learning.append(("activations, checkpointed", tokens * plan.width * plan.layers * 2 + layer))
    else:
        learning.append(("activations", layer * plan.layers))
    vocabulary = _vocabulary(settings)
    if shared:  # logits, probabilities and their gradient of one piece, 4 bytes each
        learning.append(("logits of a piece", 12 * min(POSITIONS, rows * draft) * vocabulary))
    else:  # TRL adds up the gradient of the whole output layer beside a tile of logits
        learning.append(
            ("logits of a tile, output layer's gradient", TILE + (0 if settings.lora else 4 * vocabulary * plan.width))
        )
    if plan.follower_parameters:
        learning.append(("follower, 2 bytes a parameter", 2 * plan.follower_parameters))
    if settings.trl.get("use_vllm") and settings.trl.get("vllm_mode", "colocate") == "colocate":
        learning.append(("vLLM", plan.gpu_memory * GIB * float(settings.trl.get("vllm_gpu_memory_utilization", 0.3))))
    return tuple((name, size / GIB) for name, size in learning)


def _hours(
    settings: TrainSettings, drafts: int, prompt: float, follower_tokens: float, watched: int, watched_tokens: float
) -> tuple[tuple[str, float], ...]:
    """`watched` instructions are written for validation, and followers read `watched_tokens` under them."""
    plan = settings.plan
    if not (plan.writes and plan.learns and plan.reads):
        return ()
    seconds = {
        "generate": drafts * plan.length / plan.writes,
        "reward": follower_tokens / plan.reads,
        "update": drafts * (prompt + plan.length) / plan.learns,
        "validation": watched * plan.length / plan.writes + watched_tokens / plan.reads,
    }
    return tuple((name, value / 3600) for name, value in seconds.items())
