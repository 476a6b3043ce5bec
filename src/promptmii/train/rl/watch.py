"""The trainer callback that logs curves, validates, saves the best weights and stops early."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import psutil
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from promptmii.errors import UnsupportedError
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.models.base import ModelCard, Sampling
from promptmii.models.batching import Tokens
from promptmii.models.hf.engines import engine_for
from promptmii.models.local import Engine, Likelihoods, LocalModel
from promptmii.progress import Progress
from promptmii.train.loop import Best
from promptmii.train.rl.likelihoods import Drift
from promptmii.train.rl.plan import GrpoPlan
from promptmii.train.rl.trainer import PolicyTrainer, whole_weights
from promptmii.train.run_folder import VALIDATION, RunFolder
from promptmii.train.validation import Case, Outcome, judge, summary, write

NAMES = {
    "reward": "train/reward",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "clipped",
    "frac_reward_zero_std": "zero_variance",
    "learning_rate": "train/lr",
    "grad_norm": "train/gradient",
    "loss": "train/loss",
}
"""Maps TRL's metric names to curve names. Other names stay the same."""
DROPPED = ("epoch", "step_time", "num_tokens")
"""TRL's metrics that the curves omit."""


@dataclass(eq=False)
class Watch(TrainerCallback):
    """Logs and validates a run as it trains; see the module."""

    trainer: PolicyTrainer
    """It must still have its initial weights."""
    grpo: GrpoPlan
    writer: Writer
    """Renders the generator's prompts. Validation replaces its model with the current policy."""
    followers: Sequence[Follower]
    cases: Sequence[Case]
    best: Best
    run: RunFolder | None
    """None except in the main process."""
    progress: Progress
    _last_unequal: int = 0
    """The last step with unequal rewards in a group."""
    _last_warned: int = 0
    _step_start: float = 0.0

    def __post_init__(self) -> None:
        self._drift = Drift(self.trainer.accelerator.unwrap_model(self.trainer.model))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Validate the initial weights; in a resumed run, restore the best value instead."""
        self._last_unequal = self._last_warned = state.global_step
        if state.global_step:
            self.best.recall(state.global_step)
        else:
            if self.cases:
                self.progress.step("Validating the initial weights")
            self._validate(state.global_step)
        self.progress.step("Training", state.max_steps - state.global_step, "steps")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._step_start = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Validate every `validation.every` steps, and stop after `validation.patience` without a gain."""
        self.trainer.clock.add("step", perf_counter() - self._step_start)
        self.progress.advance()
        validation = self.grpo.settings.validation
        if state.global_step % validation.every == 0 or state.global_step == state.max_steps:
            self._validate(state.global_step)
        between_rollouts = state.global_step % self.grpo.steps_per_rollout == 0  # where a run can resume exactly
        if validation.patience is not None and self.best.since >= validation.patience and between_rollouts:
            self.progress.note(f"Stopped at step {state.global_step}: {self.best.since} validations without a gain")
            control.should_training_stop = control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.global_step and self.best.step == 0:
            self.progress.note("No validation was better than that of the initial weights, so best/ holds these")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        raw: dict[str, Any] = logs or {}
        if "loss" not in raw:
            return
        values = {
            NAMES.get(name, name): float(value)
            for name, value in raw.items()
            if isinstance(value, int | float) and name not in DROPPED
        } | self.trainer.clock.take()
        values["memory/gib"] = _memory_gib(self.trainer.accelerator.device)
        if self.run:
            self.run.log_metrics(state.global_step, values)
        if "train/reward" in values:
            self.progress.note(
                f"Step {state.global_step} of {state.max_steps}: reward {values['train/reward']:.3f}, "
                f"length {values.get('length', 0):.0f}, {values.get('seconds/step', 0):.1f} s"
            )
        if "zero_variance" in values:
            self._warn_if_stuck(state.global_step, values)

    def _warn_if_stuck(self, step: int, values: Mapping[str, float]) -> None:
        if values["zero_variance"] < 1.0:
            self._last_unequal = self._last_warned = step
        elif step - self._last_warned >= self.grpo.settings.stuck:  # only the first step of a rollout has the value
            self._last_warned = step
            self.progress.note(
                f"In {step - self._last_unequal} steps all drafts of each group got the same reward, so nothing is "
                f"learned. {_cause(values)}"
            )

    def _validate(self, step: int) -> None:
        """Validate the current policy. All processes write together, then each judges its share of the cases."""
        if not self.cases:
            return
        start = perf_counter()
        trainer, accelerator = self.trainer, self.trainer.accelerator
        model: Any = trainer.model
        was_training = model.training
        model.eval()
        with self._current_policy(step) as policy:
            written = write(replace(self.writer, model=policy), self.cases)
        sharded = trainer.is_deepspeed_enabled
        drift = {} if sharded else self._drift.measure(trainer.bare, trainer.rollout, trainer.temperature)
        model.train(was_training)
        own_share = written[accelerator.process_index :: accelerator.num_processes]
        outcomes: list[Outcome] = gather_object(judge(own_share, self.followers, self.grpo.settings.validation.rows))
        values = summary(outcomes) | drift
        failure = next((outcome.failure for outcome in outcomes if outcome.failure), "followers failed")
        result = f"not judged: {failure}"
        if not values["validation/failed"]:
            better = self.best.improves(values[VALIDATION])
            result = f"{values[VALIDATION]:.3f}{' (best)' if better else ''}"
            if better:
                self._save_best(step, {name: value for name, value in values.items() if name.startswith(VALIDATION)})
        values |= {"seconds/validation": perf_counter() - start}
        self._report(values)
        if self.run:
            self.run.log_metrics(step, values)
            self.run.log_samples([_row(step, outcome) for outcome in outcomes])
        self.progress.note(f"Step {step}: validation {result}")

    def _report(self, values: Mapping[str, float]) -> None:
        """Send the values to the integrations in `report_to`. `Trainer.log` would mix them with the step's values."""
        trainer = self.trainer
        for callback in trainer.callback_handler.callbacks:
            if callback is not self:
                callback.on_log(trainer.args, trainer.state, trainer.control, logs=dict(values), model=trainer.model)

    @contextmanager
    def _current_policy(self, step: int) -> Generator[LocalModel]:
        """The current policy, run by all processes together: in vLLM, or as the bare model with all its weights."""
        trainer, policy, accelerator = self.trainer, self.best.policy, self.trainer.accelerator
        length = int(policy.model.config.get_text_config().max_position_embeddings)
        card = ModelCard(policy.reference, f"step-{step}", length, gives_scores=False)
        sharded = trainer.is_deepspeed_enabled and not trainer.use_vllm
        with whole_weights(trainer) if sharded else nullcontext(trainer.bare) as model:
            write = trainer.write_greedily if trainer.use_vllm else engine_for(model).write
            engine = _SharedEngine(write, accelerator.process_index, accelerator.num_processes)
            yield LocalModel(card, policy.form, engine)

    def _save_best(self, step: int, measured: Mapping[str, float]) -> None:
        trainer = self.trainer
        # DeepSpeed gathers the shards, and every process must take part.
        sharded = trainer.is_deepspeed_enabled
        weights: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
        if self.run:
            self.best.save(step, measured, weights)


