"""From settings to TRL's configuration: the paper's recipe, what the settings change, and how the batches divide."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import get_available_reporting_integrations
from trl.trainer.grpo_config import GRPOConfig

from promptmii.errors import ConfigError, MissingDependencyError, nearest
from promptmii.extras import unmet
from promptmii.train.paper import SAVED, TRL
from promptmii.train.settings import TrainSettings

OURS: Mapping[str, Any] = {
    "per_device_train_batch_size": 4,
    "save_total_limit": 2,
    "logging_steps": 1,
    "report_to": "none",
    "activation_checkpointing": True,
}
"""What the authors' settings leave open."""
OWNED: Mapping[str, str] = {
    "output_dir": "-o",
    "seed": "seed",
    "data_seed": "seed",
    "generation_batch_size": "prompts",
    "steps_per_generation": "prompts",
    "gradient_accumulation_steps": "prompts_per_update",
    "num_train_epochs": "passes",
    "eval_strategy": "validation.every",
    "eval_steps": "validation.every",
    "resume_from_checkpoint": "--resume",
    "load_best_model_at_end": "the folder best/",
    "shuffle_dataset": "seed",
    "save_strategy": "trl.save_steps",
    "logging_strategy": "trl.logging_steps",
    "hub_token": "HF_TOKEN in the environment",
    "gradient_checkpointing": "trl.activation_checkpointing",
    "gradient_checkpointing_kwargs": "trl.activation_checkpointing_kwargs",
}
"""TRL options that are not to be set, by what to set instead."""

ZERO3: Mapping[str, Any] = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
"""What `trl.deepspeed = "zero3"` stands for: weights, gradients and optimiser spread over all processes."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_mode": ("server", "colocate"),
}
"""Values that TRL would refuse only at the first update, or only on a GPU. A test compares them with its code."""

LEAST: Mapping[str, float] = {
    "max_steps": 1,
    "save_steps": 1,
    "logging_steps": 1,
    "num_generations": 2,  # an instruction is compared with others for its task
    "num_iterations": 1,
    "max_completion_length": 1,
    "per_device_train_batch_size": 1,
    "temperature": 0.01,
}
"""Smallest values with a meaning. TRL takes less, and then trains on nothing or for ever."""


@dataclass(frozen=True)
class Batches:
    """How the work divides."""

    prompts: int
    generations: int
    per_update: int
    """Prompts that one optimiser step learns from."""
    processes: int
    per_device: int
    """Instructions of one forward pass on one device."""
    accumulation: int
    """Forward passes of one optimiser step."""
    steps: int
    """Optimiser steps of the run."""
    boundary: int
    """Optimiser steps from one rollout to the next; only from there a run resumes exactly."""
    save_every: int
    """Optimiser steps between two checkpoints."""

    @property
    def rollouts(self) -> int:
        """Of the run."""
        return math.ceil(self.steps / self.boundary)

    @property
    def visits(self) -> int:
        """Prompts of the run."""
        return self.rollouts * self.prompts


@dataclass(frozen=True)
class GrpoPlan:
    """The run as TRL will be told of it."""

    settings: TrainSettings
    options: Mapping[str, Any]
    """Of TRL: the paper's and ours, under those of the settings; names and values checked."""

    @property
    def per_update(self) -> int:
        """See `Batches`."""
        return self.settings.prompts_per_update or self.settings.prompts

    @property
    def boundary(self) -> int:
        """See `Batches`."""
        return self.settings.prompts // self.per_update * int(self.options["num_iterations"])

    def batches(self, visits_per_pass: float, processes: int) -> Batches:
        """How the work divides over `processes`. Raises `ConfigError` if it does not."""
        settings, per_device = self.settings, int(self.options["per_device_train_batch_size"])
        generations = int(self.options["num_generations"])
        instructions, share = self.per_update * generations, per_device * processes
        if instructions % share:
            raise ConfigError(
                f"An update of {self.per_update} prompts x {generations} generations = {instructions} instructions "
                f"does not divide into {processes} process(es) x {per_device} (trl.per_device_train_batch_size) = "
                f"{share}. Choose a divisor."
            )
        save_every, most = int(self.options["save_steps"]), int(self.options.get("max_steps", -1))
        for name, steps in (("save_steps", save_every), ("max_steps", max(most, 0))):
            if steps % self.boundary:
                raise ConfigError(
                    f"trl.{name} = {steps} is not a multiple of {self.boundary}, the updates per rollout. "
                    "A run can resume exactly only between rollouts."
                )
        steps = most if most > 0 else math.ceil(settings.passes * visits_per_pass / settings.prompts) * self.boundary
        return Batches(
            prompts=settings.prompts,
            generations=generations,
            per_update=self.per_update,
            processes=processes,
            per_device=per_device,
            accumulation=instructions // share,
            steps=steps,
            boundary=self.boundary,
            save_every=save_every,
        )

    def config(self, folder: Path, batches: Batches, *, cpu: bool, dry_run: bool = False) -> Any:
        """TRL's configuration. A dry run needs neither DeepSpeed nor vLLM, and plans any number of processes in one.

        Raises `ConfigError` with TRL's reason if it refuses an option.
        """
        options: dict[str, Any] = {**self.options, "max_steps": batches.steps}
        if dry_run:
            options |= {"deepspeed": None, "use_vllm": False}
        check_packages(options)
        if cpu:
            options |= {"use_cpu": True, "bf16": False, "fp16": False, "dataloader_pin_memory": False}
        if options.get("deepspeed") == "zero3":
            options["deepspeed"] = ZERO3
        try:
            config: Any = GRPOConfig(
                output_dir=str(folder),
                seed=self.settings.seed,
                generation_batch_size=batches.prompts * batches.generations,
                gradient_accumulation_steps=batches.accumulation * (batches.processes if dry_run else 1),
                num_train_epochs=1,
                save_strategy="steps",
                logging_strategy="steps",
                eval_strategy="no",
                shuffle_dataset=False,  # visits come in their own order
                remove_unused_columns=False,
                disable_tqdm=True,
                **options,
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"TRL refuses this configuration: {error}") from error
        if config.n_gpu > 1:
            config._n_gpu = 1  # each process trains on one GPU; TRL would spread the batch over all
        return config


