"""What happens beside the steps: the curves, validation, the best weights, and when to stop."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import psutil
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from promptmii.curves import VALIDATION
from promptmii.errors import UnsupportedError
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.models.base import ModelCard, Sampling
from promptmii.models.hf.engines import engine_for
from promptmii.models.local import Likelihoods, LocalModel
from promptmii.progress import Progress
from promptmii.train.loop import Best
from promptmii.train.rl.likelihoods import Drift
from promptmii.train.rl.trainer import PolicyTrainer, whole_weights
from promptmii.train.run_folder import RunFolder
from promptmii.train.settings import TrainSettings
from promptmii.train.validation import Case, Outcome, judge, summary, write
from promptmii.tuning import TrainableModel

NAMES = {
    "reward": "train/reward",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "clipped",
    "frac_reward_zero_std": "zero_variance",
    "learning_rate": "train/lr",
    "grad_norm": "train/gradient",
    "loss": "train/loss",
}
"""TRL's names of what the curves show under ours; other names stay."""
DROPPED = ("epoch", "step_time", "num_tokens")


@dataclass(eq=False)
class Watch(TrainerCallback):
    """Called by the trainer after each step."""

    settings: TrainSettings
    asked: Writer
    """How the generator is asked."""
    policy: TrainableModel
    followers: Sequence[Follower]
    cases: Sequence[Case]
    """What is validated."""
    best: Best
    folder: RunFolder | None
    """`None` in the processes that only take part."""
    progress: Progress
    _equal: int = 0
    """Steps in a row without any difference between drafts."""
    _began: float = 0.0

    def attach(self, trainer: PolicyTrainer, boundary: int) -> None:
        """Watch this trainer, whose weights are still those of the start. `boundary` are the steps of one rollout."""
        self._trainer = trainer
        self._boundary = boundary
        self._drift = Drift(trainer.accelerator.unwrap_model(trainer.model))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Validate the start, or find out where a resumed run stood."""
        if state.global_step:
            self.best.recall(state.global_step)
        else:
            self._validate(state.global_step)
        self.progress.step("Training", state.max_steps - state.global_step, "steps")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._began = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Validate when it is time, and stop if nothing has been gained for long."""
        self._trainer.clock.add("step", perf_counter() - self._began)
        self.progress.advance()
        chosen = self.settings.validation
        if state.global_step % chosen.every == 0 or state.global_step == state.max_steps:
            self._validate(state.global_step)
        # Between rollouts only: elsewhere a run cannot go on exactly.
        between = state.global_step % self._boundary == 0
        if chosen.patience is not None and self.best.since >= chosen.patience and between:
            self.progress.note(f"Stopped at step {state.global_step}: {self.best.since} validations without a gain")
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        given: dict[str, Any] = logs or {}
        if "loss" not in given:
            return
        numbers = {
            NAMES.get(name, name): float(value)
            for name, value in given.items()
            if isinstance(value, int | float) and name not in DROPPED
        } | self._trainer.clock.take()
        numbers["memory/gib"] = _gib(self._trainer.accelerator.device)
        self._write(state.global_step, numbers)
        if "train/reward" in numbers:
            self.progress.note(
                f"Step {state.global_step} of {state.max_steps}: reward {numbers['train/reward']:.3f}, "
                f"length {numbers.get('length', 0):.0f}, {numbers.get('seconds/step', 0):.1f} s"
            )
        self._look_for_signal(numbers)

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self.folder:
            self.folder.metrics(step, numbers)

    def _look_for_signal(self, numbers: Mapping[str, float]) -> None:
        if "zero_variance" not in numbers:
            return
        self._equal = self._equal + 1 if numbers["zero_variance"] == 1.0 else 0
        if self._equal and self._equal % self.settings.stuck == 0:
            self.progress.note(
                f"In {self._equal} steps all drafts of each group got the same reward, so nothing is learned. "
                f"{_cause(numbers)}"
            )

    def _validate(self, step: int) -> None:
        if not self.cases:
            return
        started = perf_counter()
        trainer = self._trainer
        trained: Any = trainer.model
        training = trained.training
        trained.eval()
        with self._writer(step) as model:
            written = write(self.asked.using(model), self.cases)
        drift = (
            {} if trainer.is_deepspeed_enabled else self._drift.of(trainer.bare, trainer.rollout, trainer.temperature)
        )
        trained.train(training)
        state = trainer.accelerator
        mine = written[state.process_index :: state.num_processes]
        outcomes = judge(mine, self.followers, self.settings.validation.rows)
        gathered: list[Outcome] = gather_object(outcomes)
        line = summary(gathered) | drift
        said = "not judged, because followers failed"
        if not line["validation/failed"]:
            better = self.best.improves(line[VALIDATION])
            said = f"{line[VALIDATION]:.3f}{' (best)' if better else ''}"
            if better:
                self._keep_best(step, {name: value for name, value in line.items() if name.startswith(VALIDATION)})
        line |= {"seconds/validation": perf_counter() - started}
        self._write(step, line)
        self._report(line)
        if self.folder:
            self.folder.samples([_row(step, outcome) for outcome in gathered])
        self.progress.note(f"Step {step}: validation {said}")

    def _report(self, line: Mapping[str, float]) -> None:
        """Send the line wherever `report_to` sends the steps. The trainer's own log would end the step's line."""
        trainer = self._trainer
        for callback in trainer.callback_handler.callbacks:
            if callback is not self:
                callback.on_log(trainer.args, trainer.state, trainer.control, logs=dict(line), model=trainer.model)

    @contextmanager
    def _writer(self, step: int) -> Generator[LocalModel]:
        """The policy of now, which all processes ask for the same: vLLM, or the bare model with all its weights."""
        trainer, policy = self._trainer, self.policy
        state = trainer.accelerator

        def shared(part: Write) -> LocalModel:
            length = int(policy.model.config.max_position_embeddings)
            card = ModelCard(policy.reference, f"step-{step}", length, gives_scores=False)
            return LocalModel(card, policy.form, SharedEngine(part, state.process_index, state.num_processes))

        if trainer.use_vllm:
            yield shared(trainer.write_greedily)
        elif not trainer.is_deepspeed_enabled:
            yield shared(engine_for(trainer.bare).write)
        else:
            with whole_weights(trainer) as model:
                yield shared(engine_for(model).write)

    def _keep_best(self, step: int, measured: Mapping[str, float]) -> None:
        trainer = self._trainer
        # The engine around the model knows how to gather its weights; every process takes part.
        spread = trainer.is_deepspeed_enabled
        state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped) if spread else None
        if self.folder:
            self.best.save(step, measured, state)


