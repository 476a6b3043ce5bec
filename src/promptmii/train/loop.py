"""The loop of both halves: transformers' Trainer, its safeguards, and the best weights so far."""

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

from promptmii.curves import is_training_run, read_curves
from promptmii.errors import ModelError, OutputError, PromptMIIError
from promptmii.files import atomic_folder
from promptmii.models.hf.model import quiet
from promptmii.tuning.model import TrainableModel


@dataclass(eq=False)
class Safeguards(TrainerCallback):
    """Stops before weights become NaN or infinite, and makes checkpoints that other machines can load."""

    policy: TrainableModel
    cure: str
    """The settings to lower if training diverges."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Raise `ModelError` before a NaN or infinite gradient reaches the weights."""
        gradients = [weights.grad for weights in self.policy.trained.parameters() if weights.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in gradients):
            raise self._diverged(state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """The same where gradients are spread over processes: before such weights are saved."""
        if not torch.isfinite(torch.tensor(float((logs or {}).get("grad_norm", 0.0)))):
            raise self._diverged(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """See `TrainableModel.name_base`."""
        if state.is_world_process_zero:
            self.policy.name_base(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _diverged(self, step: int) -> ModelError:
        return ModelError(
            f"At step {step} the gradient is NaN or infinite. The last checkpoint is valid: continue with --resume, or "
            f"start again with a lower {self.cure}."
        )


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first. A checkpoint is whole with its state, which is written last."""
    whole: dict[int, Path] = {}
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):  # half a file; or the folder is a copy under a name of the user's own
            json.loads(state.read_text("utf-8"))
            whole[int(state.parent.name.removeprefix("checkpoint-"))] = state.parent
    return [whole[step] for step in sorted(whole)]


def run_loop(trainer: Trainer, folder: Path, *, resume: bool) -> None:
    """Train to the end, with `resume` from the newest whole checkpoint.

    Raises `OutputError` if a checkpoint cannot be written, `ModelError` if another process of the run has ended.
    """
    trainer.remove_callback(PrinterCallback)  # progress goes elsewhere
    newest = checkpoints(folder)[-1:] if resume else []
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=str(newest[0]) if newest else None)
    except PromptMIIError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:
        if torch.distributed.is_initialized() and "by peer" in str(error):  # reset by it, or closed
            raise ModelError(
                "Another process of this run ended; see its output. The last checkpoint is valid: "
                "continue with --resume."
            ) from error
        # torch makes a RuntimeError of a full disk.
        if type(error) is RuntimeError and "PytorchStreamWriter" not in str(error):
            raise
        raise OutputError(
            f"A checkpoint cannot be written: {error}. The checkpoint before it is valid. Make room, then continue "
            "with --resume."
        ) from error


BEST = "best"
Card = Callable[[int, Mapping[str, float]], str]
"""The model card, after so many steps and with what was measured."""


class Best:
    """Keeps the weights with the highest value of a curve, or the lowest."""

    def __init__(
        self, folder: Path, curve: str, policy: TrainableModel, card: Card, *, sign: int = 1, gain: float = 0.0
    ) -> None:
        """`sign` is -1 if less is better; `gain` is how much better counts."""
        self._folder, self._curve, self._policy, self._card = folder, curve, policy, card
        self._sign, self._gain = sign, gain
        self._value = -math.inf
        self.since = 0
        """Validations since the best."""

    def recall(self, step: int) -> None:
        """Take up what the curves say up to `step`."""
        if is_training_run(self._folder):
            curves = read_curves([self._folder])[0].metrics
            failed = curves.get("validation/failed", {})
            for at, value in curves.get(self._curve, {}).items():
                if at <= step and not failed.get(at):
                    self.improves(value)

    def improves(self, value: float) -> bool:
        """Whether this is the best so far."""
        better = self._sign * value > self._value + (self._gain if math.isfinite(self._value) else 0)
        self._value, self.since = (self._sign * value, 0) if better else (self._value, self.since + 1)
        return better

    def save(self, step: int, measured: Mapping[str, float], state: dict[str, Any] | None = None) -> None:
        """The weights of now take the place of those in `best/`. `state` as in `TrainableModel.save`."""
        with atomic_folder(self._folder / BEST) as new:
            self._policy.save(new, state)
            (new / "README.md").write_text(self._card(step, measured), encoding="utf-8")
