"""From settings to TRL's configuration: the paper's recipe, what the settings change of it, and the algebra of the batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from promptmii.errors import ConfigError, MissingDependencyError, nearest
from promptmii.train.settings import PAPER_SCHEDULE, TrainSettings

PAPER: Mapping[str, Any] = {
    "learning_rate": 2e-6,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0.033,  # below 1: a share of all steps
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "num_generations": 5,
    "num_iterations": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_completion_length": 1024,
    "beta": 0.0,
    "epsilon": 0.2,
    "epsilon_high": 0.4,
    "delta": 3.0,
    "loss_type": "grpo",
    "scale_rewards": "group",
    "vllm_importance_sampling_correction": False,
}
"""The authors' settings in TRL's terms."""
PAPER_RUN: Mapping[str, Any] = {
    "schedule": PAPER_SCHEDULE,
    "query": 20,
    "prompts": 64,
    "prompts_per_update": 32,
    "passes": 30.0,
    "longest_prompt": 4096,
    "reward.mode": "generate",
    "reward.calibration": "none",
    "reward.measure": "macro_f1",
    "reward.token_price": 0.0,
    "reward.copy_penalty": 0.0,
    "reward.unfinished_penalty": 0.0,
    "validation.share": 0.1,
    "generation_batch_size": 320,
    "entropy_coef": 0.0,
}
"""The rest of what the authors say, in terms of our settings and of what follows from them."""
VALIDATED, SAVED = 15, 50
"""Rollouts from one validation and from one checkpoint to the next: the authors' software counts those, TRL counts optimiser steps."""
OURS: Mapping[str, Any] = {
    "per_device_train_batch_size": 4,
    "save_total_limit": 2,
    "logging_steps": 1,
    "report_to": "none",
    "activation_checkpointing": True,
}
"""What the authors' settings leave open."""
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}

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
}
"""TRL options that follow from settings, by what to set instead."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_mode": ("server", "colocate"),
}
"""Values that TRL itself would refuse at the first update only, or on a GPU only. It lists them nowhere; a test compares its code."""

REPORTERS = ("tensorboard", "trackio", "wandb", "mlflow", "swanlab")
"""Programs for curves whose packages are named as TRL names them."""


@dataclass(frozen=True)
class Algebra:
    """How the batches divide."""

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
    iterations: int
    save_every: int

    @property
    def boundary(self) -> int:
        """Optimiser steps from one rollout to the next; a run resumes exactly from there only."""
        return self.prompts // self.per_update * self.iterations

    @property
    def rollouts(self) -> int:
        """Of the run."""
        return math.ceil(self.steps / self.boundary)

    @property
    def visits(self) -> int:
        """Prompts of the run."""
        return self.rollouts * self.prompts


def updates_per_rollout(settings: TrainSettings) -> int:
    """Optimiser steps from one rollout to the next, where the prompts divide."""
    iterations = int(settings.trl.get("num_iterations", PAPER["num_iterations"]))
    return max(settings.prompts // (settings.prompts_per_update or settings.prompts) * iterations, 1)


def options(settings: TrainSettings) -> dict[str, Any]:
    """The paper's options and ours with those of the settings over them.

    Raises `ConfigError` for a name or a value that TRL does not know, and for a window of vLLM that is too short for prompt and draft.
    """
    known = {field.name for field in fields(_grpo_config()) if field.init}
    for name in settings.trl:
        if name in OWNED:
            raise ConfigError(f"trl.{name} follows from other settings. Set {OWNED[name]} instead.")
        if name not in known:
            raise ConfigError(f"Unknown option trl.{name}. {_nearest(name, known)}")
    given = {RENAMED.get(name, name): value for name, value in settings.trl.items()}
    chosen = {**PAPER, **OURS, "save_steps": SAVED * updates_per_rollout(settings), **given}
    for name, values in CHOICES.items():
        if name in chosen and chosen[name] not in values:
            raise ConfigError(f"trl.{name} = {chosen[name]!r} is unknown to TRL. {nearest(str(chosen[name]), values)}")
    window, draft = chosen.get("vllm_max_model_length"), int(chosen["max_completion_length"])
    if chosen.get("use_vllm") and window and window < settings.longest_prompt + draft:
        raise ConfigError(
            f"trl.vllm_max_model_length = {window} is less than longest_prompt + trl.max_completion_length = {settings.longest_prompt} + "
            f"{draft}, so vLLM would refuse long prompts in the middle of the run. Set it to {settings.longest_prompt + draft} or more."
        )
    return chosen


def algebra(settings: TrainSettings, visits_per_pass: float, processes: int) -> Algebra:
    """How the batches divide over `processes`. Raises `ConfigError` where they do not."""
    chosen = options(settings)
    per_device, generations, iterations = (
        int(chosen[name]) for name in ("per_device_train_batch_size", "num_generations", "num_iterations")
    )
    if generations < 2:
        raise ConfigError(
            f"trl.num_generations is {generations}; an instruction is compared with others for its task, so 2 or more."
        )
    per_update = settings.prompts_per_update or settings.prompts
    if settings.prompts % per_update:
        raise ConfigError(
            f"prompts = {settings.prompts} does not divide into updates of prompts_per_update = {per_update}."
        )
    share = per_device * processes
    if per_update * generations % share:
        raise ConfigError(
            f"An update of {per_update} prompts x {generations} generations = {per_update * generations} instructions does not divide into "
            f"{processes} process(es) x {per_device} (trl.per_device_train_batch_size) = {share}. Choose a divisor."
        )
    boundary = updates_per_rollout(settings)
    save_every, given = int(chosen["save_steps"]), int(chosen.get("max_steps", -1))
    for name, steps in (("save_steps", save_every), ("max_steps", max(given, 0))):
        if steps % boundary:
            raise ConfigError(
                f"trl.{name} = {steps} is no multiple of {boundary}, the updates of one rollout. "
                "Only between rollouts can a run resume exactly."
            )
    steps = given if given > 0 else math.ceil(settings.passes * visits_per_pass / settings.prompts) * boundary
    accumulation = per_update * generations // share
    return Algebra(
        settings.prompts, generations, per_update, processes, per_device, accumulation, steps, iterations, save_every
    )


def resolve(settings: TrainSettings, folder: Path, batches: Algebra, *, cpu: bool, processes: int | None = None) -> Any:
    """TRL's configuration of the run; `processes` are those of this program, where a larger run is only planned.

    Raises `ConfigError` with TRL's own reason where it refuses an option.
    """
    chosen = {**options(settings), "max_steps": batches.steps}
    _check_reporters(chosen["report_to"] if isinstance(chosen["report_to"], list) else [chosen["report_to"]])
    if cpu:
        chosen = {
            **chosen,
            "use_cpu": True,
            "bf16": False,
            "fp16": False,
            "dataloader_pin_memory": False,
            "use_vllm": False,
        }
        chosen.pop("deepspeed", None)
    try:
        return _grpo_config()(
            output_dir=str(folder),
            seed=settings.seed,
            generation_batch_size=batches.prompts * batches.generations,
            gradient_accumulation_steps=batches.accumulation * (batches.processes // (processes or batches.processes)),
            num_train_epochs=1,
            save_strategy="steps",
            logging_strategy="steps",
            eval_strategy="no",
            shuffle_dataset=False,  # visits come in the deck's order
            remove_unused_columns=False,
            disable_tqdm=True,
            **chosen,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"TRL refuses this configuration: {error}") from error


def _check_reporters(named: Sequence[Any]) -> None:
    """Raises `ConfigError` where a program that draws the curves is not installed."""
    missing = [name for name in named if name in REPORTERS and find_spec(name) is None]
    if missing:
        raise ConfigError(f"trl.report_to names {missing[0]}, which is not installed: pip install {missing[0]}")


def _grpo_config() -> Any:
    try:
        from trl.trainer.grpo_config import GRPOConfig
    except ImportError as error:
        raise MissingDependencyError("Training with reinforcement learning", "train") from error
    return GRPOConfig


def _nearest(name: str, known: set[str]) -> str:
    """The nearest name alone: all of them would fill the screen."""
    hint = nearest(name, sorted(known)).partition(" Known: ")[0]
    return hint if hint.startswith("Did you mean") else "The options are those of trl.GRPOConfig."
