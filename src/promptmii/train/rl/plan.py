"""Turns the settings into TRL's configuration and the batches of a run."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import get_available_reporting_integrations
from trl.trainer.grpo_config import GRPOConfig

from promptmii.errors import ConfigError, MissingDependencyError, UnknownModelError
from promptmii.extras import unmet
from promptmii.messages import counted, nearest
from promptmii.train.paper import SAVE_EVERY, TRL
from promptmii.train.settings import TrainSettings
from promptmii.tuning import trainable_weights

DEFAULTS: Mapping[str, Any] = {
    "per_device_train_batch_size": 4,
    "save_total_limit": 2,
    "logging_steps": 1,
    "report_to": "none",
    "activation_checkpointing": True,
}
"""Values that promptmii sets for TRL options that the paper does not mention."""
RESERVED: Mapping[str, str] = {
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
"""TRL options that users cannot set, and what to set instead."""
ZERO3: Mapping[str, Any] = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
"""What `trl.deepspeed = "zero3"` stands for: all processes share weights, gradients and optimiser state in shards."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_mode": ("server", "colocate"),
}
"""Valid values that TRL checks only at the first update, or only on a GPU. A test compares `loss_type` with TRL."""
MINIMA: Mapping[str, float] = {
    "max_steps": 1,
    "save_steps": 1,
    "logging_steps": 1,
    "num_generations": 2,  # GRPO compares each instruction with the others of its group
    "num_iterations": 1,
    "max_completion_length": 1,
    "per_device_train_batch_size": 1,
    "temperature": 0.01,
}
"""Smallest meaningful values. With smaller ones, TRL trains on nothing or never stops."""


@dataclass(frozen=True)
class Batches:
    """How the work of a run is divided."""

    prompts: int
    generations: int
    per_update: int
    """Prompts per optimiser step."""
    processes: int
    per_device: int
    """Instructions per forward pass on one device."""
    accumulation: int
    """Forward passes per optimiser step."""
    steps: int
    """Optimiser steps in the run."""
    steps_per_rollout: int
    """Optimiser steps per rollout. A run can resume exactly only between rollouts."""
    save_every: int
    """Optimiser steps between checkpoints."""

    @property
    def rollouts(self) -> int:
        """Rollouts in the run."""
        return math.ceil(self.steps / self.steps_per_rollout)

    @property
    def visits(self) -> int:
        """Prompts in the run."""
        return self.rollouts * self.prompts