@dataclass(frozen=True)
class _SharedEngine(Engine):
    """An `Engine` that writes its own share of the rows and gathers the rest from the other processes.

    It takes any number of rows and processes. Each process writes the same number of rows, because an engine that
    spans processes needs them to run in step.
    """

    local_write: Callable[[Sequence[Tokens], Sequence[int], Sampling, Tokens], list[list[int]]]
    """`Engine.write`, without `against`, in each process."""
    process: int
    processes: int

    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        del against  # unused, because the model's card says that it has no contrasts
        size = -(-len(rows) // self.processes)
        own = list(rows[self.process * size : (self.process + 1) * size])
        own += list(rows[:1]) * (size - len(own))  # padding, dropped below
        used = sorted(set(own))
        written = self.local_write([prompts[row] for row in used], [used.index(row) for row in own], sampling, ends)
        gathered: list[list[int]] = gather_object(written)
        return gathered[: len(rows)]

    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        del prompts, options, end
        raise UnsupportedError("A writer that several processes share gives no likelihoods.")


def _memory_gib(device: torch.device) -> float:
    """Peak memory of tensors on the GPU; without a GPU, the current memory of this process."""
    used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return used / 2**30


def _row(step: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "step": step,
        "validation": outcome.case.task.name,
        "n": outcome.case.n,
        "macro_f1": outcome.macro_f1,
        "tokens": outcome.tokens,
        "text": outcome.text,
    }


def _cause(values: Mapping[str, float]) -> str:
    if values.get("unparsed", 0.0) > 0.9:
        return "The follower's answers are not labels: use a stronger follower, or reward.mode = 'choose'."
    if values.get("repeated", 0.0) > 0.9:
        return "The generator writes the same text for each draft: raise trl.temperature."
    if values.get("length", 2.0) < 2.0:
        return "The generator writes nothing: warm it up with --stage sft."
    return (
        "The follower ignores the instruction, or too few query rows tell drafts apart: raise query, or use "
        "reward.mode = 'choose'."
    )
