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

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from promptmii.calibrate import CONTENT_FREE
from promptmii.calibration_kinds import READS, Reads
from promptmii.errors import UnknownModelError
from promptmii.inducers.writing import Writer
from promptmii.models import ScriptedModel, weights_of
from promptmii.models.base import LanguageModel, ModelCard
from promptmii.models.chat import ChatFormat
from promptmii.models.hf.engines import PlainEngine
from promptmii.models.hf.model import HfTokenizer, quiet
from promptmii.models.http.config import Served
from promptmii.models.local import LocalModel
from promptmii.progress import QUIET, Progress
from promptmii.prompts import FRAME_SLOTS, Template, frame_prompt
from promptmii.schema import Settings
from promptmii.train.paper import PAPER, RELEASE, SAVED, TRL, VALIDATED, authors_style
from promptmii.train.rl.plan import OURS, ZERO3, Batches, GrpoPlan, grpo_plan
from promptmii.train.settings import PlanSettings, TrainSettings
from promptmii.train.tasks import read_split
from promptmii.train.validation import NO_VALIDATION, cases
from promptmii.train.visits import Visit, Visits, readable, style_of

SAMPLED = 24
"""Visits on which tokens are counted."""
WORD = 1.5
"""Tokens per word, if there is no tokenizer."""
GIB = 2.0**30
ASSUMED = 80.0
"""GiB of a GPU, if this machine has none."""
LIVE = 1e9
"""Weights that ZeRO-3 keeps gathered during a pass (its stage3_max_live_parameters)."""
RUNTIME = 3.0
"""GiB of CUDA, NCCL and what lies unused between blocks. Assumed."""
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
class Term:
    """A part of the memory."""

    name: str
    gib: float
    how: str


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
    style, grpo = style_of(settings), grpo_plan(settings)
    split = read_split(settings, progress)
    model, counted = _counter(settings.model)
    scale = 1.0 if counted else WORD
    shorter = style.model_copy(update={"longest_prompt": int(settings.longest_prompt / scale)})
    writer = Writer(model, shorter, settings.budget)
    split = readable(split, settings, writer)
    visits = Visits(split.train, settings, writer)
    batches = grpo.batches(visits.per_pass, settings.plan.processes)
    config = grpo.config(folder, batches, cpu=True, processes=1)
    sampled = [visits.visit(number) for number in range(min(SAMPLED, batches.visits))]
    watched, chosen = cases(split.validation, settings.validation), settings.validation
    validations = 1 + math.ceil(batches.steps / chosen.every) if watched else 0
    validated = sum(min(chosen.rows, len(one.task.test)) + _calibrating(settings, one.n) for one in watched)
    estimated = Estimate(
        settings=_settings(grpo),
        options=_options(grpo, config, batches),
        batches=batches,
        tasks=len(split.train),
        validation=len(split.validation),
        skipped=split.skipped,
        counted=counted,
        prompt_tokens=scale * fmean(model.count_tokens([visit.chat[0]["content"] for visit in sampled])),
        shortened=fmean(visit.shortened for visit in sampled),
        calls=_reward_calls(settings, batches, sampled),
        validations=validations,
        validation_cases=len(watched),
        validation_calls=validations * len(settings.reward.followers) * validated,
        follower_tokens=_follower_tokens(sampled, writer, settings.plan.length, scale),
        warnings=() if watched else (NO_VALIDATION,),
        memory=memory(grpo),
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


def _reward_calls(settings: TrainSettings, batches: Batches, sampled: Sequence[Visit]) -> int:
    calibrating = fmean(_calibrating(settings, len(visit.episode.support.examples)) for visit in sampled)
    drafts = batches.visits * batches.generations
    return int(drafts * (settings.query + calibrating) * len(settings.reward.followers))


def _calibrating(settings: TrainSettings, examples: int) -> int:
    """Calls that a follower's calibration adds to an instruction made from so many examples."""
    return {Reads.CONTENT_FREE: len(CONTENT_FREE), Reads.SUPPORT: examples}.get(READS[settings.reward.calibration], 0)


def _settings(grpo: GrpoPlan) -> dict[str, SettingValue]:
    """Every setting of ours that has a say in what is learned, by its dotted name."""
    settings = grpo.settings
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


def _options(grpo: GrpoPlan, config: Any, batches: Batches) -> dict[str, SettingValue]:
    """TRL's options: those that somebody chose, those that follow from ours, and a default that the paper names."""
    papers = {**PAPER, **TRL, "save_steps": SAVED * grpo.boundary}
    listed: dict[str, SettingValue] = {}
    for name, value in grpo.options.items():
        origin = "given" if name in grpo.settings.trl else "promptmii" if name in OURS else "paper"
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


@dataclass(frozen=True)
class Shape:
    """What of a model decides the memory it takes."""

    weights: float
    layers: int
    hidden: int
    inner: int

    @classmethod
    def of(cls, reference: str) -> "Shape | None":
        """Of a model on this machine, from its configuration; `None` where that is not here."""
        try:
            found = weights_of(reference)
            if found is None:
                return None
            with quiet(), torch.device("meta"):
                config: Any = AutoConfig.from_pretrained(found.source, local_files_only=True)
                model: Any = AutoModelForCausalLM.from_config(config)
        except (OSError, ValueError, UnknownModelError):
            return None
        weights = sum(part.numel() for part in model.parameters())
        return cls(weights, config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    def adapter(self, rank: int) -> float:
        """Weights of an adapter on all seven projections of each layer."""
        return self.layers * rank * (8 * self.hidden + 3 * (self.hidden + self.inner))


def stage(options: Mapping[str, Any]) -> int:
    """Which of its stages DeepSpeed runs; 0 without it, or where its file is not read here."""
    given = options.get("deepspeed")
    config: Any = ZERO3 if given == "zero3" else given if isinstance(given, Mapping) else {}
    return int(config.get("zero_optimization", {}).get("stage", 0))


def memory(grpo: GrpoPlan, gpu: float = ASSUMED) -> tuple[Term, ...]:
    """The terms for one GPU of `gpu` GiB; empty where the model's configuration is not on this machine."""
    settings, options, shape = grpo.settings, grpo.options, Shape.of(grpo.settings.model)
    if shape is None:
        return ()
    spread = settings.plan.processes if stage(options) == 3 else 1
    terms = [*_weights(shape, settings, options, spread), _activations(shape, settings, options)]
    if spread > 1:
        live = min(LIVE, shape.weights)
        terms.append(Term("layers of a pass", live * 2 / GIB, f"{live:.3g} weights gathered x 2 bytes"))
    if not options.get("use_vllm") and spread > 1:
        how = f"{shape.weights:.3g} weights x 2 bytes, to write drafts and to validate; none with vLLM"
        terms.append(Term("all weights gathered", shape.weights * 2 / GIB, how))
    if options.get("use_vllm") and options.get("vllm_mode") != "server":
        share = float(options.get("vllm_gpu_memory_utilization", 0.3))
        terms.append(Term("vLLM", share * gpu, f"{share:g} (trl.vllm_gpu_memory_utilization) x {gpu:.0f} GiB"))
    for reference in settings.reward.followers:
        if not Served.parse(reference) and (read := Shape.of(reference)):
            terms.append(Term(f"follower {reference}", read.weights * 2 / GIB, f"{read.weights:.3g} weights x 2 bytes"))
    return (*terms, Term("runtime", RUNTIME, "assumed"))


def _weights(shape: Shape, settings: TrainSettings, options: Mapping[str, Any], spread: int) -> list[Term]:
    count, among = shape.weights, f" / {spread} processes" if spread > 1 else ""
    if settings.lora:
        adapter = shape.adapter(settings.lora.rank)
        terms = [
            Term("frozen weights", count * 2 / spread / GIB, f"{count:.3g} x 2 bytes{among}"),
            Term("adapter in training", adapter * 16 / spread / GIB, f"{adapter:.3g} x 16 bytes{among}"),
        ]
        if not options.get("use_vllm") and not stage(options):
            how = f"{count:.3g} x 2 bytes, while drafts are written; none with vLLM"
            terms.append(Term("weights with the adapter merged", count * 2 / GIB, how))
        return terms
    # 16-bit weights and gradients with 32-bit copies and Adam's two moments; or 32-bit ones and autocast's copies.
    each = 16 if stage(options) else 18
    terms = [Term("weights in training", count * each / spread / GIB, f"{count:.3g} x {each} bytes{among}")]
    if options.get("beta"):
        terms.append(Term("weights of the start", count * 2 / spread / GIB, f"{count:.3g} x 2 bytes{among} (trl.beta)"))
    return terms


def _activations(shape: Shape, settings: TrainSettings, options: Mapping[str, Any]) -> Term:
    rows = int(options["per_device_train_batch_size"])
    tokens = rows * (settings.longest_prompt + int(options["max_completion_length"]))
    layer = 8 * shape.hidden + 4 * shape.inner
    if options.get("activation_checkpointing"):
        values = shape.layers * shape.hidden + layer
        how = f"{tokens:,} tokens x ({shape.layers} layers x {shape.hidden} kept + {layer:,} of one layer) x 2 bytes"
    else:
        values = shape.layers * layer
        how = f"{tokens:,} tokens x {shape.layers} layers x {layer:,} x 2 bytes"
    return Term("activations", tokens * values * 2 / GIB, how)
