"""An estimate of the memory that a run needs per GPU, or on a CPU, from the settings and the model's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from promptmii.errors import UnknownModelError
from promptmii.models import weights_of
from promptmii.models.hf import quiet
from promptmii.models.references import ServerReference
from promptmii.train.rl.likelihoods import supported
from promptmii.train.rl.plan import ZERO3, GrpoPlan

GIB = 2.0**30
ASSUMED_GPU = 80.0
"""GiB of a GPU, used if this machine has none."""
LIVE = 1e9
"""Weights that ZeRO-3 keeps gathered during a pass (its stage3_max_live_parameters)."""
RUNTIME = 3.0
"""GiB for the libraries (CUDA, NCCL) and fragmentation; an assumption."""


@dataclass(frozen=True)
class Term:
    """One part of the estimate."""

    name: str
    gib: float
    how: str
    """The calculation, for the user."""


@dataclass(frozen=True)
class ModelSize:
    """The dimensions of a model that determine its memory use."""

    weights: float
    layers: int
    hidden: int
    inner: int
    shares: bool
    """Drafts share the computation of their prompt if one process trains."""

    @classmethod
    def of(cls, reference: str) -> "ModelSize | None":
        """The size from the model's configuration, or None if this machine lacks it or it names no such sizes."""
        try:
            location = weights_of(reference)
            if location is None:
                return None
            with quiet(), torch.device("meta"):
                config: Any = AutoConfig.from_pretrained(location.source, local_files_only=True)
                model: Any = AutoModelForCausalLM.from_config(config)
            layers, hidden, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
            return cls(model.num_parameters(), layers, hidden, inner, supported(config))
        except (OSError, ValueError, AttributeError, UnknownModelError):
            return None

    def adapter(self, rank: int) -> float:
        """Number of weights in an adapter on all seven projections of each layer."""
        return self.layers * rank * (8 * self.hidden + 3 * (self.hidden + self.inner))


def zero_stage(options: Mapping[str, Any]) -> int:
    """DeepSpeed's ZeRO stage, or 0 if DeepSpeed is off or configured in a file."""
    deepspeed = options.get("deepspeed")
    config: Any = ZERO3 if deepspeed == "zero3" else deepspeed if isinstance(deepspeed, Mapping) else {}
    return int(config.get("zero_optimization", {}).get("stage", 0))


def memory_terms(grpo: GrpoPlan, gpu: float | None = ASSUMED_GPU) -> tuple[Term, ...]:
    """The terms for one GPU of `gpu` GiB, or for a CPU if None, which may compute in 32 bits.

    Empty if this machine does not have the model's configuration.
    """
    settings, options, size = grpo.settings, grpo.options, ModelSize.of(grpo.settings.model)
    if size is None:
        return ()
    zero, vllm, width = zero_stage(options), options.get("use_vllm"), 2 if gpu else 4
    shards = settings.plan.processes if zero == 3 else 1
    if settings.lora:
        terms = [
            _weights("frozen weights", size.weights, width, shards),
            _weights("adapter in training", size.adapter(settings.lora.rank), 16, shards),
        ]
        if not vllm and not zero:
            note = ", while drafts are written; none with vLLM"
            terms.append(_weights("weights with the adapter merged", size.weights, width, note=note))
    else:
        # 16-bit weights and gradients, 32-bit copies and Adam's two moments; or 32-bit weights and autocast's copies.
        terms = [_weights("weights in training", size.weights, 16 if zero else 18, shards)]
        if options.get("beta"):
            terms.append(_weights("weights of the start", size.weights, 2, shards, " (trl.beta)"))
    terms.append(_activations(size, grpo, width))
    if shards > 1:
        terms.append(_weights("layers of a pass", min(LIVE, size.weights), 2, note=", gathered"))
        if not vllm:
            note = ", to write drafts and to validate; none with vLLM"
            terms.append(_weights("all weights gathered", size.weights, 2, note=note))
    if gpu and vllm and options.get("vllm_mode") != "server":
        share = float(options.get("vllm_gpu_memory_utilization", 0.3))
        terms.append(Term("vLLM", share * gpu, f"{share:g} (trl.vllm_gpu_memory_utilization) x {gpu:.0f} GiB"))
    for reference in settings.reward.followers:
        if not ServerReference.parse(reference) and (follower := ModelSize.of(reference)):
            terms.append(_weights(f"follower {reference}", follower.weights, width))
    return (*terms, Term("runtime", RUNTIME, "assumed"))


def _weights(name: str, count: float, width: int, shards: int = 1, note: str = "") -> Term:
    """`count` weights of `width` bytes each, divided into `shards`."""
    among = f" / {shards} processes" if shards > 1 else ""
    return Term(name, count * width / shards / GIB, f"{count:.3g} weights x {width} bytes{among}{note}")


def _activations(size: ModelSize, grpo: GrpoPlan, width: int) -> Term:
    rows = int(grpo.options["per_device_train_batch_size"])
    alone = grpo.settings.plan.processes == 1 and not grpo.options.get("deepspeed")
    prompts = min(rows, grpo.settings.prompts) if alone and size.shares else rows
    tokens = prompts * grpo.settings.longest_prompt + rows * int(grpo.options["max_completion_length"])
    layer, inputs = 8 * size.hidden + 4 * size.inner, size.layers * size.hidden
    checkpointing = grpo.options.get("activation_checkpointing")
    values = inputs + layer if checkpointing else size.layers * layer
    stored = f"inputs of {size.layers} layers, all of one" if checkpointing else f"all of {size.layers} layers"
    how = f"{tokens:,} tokens x {values:,} values ({stored}) x {width} bytes"
    return Term("activations", tokens * values * width / GIB, how)
