"""Supervised fine-tuning on (support, instruction) pairs, so that reinforcement learning starts from good drafts.

The prompt equals `MetaInducer`'s, token for token. The loss covers only the instruction and the end of turn.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from promptmii.data.sources import find_tasks, read_tasks
from promptmii.errors import required_by
from promptmii.inducers import Writer
from promptmii.progress import QUIET, Progress
from promptmii.prompts import meta_prompt
from promptmii.task import Task
from promptmii.train.card import model_card
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import SftSettings
from promptmii.train.tasks import TRAINING_SPLITS, applicable
from promptmii.train.warmup.pairs import SHIPPED, Pair, PairStream, read_bank, read_pairs

with required_by("Training", "train"):
    import torch
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from promptmii.train.loop import BEST, Best, Safeguards, run_loop
    from promptmii.tuning import IGNORED, TrainableModel

CHANGEABLE = ("steps", "tasks", "bank", "check_every", "save_every")
"""Settings that a resumed run may change."""
PURPOSE = (
    "Reads labelled examples of a text-classification task and writes an instruction for it. This is the warm start: "
    "fine-tuned on descriptions of labels or on pairs from a file, before reinforcement.",
    "Limits: it learns the form of an instruction sooner than its substance. Check an instruction before you rely on "
    "it.",
)
MAX_BATCH = 8
"""Maximum pairs per forward pass on a GPU."""
BEST_CURVE = "validation/hidden_loss"
"""The curve that selects the best weights. With hidden label names, a low loss needs the examples."""
NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/lr",
    "grad_norm": "train/gradient",
    "eval_named_loss": "validation/named_loss",
    "eval_hidden_loss": BEST_CURVE,
}
"""Maps the trainer's metric names to curve names."""


def fine_tune(
    settings: SftSettings,
    folder: Path,
    *,
    config: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Fine-tune an adapter in a run folder and return the path of `best/`; see `run_stage`."""
    found = [source.name for source in find_tasks(settings.tasks, splits=TRAINING_SPLITS)]
    validate_on = applicable(settings.validate_on, found)
    if settings.validate_on and not validate_on:
        progress.note("No validation task of the recipe is used: best/ will hold the last weights. Set validate_on.")
    settings = settings.model_copy(update={"validate_on": validate_on})
    with open_run(folder, settings, config, resume=resume, changeable=CHANGEABLE) as run:
        run.describe({"stage": settings.stage, "model": settings.model, "meta": meta_prompt().key})
        policy = TrainableModel.load(settings.model, settings.lora, settings.seed)
        training, validation, tasks = _datasets(settings, policy, progress)
        title = "An instruction generator, warmed up"
        card = partial(model_card, settings, title, PURPOSE, policy.base, tasks)
        best = Best(folder, BEST_CURVE, policy, card, sign=-1)
        trainer = CompletionTrainer(
            model=policy.trained,
            args=_arguments(settings, folder),
            train_dataset=training,
            eval_dataset=validation or None,
            data_collator=policy.collator(),
            callbacks=[CurveWriter(run, best, progress), Safeguards(policy, "learning_rate")],
        )
        run_loop(trainer, folder, resume=resume)
        if not validation:
            best.save(settings.steps, {})
    return folder / BEST


class PairDataset(Dataset[dict[str, list[int]]]):
    """Pairs, each determined by its index, as tokens of `MetaInducer`'s prompt and the instruction."""

    def __init__(self, pair: Callable[[int], Pair], size: int, policy: TrainableModel) -> None:
        self._pair = pair
        self._size = size
        self._policy = policy
        self._writer = Writer(policy.local())

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        """See `TrainableModel.row`. Raises `ConfigError` if no example fits the context."""
        pair = self._pair(index)
        examples, _ = self._writer.fit(pair.support)
        return self._policy.row([self._writer.request(pair.support, examples)], pair.instruction)


def _shuffled_pair(pairs: Sequence[Pair], seed: int, index: int) -> Pair:
    """The pair at this index of an endless sequence that shuffles the pairs anew in each epoch."""
    epoch, position = divmod(index, len(pairs))
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed + epoch))
    return pairs[int(order[position])]


