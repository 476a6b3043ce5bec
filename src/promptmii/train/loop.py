"""The training loop that fine-tuning and RL share: safeguards, checkpoints, the best weights and the model card."""

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

from promptmii.errors import ModelError, OutputError, PromptMIIError, counted
from promptmii.files import atomic_folder
from promptmii.markup import markdown_table
from promptmii.models.embedded import EMBEDDED
from promptmii.models.hf import quiet
from promptmii.models.references import ServerReference
from promptmii.schema import Settings
from promptmii.task import Task
from promptmii.train.run_folder import is_training_run, read_curves
from promptmii.train.settings import TrainSettings
from promptmii.tuning import TrainableModel
from promptmii.version import VERSION


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


PRIVATE: Mapping[str, Any] = {
    **dict.fromkeys(
        ("stage", "model", "tasks", "only", "train", "bank", "pairs", "template", "endpoint", "plan"), True
    ),
    "reward": {"followers", "serve"},
    "trl": {"vllm_server_base_url", "vllm_server_host"},
}
"""Settings that a card omits: paths, addresses, and values that it gives elsewhere."""


def model_card(
    settings: Settings,
    title: str,
    paragraphs: Sequence[str],
    base: str,
    tasks: Mapping[str, Task],
    step: int,
    measured: Mapping[str, float],
    *,
    adapter: bool = True,
) -> str:
    """A model card in Markdown. `paragraphs` introduce the model; `adapter` is False if all weights were trained."""
    name = base.removeprefix("hf:")
    embedded = EMBEDDED.get(name)
    base_note = f" ({embedded.title}, {embedded.licence})" if embedded else ""
    repository = embedded.repository if embedded else None if Path(name).exists() else name
    recipe = {"step": step, **settings.model_dump(mode="json", exclude=dict(PRIVATE))}
    rows = [
        (name, task.source.get("group", "unstated"), task.source.get("licence", "unstated"))
        for name, task in tasks.items()
    ]
    licences = Counter(task.source.get("licence") or "unstated" for task in tasks.values())
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        *([f"base_model: {repository}"] if repository else []),
        "tags: [promptmii, text-classification]",
        "---",
        f"# {title}",
        "",
        *(line for paragraph in paragraphs for line in (paragraph, "")),
        f"{'A LoRA adapter of' if adapter else 'Trained from'} `{base}`{base_note}, made by promptmii "
        f"{VERSION}. Load it as `{base + '+' if adapter else 'hf:'}<this folder>`.",
        "",
        *_section("Recipe", [f"- {name}: {value}" for name, value in recipe.items()]),
        *_section("Validation", [f"- {name}: {value:.3f}" for name, value in measured.items()]),
        *_section("Data", [markdown_table(("task", "source", "licence"), rows)] if rows else []),
        *_section("Licences of the data", [f"- {licence}: {counted(n, 'task')}" for licence, n in licences.items()]),
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def generator_card(
    settings: TrainSettings, base: str, tasks: Mapping[str, Task], step: int, measured: Mapping[str, float]
) -> str:
    """The model card of a reinforced generator."""
    reward = settings.reward
    servers = {name: ServerReference.parse(name) for name in reward.followers}
    followers = ", ".join(f"`openai:{server.model}`" if server else f"`{name}`" for name, server in servers.items())
    paragraphs = (
        "Reads labelled examples of a text-classification task and writes an instruction for it. Trained from "
        f"`{settings.model}` with reinforcement learning (GRPO): the reward is how well a frozen model ({followers}, "
        f"mode `{reward.mode}`) labels other examples under the instruction.",
        "Limits: it guesses the rule behind the examples. It may be wrong, and it may repeat texts it was shown. Check "
        "an instruction before you rely on it. Validation is macro-F1 on tasks from other sources.",
    )
    adapter = settings.lora is not None
    return model_card(settings, "An instruction generator", paragraphs, base, tasks, step, measured, adapter=adapter)
