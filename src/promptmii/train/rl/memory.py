"""The memory of one GPU in training, by arithmetic that each term shows. No weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.models import weights_of
from promptmii.models.http.config import Served
from promptmii.train.rl.plan import ZERO3, GrpoPlan
from promptmii.train.settings import TrainSettings

try:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from promptmii.models.hf.model import quiet
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

GIB = 2.0**30
ASSUMED = 80.0
"""GiB of a GPU, if this machine has none."""
LIVE = 1e9
"""Weights that ZeRO-3 keeps gathered during a pass (its stage3_max_live_parameters)."""
RUNTIME = 3.0
"""GiB of CUDA, NCCL and what lies unused between blocks. Assumed."""


@dataclass(frozen=True)
class Term:
    """A part of the memory."""

    name: str
    gib: float
    how: str


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


def memory(settings: TrainSettings, grpo: GrpoPlan, gpu: float = ASSUMED) -> tuple[Term, ...]:
    """The terms for one GPU of `gpu` GiB; empty where the model's configuration is not on this machine."""
    shape, options = Shape.of(settings.model), grpo.options
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