def grpo_plan(settings: TrainSettings) -> GrpoPlan:
    """What the settings ask of TRL. Raises `ConfigError` for an option or a value that TRL does not know."""
    known = {field.name for field in fields(GRPOConfig) if field.init}
    for name in settings.trl:
        if name in OWNED:
            raise ConfigError(f"trl.{name} cannot be set here. Set {OWNED[name]} instead.")
        if name not in known:
            raise ConfigError(f"Unknown option trl.{name}. {_nearest(name, known)}")
    options = {**TRL, **OURS, **settings.trl}
    plan = GrpoPlan(settings, options)
    if settings.prompts % plan.per_update:
        raise ConfigError(
            f"prompts = {settings.prompts} does not divide into updates of prompts_per_update = {plan.per_update}."
        )
    _check_values(options, settings.longest_prompt)
    return GrpoPlan(settings, {"save_steps": SAVED * plan.boundary, **options})


def _check_values(options: Mapping[str, Any], longest_prompt: int) -> None:
    for name, least in LEAST.items():
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise ConfigError(f"trl.{name} is {value!r}; expected a number of {least} or more.")
    for name, values in CHOICES.items():
        if name in options and options[name] not in values:
            raise ConfigError(
                f"trl.{name} = {options[name]!r} is unknown to TRL. {nearest(str(options[name]), values)}"
            )
    window, longest = options.get("vllm_max_model_length"), longest_prompt + int(options["max_completion_length"])
    if options.get("use_vllm") and window and window < longest:
        raise ConfigError(
            f"trl.vllm_max_model_length = {window} is less than longest_prompt + trl.max_completion_length = "
            f"{longest}, so vLLM would refuse long prompts in the middle of the run. Set it to {longest} or more."
        )


def check_packages(chosen: Mapping[str, Any]) -> None:
    """Raise an error if what writes the drafts, spreads the weights or draws the curves is not here as TRL needs it."""
    for option, package in (("use_vllm", "vllm"), ("deepspeed", "deepspeed")):
        if chosen.get(option) and (lacking := unmet("gpu").get(package)):
            raise MissingDependencyError(f"trl.{option}", "gpu", lacking)
    named = chosen["report_to"] if isinstance(chosen["report_to"], list) else [chosen["report_to"]]
    here = get_available_reporting_integrations()
    if missing := [name for name in named if name not in (*here, "none", "all")]:
        raise ConfigError(
            f"trl.report_to names {missing[0]!r}, which is unknown or not installed. Here are: {', '.join(here)}."
        )


def _nearest(name: str, known: set[str]) -> str:
    """The nearest name alone: all of them would fill the screen."""
    hint = nearest(name, sorted(known)).partition(" Known: ")[0]
    return hint if hint.startswith("Did you mean") else "The options are those of trl.GRPOConfig."
