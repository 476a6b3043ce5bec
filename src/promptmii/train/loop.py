"""The training loop that fine-tuning and RL share: safeguards, checkpoints and the best weights."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback

from promptmii.errors import ModelError, OutputError, PromptMIIError
from promptmii.files import atomic_folder
from promptmii.models.hf import quiet
from promptmii.train.run_folder import is_training_run, read_curves
from promptmii.tuning import TrainableModel


@dataclass(eq=False)
class Safeguards(TrainerCallback):
    """Stops a run before its weights become NaN or infinite, and makes checkpoints loadable on other machines.

    A resumed run also saves and validates at the intervals that it is given now.
    """

    policy: TrainableModel
    cure: str
    """Settings to lower if training diverges."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Use the intervals of this configuration; a resumed trainer uses those saved in the checkpoint."""
        state.compute_steps(args, state.max_steps)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Raise `ModelError` before a NaN or infinite gradient is applied."""
        gradients = [weights.grad for weights in self.policy.trained.parameters() if weights.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in gradients):
            raise self._diverged(state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Check sharded gradients too: they are known only after the step, but before its weights are saved."""
        if not torch.isfinite(torch.tensor(float((logs or {}).get("grad_norm", 0.0)))):
            raise self._diverged(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Name the base model portably: see `TrainableModel.store_portable_base`."""
        if state.is_world_process_zero:
            self.policy.store_portable_base(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _diverged(self, step: int) -> ModelError:
        return ModelError(
            f"At step {step} the gradient is NaN or infinite. The last checkpoint is valid: continue with --resume, or "
            f"start again with a lower {self.cure}."
        )


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first. The trainer state is written last, so it marks them."""
    complete: dict[int, Path] = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):  # a truncated file, or a copy named checkpoint-2-old
            json.loads(state.read_text("utf-8"))
            complete[int(state.parent.name.removeprefix("checkpoint-"))] = state.parent
    return [complete[step] for step in sorted(complete)]


def run_loop(trainer: Trainer, folder: Path, *, resume: bool) -> None:
    """Train to the end; with `resume`, start from the newest complete checkpoint.

    Raises `OutputError` if a checkpoint cannot be written, `ModelError` if another process of the run has ended.
    """
    trainer.remove_callback(PrinterCallback)  # other callbacks show the progress
    newest = checkpoints(folder)[-1:] if resume else []
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=str(newest[0]) if newest else None)
    except PromptMIIError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if torch.distributed.is_initialized() and "by peer" in str(error):  # connection reset or closed by peer
            raise ModelError(
                "Another process of this run ended; see its output. The last checkpoint is valid: "
                "continue with --resume."
            ) from error
        # torch reports a full disk as a RuntimeError.
        if type(error) is RuntimeError and "PytorchStreamWriter" not in str(error):
            raise
        raise OutputError(
            f"A checkpoint cannot be written: {error}. The checkpoint before it is valid. Make room, then continue "
            "with --resume."
        ) from error


BEST = "best"
Card = Callable[[int, Mapping[str, float]], str]
"""Writes the model card from the step and the measured values."""


@dataclass
class Best:
    """Keeps the weights with the best value of a curve."""

    folder: Path
    curve: str
    policy: TrainableModel
    card: Card
    sign: int = 1
    """-1 if lower is better."""
    gain: float = 0.0
    """Smallest improvement that counts."""
    since: int = 0
    """Validations since the best one."""
    step: int | None = None
    """The step of the weights in `best/`."""
    _value: float = -math.inf

    def recall(self, step: int) -> None:
        """Restore the state after `step` from the curves."""
        if is_training_run(self.folder):
            curves = read_curves([self.folder])[0].metrics
            failed = curves.get("validation/failed", {})
            for earlier, value in curves.get(self.curve, {}).items():
                if earlier <= step and not failed.get(earlier) and self.improves(value):
                    self.step = earlier

    def improves(self, value: float) -> bool:
        """Record a value. Returns True if it is the best so far."""
        if self.sign * value > self._value + self.gain:
            self._value, self.since = self.sign * value, 0
            return True
        self.since += 1
        return False

    def save(self, step: int, measured: Mapping[str, float], state: dict[str, Any] | None = None) -> None:
        """Replace the weights in `best/` with the current ones. For `state` see `TrainableModel.save`."""
        self.step = step
        with atomic_folder(self.folder / BEST) as new:
            self.policy.save(new, state)
            (new / "README.md").write_text(self.card(step, measured), encoding="utf-8")