@dataclass(frozen=True)
class GrpoPlan:
    """The settings of a run and its complete TRL options."""

    settings: TrainSettings
    options: Mapping[str, Any]
    """Checked TRL options: the user's, with promptmii's and the paper's as defaults."""

    @property
    def per_update(self) -> int:
        """Prompts per optimiser step."""
        return self.settings.prompts_per_update or self.settings.prompts

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps per rollout."""
        return self.settings.prompts // self.per_update * int(self.options["num_iterations"])

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        at_once = int(self.options["per_device_train_batch_size"]) * self.settings.plan.processes
        return self.per_update * int(self.options["num_generations"]) // at_once

    def batches(self, visits_per_pass: float) -> Batches:
        """The batches of a run whose passes have this many visits."""
        settings, options = self.settings, self.options
        rollouts = math.ceil(settings.passes * visits_per_pass / settings.prompts)
        return Batches(
            prompts=settings.prompts,
            generations=int(options["num_generations"]),
            per_update=self.per_update,
            processes=settings.plan.processes,
            per_device=int(options["per_device_train_batch_size"]),
            accumulation=self.accumulation,
            steps=int(options.get("max_steps", rollouts * self.steps_per_rollout)),
            steps_per_rollout=self.steps_per_rollout,
            save_every=int(options["save_steps"]),
        )

    def config(self, folder: Path, *, cpu: bool, dry_run: bool = False) -> Any:
        """Build TRL's configuration. It lacks the number of steps, unless the user gave it.

        A dry run needs neither DeepSpeed nor vLLM, and plans for any number of processes in one.

        Raises `ConfigError` with TRL's reason if TRL refuses an option.
        """
        options, settings = dict(self.options), self.settings
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
                seed=settings.seed,
                generation_batch_size=settings.prompts * int(options["num_generations"]),
                gradient_accumulation_steps=self.accumulation * (settings.plan.processes if dry_run else 1),
                num_train_epochs=1,
                save_strategy="steps",
                logging_strategy="steps",
                eval_strategy="no",
                shuffle_dataset=False,  # the visits are already shuffled
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
    """Complete and check the TRL options.

    Raises `ConfigError` for an unknown option, an invalid value or model, or work that does not divide evenly.
    """
    with suppress(UnknownModelError):  # a plan needs no weights on this machine
        trainable_weights(settings.model)
    option_names = {field.name for field in fields(GRPOConfig) if field.init}
    for name in settings.trl:
        if name in RESERVED:
            raise ConfigError(f"trl.{name} cannot be set here. Set {RESERVED[name]} instead.")
        if name not in option_names:
            hint = nearest(name, sorted(option_names)).partition(" Known: ")[0]  # the full list would fill a screen
            hint = hint if hint.startswith("Did you mean") else "The options are those of trl.GRPOConfig."
            raise ConfigError(f"Unknown option trl.{name}. {hint}")
    options = {**TRL, **DEFAULTS, **settings.trl}
    plan = GrpoPlan(settings, options)
    if settings.prompts % plan.per_update:
        raise ConfigError(
            f"prompts = {settings.prompts} does not divide into updates of prompts_per_update = {plan.per_update}."
        )
    _check_values(options, settings.longest_prompt)
    plan = GrpoPlan(settings, {"save_steps": SAVE_EVERY * plan.steps_per_rollout, **options})
    _check_division(plan)
    return plan


def _check_division(plan: GrpoPlan) -> None:
    processes, options = plan.settings.plan.processes, plan.options
    generations, per_device = int(options["num_generations"]), int(options["per_device_train_batch_size"])
    instructions, at_once = plan.per_update * generations, per_device * processes
    if instructions % at_once:
        raise ConfigError(
            f"An update of {plan.per_update} prompts x {generations} generations = {instructions} instructions "
            f"does not divide into {counted(processes, 'process')} x {per_device} "
            f"(trl.per_device_train_batch_size) = {at_once}. Choose a divisor."
        )
    for name in ("save_steps", "max_steps"):
        if int(options.get(name, 0)) % plan.steps_per_rollout:
            raise ConfigError(
                f"trl.{name} = {options[name]} is not a multiple of {plan.steps_per_rollout}, the updates per "
                "rollout. A run can resume exactly only between rollouts."
            )


def _check_values(options: Mapping[str, Any], longest_prompt: int) -> None:
    for name, minimum in MINIMA.items():
        value = options.get(name, minimum)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value < math.inf:
            raise ConfigError(f"trl.{name} is {value!r}; expected a number of {minimum} or more.")
    top_p = options["top_p"]
    if isinstance(top_p, bool) or not isinstance(top_p, int | float) or not 0 < top_p <= 1:
        raise ConfigError(f"trl.top_p is {top_p!r}; expected a number above 0, up to 1.")
    for name, values in CHOICES.items():
        if name in options and options[name] not in values:
            raise ConfigError(
                f"trl.{name} = {options[name]!r} is unknown to TRL. {nearest(str(options[name]), values)}"
            )
    context, longest = options.get("vllm_max_model_length"), longest_prompt + int(options["max_completion_length"])
    if options.get("use_vllm") and context and context < longest:
        raise ConfigError(
            f"trl.vllm_max_model_length = {context} is less than longest_prompt + trl.max_completion_length = "
            f"{longest}, so vLLM would refuse long prompts in the middle of the run. Set it to {longest} or more."
        )


def check_packages(options: Mapping[str, Any]) -> None:
    """Raise `MissingDependencyError` or `ConfigError` if a package that the options need is not installed."""
    for option, package in (("use_vllm", "vllm"), ("deepspeed", "deepspeed")):
        if options.get(option) and (requirement := unmet("gpu").get(package)):
            raise MissingDependencyError(f"trl.{option}", "gpu", requirement)
    names = options["report_to"] if isinstance(options["report_to"], list) else [options["report_to"]]
    installed = get_available_reporting_integrations()
    if missing := [name for name in names if name not in (*installed, "none", "all")]:
        raise ConfigError(
            f"trl.report_to names {missing[0]!r}, which is unknown or not installed. Installed: {', '.join(installed)}."
        )
