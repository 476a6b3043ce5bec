"""The stage that warms up an instruction generator: supervised fine-tuning on (support, instruction) pairs.

A small model cannot write an instruction at all, and reinforcement has nothing to choose from. The prompt is the very one that
`MetaInducer` sends, token by token; the loss is taken on the instruction and the end of the turn only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmii.curves import is_training_run, read_curves
from promptmii.errors import MissingDependencyError, ModelError
from promptmii.files import atomic_folder
from promptmii.inducers import Writer
from promptmii.progress import QUIET, Progress
from promptmii.prompts import meta_prompt
from promptmii.task import Task
from promptmii.train.card import adapter_card
from promptmii.train.run_folder import RunFolder, brief, open_run
from promptmii.train.settings import LoraSettings
from promptmii.train.tasks import named_tasks
from promptmii.train.warmup.bank import read_bank
from promptmii.train.warmup.pairs import Pair, PairDeck, Sizes, read_pairs
from promptmii.train.warmup.settings import SftSettings

try:
    import torch
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    from promptmii.train.lora import save_adapter
    from promptmii.train.policy import Policy
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error

BEST = "best"
FREE = ("steps", "tasks", "bank", "check_every", "save_every")
"""Settings that a resumed run may change."""
IGNORED = -100
"""The label of a token on which no loss is taken."""
PURPOSE = (
    "Reads labelled examples of a text-classification task and writes an instruction for it. This is the warm start: fine-tuned on "
    "descriptions of labels or on pairs from a file, before reinforcement.",
    "Limits: it learns the form of an instruction sooner than its substance. Check an instruction before you rely on it.",
)
WATCHED = "validation/hidden_loss"
NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/lr",
    "grad_norm": "train/gradient",
    "eval_named_loss": "validation/named_loss",
    "eval_hidden_loss": WATCHED,
}
"""The trainer's names of what it measures, and ours."""


def fine_tune(
    settings: SftSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
) -> Path:
    """Tune into a run folder (`given` is the configuration file): `best/` holds the best weights in bfloat16; returned is its path.

    With `resume` it goes on from the newest whole checkpoint. Raises `ConfigError`, `DataError`, `ModelError`, `OutputError`.
    """
    with open_run(folder, settings, given, resume=resume, free=FREE) as run:
        run.describe({"stage": settings.stage, "model": settings.model, "meta": meta_prompt().key})
        policy = Policy.load(settings.model, LoraSettings(rank=settings.rank), settings.seed)
        learned = named_tasks(settings.tasks, settings.train) if settings.pairs is None else {}
        rows, watched = _datasets(settings, learned, Features(policy))

        def save() -> None:
            with atomic_folder(folder / BEST) as half:
                save_adapter(policy.trained, half, policy.below.named)
                recipe = settings.model_dump(mode="json", exclude={"stage", "model", "tasks", "bank", "train"})
                card = adapter_card("A writer, warmed up", PURPOSE, policy.below.reference, learned, recipe, {})
                (half / "README.md").write_text(card, encoding="utf-8")

        trainer = CompletionTrainer(
            model=policy.trained,
            args=_arguments(settings, folder),
            train_dataset=rows,
            eval_dataset=watched or None,
            data_collator=DataCollatorForSeq2Seq(_padding(policy.tokenizer), padding=True, label_pad_token_id=IGNORED),
            callbacks=[Curves(run, save, progress), Completing(policy)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=_newest(folder))
        if not watched:
            save()
    return folder / BEST


class Features:
    """From a pair to the tokens of `MetaInducer`'s prompt and of the instruction."""

    def __init__(self, policy: "Policy") -> None:
        self._writer = Writer(policy.local(0))
        self._format = policy.form

    def __call__(self, pair: Pair) -> dict[str, list[int]]:
        """Token ids, and the instruction's alone as labels. Raises `ConfigError` where not one example fits the context."""
        fitted, _ = self._writer.fit(pair.support)
        prompt = self._format.prompts([[self._writer.ask(pair.support, fitted)]])[0]
        answer = [*self._format.options([pair.instruction])[0], self._format.ends[0]]
        ids = [*prompt, *answer]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*([IGNORED] * len(prompt)), *answer]}


class Drawn(Dataset[dict[str, list[int]]]):
    """Pairs drawn as they are needed, each from its index alone."""

    def __init__(self, deck: PairDeck, features: Features, size: int, hidden: bool | None = None) -> None:
        self._deck, self._features, self._size, self._hidden = deck, features, size, hidden

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._features(self._deck.draw(index, self._hidden))


