"""What happens beside the steps: the curves, validation, the best weights, and when to stop."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from promptmii.curves import VALIDATION, is_training_run, read_curves
from promptmii.files import atomic_folder
from promptmii.follower import Follower
from promptmii.progress import Progress
from promptmii.task import Task
from promptmii.train.card import adapter_card
from promptmii.train.lora import save_adapter
from promptmii.train.policy import Policy
from promptmii.train.rl.likelihoods import can_share, draft_logps
from promptmii.train.rl.trainer import PolicyTrainer
from promptmii.train.run_folder import RunFolder
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import Source
from promptmii.train.validation import Outcome, cases, summary, validate

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
COPIED = 5e8
"""Trained parameters up to which the values of the start are kept, to measure how far training has moved."""
DRIFTED = 16
"""Drafts of a rollout on which that is measured."""


class Watch(TrainerCallback):
    """Called by the trainer after each step."""

    def __init__(
        self,
        settings: TrainSettings,
        policy: Policy,
        followers: Sequence[Follower],
        source: Source,
        boundary: int,
        folder: RunFolder | None,
        progress: Progress,
    ) -> None:
        """`boundary` are the steps of one rollout; `folder` is given to the process that writes, the others only take part."""
        self._settings = settings
        self._policy = policy
        self._followers = followers
        self._cases = cases(source.validation, settings)
        self._learned = {task.name: task for task in source.train}
        self._boundary = boundary
        self._folder = folder
        self._progress = progress
        self._best, self._since, self._equal = -math.inf, 0, 0
        self._began = 0.0
        self.trainer: PolicyTrainer | None = None
        self._start: list[torch.Tensor] = []

    def attach(self, trainer: PolicyTrainer) -> None:
        """Look after this trainer, whose weights are still those of the start."""
        self.trainer = trainer
        moving = _moving(trainer)
        if sum(weights.numel() for weights in moving) <= COPIED:
            self._start = [weights.detach().clone() for weights in moving]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The value at the start, or where a resumed run stood."""
        self._progress.step("Training", state.max_steps - state.global_step, "steps")
        if state.global_step:
            self._recall(state.global_step)
        else:
            self._validate(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock."""
        self._began = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """A validation where one is due, and its consequences."""
        self._progress.advance()
        if self.trainer:
            self.trainer.clock.add("step", perf_counter() - self._began)
        if state.global_step % self._settings.validation.every == 0 or state.global_step == state.max_steps:
            self._validate(state.global_step)
        patience = self._settings.validation.patience
        # Between rollouts only: elsewhere a run cannot go on exactly.
        if patience is not None and self._since >= patience and state.global_step % self._boundary == 0:
            self._progress.note(f"Stopped at step {state.global_step}: {self._since} validations without a gain")
            control.should_training_stop = control.should_save = True

    def on_log(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,  # noqa: ARG002
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """A line of the curves."""
        logs = logs or {}
        if "loss" not in logs:
            return
        numbers = {
            NAMES.get(name, name): value
            for name, value in logs.items()
            if isinstance(value, int | float) and name not in DROPPED
        }
        self._write(state.global_step, numbers)
        if "train/reward" in numbers:
            told = f"reward {numbers['train/reward']:.3f}, length {numbers.get('length', 0):.0f}, {numbers.get('seconds/step', 0):.1f} s"
            self._progress.note(f"Step {state.global_step} of {state.max_steps}: {told}")
        self._look_for_signal(numbers)

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._folder:
            self._folder.metrics(step, numbers)

    def _look_for_signal(self, numbers: Mapping[str, float]) -> None:
        if "zero_variance" not in numbers:
            return
        self._equal = self._equal + 1 if numbers["zero_variance"] == 1.0 else 0
        if self._equal and self._equal % self._settings.stuck == 0:
            self._progress.note(
                f"In {self._equal} steps all drafts of each group got the same reward, so nothing is learned. {_cause(numbers)}"
            )

    def _validate(self, step: int) -> None:
        if self.trainer is None or not self._cases:
            return
        started = perf_counter()
        accelerator = self.trainer.accelerator
        mine = self._cases[accelerator.process_index :: accelerator.num_processes]
        trained: Any = self.trainer.model
        training = trained.training
        with self._whole_weights() as model:
            outcomes = validate(self._policy.local(step, model), self._followers, mine, self._settings)
            drift = self._drift(model)
        trained.train(training)
        found: list[Outcome] = gather_object(outcomes)
        line = summary(found) | drift
        failed = any(outcome.macro_f1 is None for outcome in found)
        gained = False if failed else self._judge(line["validation/reward"])
        if gained:
            self._keep_best(step, {name: value for name, value in line.items() if name.startswith("validation/reward")})
        line |= {"seconds/validation": perf_counter() - started}
        self._write(step, line)
        self._tell(line)
        if self._folder:
            self._folder.samples(
                [
                    {
                        "step": step,
                        "validation": o.case.task.name,
                        "n": o.case.n,
                        "macro_f1": o.macro_f1,
                        "tokens": o.tokens,
                        "text": o.text,
                    }
                    for o in found
                ]
            )
        said = (
            "not judged, because followers failed"
            if failed
            else f"{line['validation/reward']:.3f}" + (" (best)" if gained else "")
        )
        self._progress.note(f"Step {step}: validation {said}")

    def _tell(self, line: Mapping[str, float]) -> None:
        """Send the line wherever `report_to` sends the steps. Not through the trainer's log, which would end the step's own line."""
        trainer = self.trainer
        assert trainer is not None
        for callback in trainer.callback_handler.callbacks:
            if callback is not self:
                callback.on_log(trainer.args, trainer.state, trainer.control, logs=dict(line), model=trainer.model)

    def _judge(self, reached: float) -> bool:
        """Whether this is the best so far, by more than `gain`."""
        gained = reached > self._best + (self._settings.validation.gain if math.isfinite(self._best) else 0)
        self._best, self._since = (reached, 0) if gained else (self._best, self._since + 1)
        return gained

    def _whole_weights(self) -> AbstractContextManager[Any]:
        """The bare model, its weights gathered where they are spread over processes."""
        trainer = self.trainer
        assert trainer is not None
        if not trainer.is_deepspeed_enabled:
            return nullcontext(trainer.bare)
        return _Bare(unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator))

    def _drift(self, model: Any) -> dict[str, float]:
        """How far the weights have moved: log P now - log P at the start, per token of the drafts that were learned from last."""
        trainer = self.trainer
        assert trainer is not None
        drafts = [pair for pair in trainer.rollout[:DRIFTED] if pair[1]]
        if not drafts or not can_share(model) or not self._start or trainer.is_deepspeed_enabled:
            return {}
        with torch.no_grad():
            now = _sums(model, drafts, trainer.temperature)
            with _swapped(_moving(trainer), self._start):
                then = _sums(model, drafts, trainer.temperature)
        return {"kl_to_start": (now - then) / sum(len(draft) for _, draft in drafts)}

    def _keep_best(self, step: int, measured: Mapping[str, float]) -> None:
        trainer = self.trainer
        assert trainer is not None
        # The engine around the model knows how to gather its weights.
        weights: Any = (
            trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_deepspeed_enabled else None
        )
        if self._folder:
            with atomic_folder(self._folder.path / "best") as half:
                model = trainer.accelerator.unwrap_model(trainer.model)
                if self._settings.lora:
                    save_adapter(model, half, self._policy.below.named, weights)
                else:
                    model.save_pretrained(str(half), state_dict=weights)
                    self._policy.tokenizer.save_pretrained(str(half))
                base = self._policy.below.reference if self._settings.lora else self._policy.reference
                card = model_card(self._settings, base, self._learned, step, measured)
                (half / "README.md").write_text(card, encoding="utf-8")

    def _recall(self, step: int) -> None:
        """The best value so far, and how long ago it was, from the curves that were written up to `step`."""
        folder = Path(str(self.trainer.args.output_dir) if self.trainer else "")
        known = read_curves([folder])[0].metrics if is_training_run(folder) else {}
        failed = known.get("validation/failed", {})
        for value in (value for at, value in known.get(VALIDATION, {}).items() if at <= step and not failed.get(at)):
            self._judge(value)


class _Bare(AbstractContextManager[Any]):
    """The causal language model inside what `unwrap_model_for_generation` gives."""

    def __init__(self, inner: AbstractContextManager[Any]) -> None:
        self._inner = inner

    def __enter__(self) -> Any:
        model = self._inner.__enter__()
        return model.get_base_model() if hasattr(model, "peft_config") else model

    def __exit__(self, *error: Any) -> bool | None:
        return self._inner.__exit__(*error)


def _moving(trainer: PolicyTrainer) -> list[torch.Tensor]:
    """The weights that are trained."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    return [weights for weights in model.parameters() if weights.requires_grad]


@contextmanager
def _swapped(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> Generator[None]:
    """The weights have other values inside."""
    own = [one.data for one in weights]
    try:
        for one, value in zip(weights, values, strict=True):
            one.data = value
        yield
    finally:
        for one, value in zip(weights, own, strict=True):
            one.data = value


def _sums(model: Any, drafts: Sequence[tuple[list[int], list[int]]], temperature: float) -> float:
    prompts, texts = zip(*drafts, strict=True)
    return sum(float(logps.sum()) for logps, _ in draft_logps(model, prompts, texts, temperature))


def _cause(numbers: Mapping[str, float]) -> str:
    if numbers.get("unparsed", 0.0) > 0.9:
        return "The follower's answers are no labels: use a stronger follower, or reward.mode = 'choose'."
    if numbers.get("repeated", 0.0) > 0.9:
        return "The generator writes the same for each draft: raise trl.temperature."
    if numbers.get("length", 2.0) < 2.0:
        return "The generator writes nothing: warm it up with --stage sft."
    return "The follower ignores the instruction, or too few query rows tell drafts apart: raise query, or use reward.mode = 'choose'."


def model_card(
    settings: TrainSettings, base: str, learned: Mapping[str, Task], step: int, measured: Mapping[str, float]
) -> str:
    """For people who find the weights; `base` is what they lie on, or what they were trained from."""
    reward = settings.reward
    purpose = (
        "Reads labelled examples of a text-classification task and writes an instruction for it. Trained from "
        f"`{settings.model}` with reinforcement learning (GRPO): the reward is what a frozen model "
        f"({', '.join(f'`{name}`' for name in reward.followers)}, mode `{reward.mode}`) makes of the instruction on other examples.",
        "Limits: it writes what it takes for the rule behind the examples; it may be wrong, and it may repeat texts it was shown. "
        "Check an instruction before you rely on it. Validation is macro-F1 on tasks of other sources than the training tasks.",
    )
    recipe = {
        "step": step,
        **settings.model_dump(mode="json", exclude={"stage", "model", "tasks", "only", "endpoint", "plan"}),
    }
    return adapter_card(
        "An instruction generator", purpose, base, learned, recipe, measured, adapter=bool(settings.lora)
    )