Write = Callable[[Sequence[Sequence[int]], Sequence[int], Sampling, Sequence[int]], list[list[int]]]
"""`Engine.write`: all that is shared."""


@dataclass(frozen=True)
class SharedEngine:
    """An `Engine` that writes its part of what every process is asked for, and gathers the others'.

    So any number of drafts works on any number of processes. Each writes as many rows as the others, because an engine
    that spans processes needs them in step.
    """

    part: Write
    process: int
    processes: int

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        sampling: Sampling,
        ends: Sequence[int],
        against: Sequence[int] = (),
    ) -> list[list[int]]:
        del against  # the card of its model knows no contrast
        size = -(-len(rows) // self.processes)
        mine = list(rows[self.process * size : (self.process + 1) * size])
        mine += list(rows[:1]) * (size - len(mine))  # to be in step; dropped below
        used = sorted(set(mine))
        written = self.part([prompts[row] for row in used], [used.index(row) for row in mine], sampling, ends)
        gathered: list[list[int]] = gather_object(written)
        return gathered[: len(rows)]

    def score(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], end: int) -> list[Likelihoods]:
        del prompts, options, end
        raise UnsupportedError("A writer that several processes share compares no likelihoods.")

    def close(self) -> None:
        """Nothing is held."""


def _gib(device: torch.device) -> float:
    """The most that tensors on a GPU have taken so far; elsewhere what this process takes now."""
    taken = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return taken / 2**30


def _row(step: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "step": step,
        "validation": outcome.case.task.name,
        "n": outcome.case.n,
        "macro_f1": outcome.macro_f1,
        "tokens": outcome.tokens,
        "text": outcome.text,
    }


def _cause(numbers: Mapping[str, float]) -> str:
    if numbers.get("unparsed", 0.0) > 0.9:
        return "The follower's answers are no labels: use a stronger follower, or reward.mode = 'choose'."
    if numbers.get("repeated", 0.0) > 0.9:
        return "The generator writes the same for each draft: raise trl.temperature."
    if numbers.get("length", 2.0) < 2.0:
        return "The generator writes nothing: warm it up with --stage sft."
    return (
        "The follower ignores the instruction, or too few query rows tell drafts apart: raise query, or use "
        "reward.mode = 'choose'."
    )