class CompletionTrainer(Trainer):
    """transformers' trainer, which computes logits only for the tokens in the loss."""

    loss_is_scaled_for_ga = True

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the instruction tokens in all rows of the step."""
        targets = inputs["labels"][:, 1:]
        columns = (targets != IGNORED).any(0).nonzero().squeeze(1)
        # Without a mask, the fastest kernel applies: padding comes last, where no real token attends to it.
        output = model(input_ids=inputs["input_ids"], logits_to_keep=columns, use_cache=False)
        targets = targets[:, columns]
        count = num_items_in_batch if num_items_in_batch is not None else (targets != IGNORED).sum()
        logits = output.logits.float().transpose(1, 2)
        total = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return (total / count, output) if return_outputs else total / count


@dataclass(eq=False)
class CurveWriter(TrainerCallback):
    """Writes the curves and saves the best adapter."""

    run: RunFolder
    best: Best
    progress: Progress
    _started: float = field(default_factory=time.perf_counter)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Restore the best value if the run is resumed."""
        self.best.recall(state.global_step)
        self.progress.step("Training", state.max_steps - state.global_step, "steps")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        step = int(state.global_step)
        values: dict[str, float] = {NAMES[name]: value for name, value in (logs or {}).items() if name in NAMES}
        if not values:
            return
        now = time.perf_counter()
        values[f"seconds/{'step' if 'train/loss' in values else 'validation'}"] = now - self._started
        self._started = now
        if BEST_CURVE in values and self.best.improves(values[BEST_CURVE]):
            self.best.save(step, {BEST_CURVE: values[BEST_CURVE]})
        self.run.log_metrics(step, values)
        losses = {re.sub("[/_]", " ", name): value for name, value in values.items() if name.endswith("loss")}
        text = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        self.progress.advance(int("train/loss" in values), f"step {step}: {text}")


def _datasets(
    settings: SftSettings, policy: TrainableModel, progress: Progress
) -> tuple[PairDataset, dict[str, Dataset[Any]], Mapping[str, Task]]:
    """The training pairs, the validation pairs (with label names and without), and the training tasks."""
    bank = read_bank(Path(settings.bank) if settings.bank else SHIPPED)

    def pairs_of(names: Sequence[str], without: Sequence[str] = ()) -> PairStream:
        tasks = read_tasks(settings.tasks, splits=TRAINING_SPLITS, only=names)
        pairs = PairStream({name: task for name, task in tasks.items() if name not in without}, bank, settings)
        for reason in pairs.skipped:
            progress.note(f"Skipped {reason}")
        return pairs

    validation: dict[str, Dataset[Any]] = {}
    if settings.validate_on:
        pairs = pairs_of(settings.validate_on)
        for name, hidden in (("named", False), ("hidden", True)):
            validation[name] = PairDataset(partial(pairs.draw, hidden=hidden), settings.check_pairs, policy)
    total = settings.steps * settings.batch
    if settings.pairs is not None:
        from_file = read_pairs(Path(settings.pairs))
        return PairDataset(partial(_shuffled_pair, from_file, settings.seed), total, policy), validation, {}
    pairs = pairs_of(settings.train, without=settings.validate_on)
    return PairDataset(pairs.draw, total, policy), validation, pairs.tasks


def _arguments(settings: SftSettings, folder: Path) -> TrainingArguments:
    # Pairs differ in length. One at a time needs no padding, but on a GPU more kernel launches cost more than that.
    per_pass = math.gcd(settings.batch, MAX_BATCH) if torch.cuda.is_available() else 1
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        train_sampling_strategy="sequential",  # the dataset is already shuffled
        per_device_train_batch_size=per_pass,
        per_device_eval_batch_size=per_pass,
        gradient_accumulation_steps=settings.batch // per_pass,
        bf16=torch.cuda.is_available(),
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        eval_strategy="steps" if settings.validate_on else "no",
        eval_steps=settings.check_every,
        save_steps=settings.save_every,
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        seed=settings.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