class Listed(Dataset[dict[str, list[int]]]):
    """Pairs of a file, in a new random order each time through."""

    def __init__(self, pairs: Sequence[Pair], features: Features, size: int, seed: int) -> None:
        self._pairs, self._features, self._size, self._seed = pairs, features, size, seed

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        round_, place = divmod(index, len(self._pairs))
        order = torch.randperm(len(self._pairs), generator=torch.Generator().manual_seed(self._seed + round_))
        return self._features(self._pairs[int(order[place])])


class CompletionTrainer(Trainer):
    """transformers' trainer with the head computed where a token is learned, and rows in their own order (they are random already)."""

    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)  # pyright: ignore[reportArgumentType]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the instructions' tokens, over all rows of the step."""
        wanted = inputs["labels"][:, 1:]
        columns = (wanted != IGNORED).any(0).nonzero().squeeze(1)
        out = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=columns,
            use_cache=False,
        )
        wanted = wanted[:, columns]
        count = num_items_in_batch if num_items_in_batch is not None else (wanted != IGNORED).sum()
        loss = (
            torch.nn.functional.cross_entropy(
                out.logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="sum"
            )
            / count
        )
        if not torch.isfinite(loss):
            raise ModelError(
                f"The loss of step {self.state.global_step} is {loss.item()}. The last checkpoint is valid; "
                "start again with a lower learning_rate."
            )
        return (loss, out) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """The loss of a validation row."""
        del prediction_loss_only, ignore_keys
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


class Curves(TrainerCallback):
    """Writes `metrics.jsonl`, and the adapter where the validation is the best so far."""

    def __init__(self, run: RunFolder, save: Callable[[], None], progress: Progress) -> None:
        self._run, self._save, self._progress = run, save, progress
        self._best = math.inf
        self._started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The best value up to where a resumed run stood."""
        del args, control, kwargs
        self._progress.step("Training", state.max_steps - state.global_step, "steps")
        known = read_curves([self._run.path])[0].metrics if is_training_run(self._run.path) else {}
        self._best = min(
            (value for step, value in known.get(WATCHED, {}).items() if step <= state.global_step), default=math.inf
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A line of the curves. By the loss on nameless pairs it is decided which weights are kept: there the substance is measured."""
        del args, control, kwargs
        line = {NAMES[name]: value for name, value in (logs or {}).items() if name in NAMES}
        if not line:
            return
        now = time.perf_counter()
        line[f"seconds/{'step' if 'train/loss' in line else 'validation'}"] = now - self._started
        self._started = now
        if line.get(WATCHED, math.inf) <= self._best and WATCHED in line:
            self._best = line[WATCHED]
            self._save()
        self._run.metrics(int(state.global_step), line)
        self._progress.advance(int("train/loss" in line), brief(int(state.global_step), line))


class Completing(TrainerCallback):
    """Makes each checkpoint an adapter that can be used and pushed."""

    def __init__(self, policy: "Policy") -> None:
        self._tunable = policy

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See `Policy.complete`."""
        del control, kwargs
        self._tunable.complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _datasets(
    settings: SftSettings, learned: Mapping[str, Task], features: Features
) -> tuple[Dataset[Any], dict[str, Dataset[Any]]]:
    """What is learned, and what is watched: with names and without."""
    sizes = Sizes(**{name: getattr(settings, name) for name in Sizes.__dataclass_fields__})
    total = settings.steps * settings.batch
    bank = read_bank(Path(settings.bank)) if settings.bank else {}
    watched: dict[str, Dataset[Any]] = {}
    if settings.validate_on:
        deck = PairDeck(named_tasks(settings.tasks, settings.validate_on), bank, sizes, settings.seed)
        watched = {
            name: Drawn(deck, features, settings.check_pairs, hidden)
            for name, hidden in (("named", False), ("hidden", True))
        }
    if settings.pairs is not None:
        return Listed(read_pairs(Path(settings.pairs)), features, total, settings.seed), watched
    return Drawn(PairDeck(learned, bank, sizes, settings.seed), features, total), watched


def _arguments(settings: SftSettings, folder: Path) -> TrainingArguments:
    watched = bool(settings.validate_on)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=1,  # rows differ in length; one at a time wastes no padding
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=settings.batch,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        eval_strategy="steps" if watched else "no",
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


def _padding(tokenizer: Any) -> Any:
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # masked; some models have none
    return tokenizer


def _newest(folder: Path) -> str | None:
    """The newest whole checkpoint: the trainer writes its state last."""
    found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(found, key=lambda path: int(path.name.partition("-")[2]))) if found else None
