"""The loop of both halves: transformers' Trainer, its safeguards, and the best weights so far with their model card."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback

from promptmii.curves import is_training_run, read_curves
from promptmii.errors import ModelError, OutputError, PromptMIIError, counted
from promptmii.files import atomic_folder
from promptmii.models.hf.model import quiet
from promptmii.schema import Settings
from promptmii.task import Task
from promptmii.train.settings import TrainSettings
from promptmii.tuning import TrainableModel
from promptmii.version import VERSION


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


KNOWN = {"smol": " (SmolLM2-135M-Instruct, Apache-2.0)"}
PRIVATE = {"stage", "model", "tasks", "only", "train", "bank", "pairs", "endpoint", "plan"}
"""Settings that a card leaves out: places on a machine, and what the card says elsewhere."""


def model_card(
    settings: Settings,
    title: str,
    purpose: Sequence[str],
    base: str,
    tasks: Mapping[str, Task],
    step: int,
    measured: Mapping[str, float],
    *,
    adapter: bool = True,
) -> str:
    """`purpose` are paragraphs; the weights are an `adapter` of `base`, or all weights trained from it."""
    recipe = {"step": step, **settings.model_dump(mode="json", exclude=PRIVATE)}
    rows = [
        f"| {name} | {task.source.get('group', 'unstated')} | {task.source.get('licence', 'unstated')} |"
        for name, task in tasks.items()
    ]
    licences = Counter(task.source.get("licence") or "unstated" for task in tasks.values())
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        *([f"base_model: {base.removeprefix('hf:')}"] if base.startswith("hf:") else []),
        "tags: [promptmii, text-classification]",
        "---",
        f"# {title}",
        "",
        *(line for paragraph in purpose for line in (paragraph, "")),
        f"{'A LoRA adapter of' if adapter else 'Trained from'} `{base}`{KNOWN.get(base, '')}, made by promptmii "
        f"{VERSION}. Load it as `{base + '+' if adapter else 'hf:'}<this folder>`.",
        "",
        *_section("Recipe", [f"- {name}: {value}" for name, value in recipe.items()]),
        *_section("Validation", [f"- {name}: {value:.3f}" for name, value in measured.items()]),
        *_section("Data", ["| task | source | licence |", "| --- | --- | --- |", *rows] if rows else []),
        *_section("Licences of the data", [f"- {licence}: {counted(n, 'task')}" for licence, n in licences.items()]),
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def generator_card(
    settings: TrainSettings, base: str, tasks: Mapping[str, Task], step: int, measured: Mapping[str, float]
) -> str:
    """The card of a generator that reinforcement made."""
    reward = settings.reward
    followers = ", ".join(f"`{name}`" for name in reward.followers)
    purpose = (
        "Reads labelled examples of a text-classification task and writes an instruction for it. Trained from "
        f"`{settings.model}` with reinforcement learning (GRPO): the reward is how well a frozen model ({followers}, "
        f"mode `{reward.mode}`) labels other examples by the instruction.",
        "Limits: it writes what it takes for the rule behind the examples. It may be wrong, and it may repeat texts it "
        "was shown. Check an instruction before you rely on it. Validation is macro-F1 on tasks of other sources.",
    )
    adapter = settings.lora is not None
    return model_card(settings, "An instruction generator", purpose, base, tasks, step, measured, adapter=adapter)
