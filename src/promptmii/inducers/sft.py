"""Supervised fine-tuning: the follower learns the examples as a LoRA adapter (Hu et al. 2021).

It is trained to answer the naive prompt of each example with the label. The result is an instruction with an empty text
and its own follower, `<follower>+<adapter folder>`, so it is used, scored and saved like any other.
"""

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from time import perf_counter

from pydantic import Field

from promptmii.config import LoraSettings
from promptmii.errors import UnsupportedError, required_by
from promptmii.files import atomic_folder
from promptmii.inducers.method import Expected, Kit, Method
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models import weights_of
from promptmii.models.threads import in_calling_thread
from promptmii.prompts import defuse
from promptmii.task import Example, Support, content_key

TOKENS_FILE = "training_tokens.txt"
"""Beside the adapter, so that its cost is known without loading the model again."""


class SFTMethod(Method):
    """Fine-tuning as a method; its options are the training recipe."""

    name = "sft"
    summary = "fine-tuning: a LoRA adapter of the follower, trained on the n examples"
    prompt = "labels"

    epochs: int = Field(default=5, ge=1, description="passes over the examples")
    learning_rate: float = Field(default=2e-4, gt=0, description="learning rate of the adapter")
    rank: int = Field(default=16, ge=1, description="rank of the adapter")
    batch: int = Field(default=4, ge=1, description="examples per step")

    def expected(self, n: int) -> Expected:
        return Expected(training_calls=n * self.epochs)

    def inducer(self, kit: Kit) -> "FineTuning":
        return FineTuning(kit.follower.model.card.reference, kit.adapters, self)


@dataclass(frozen=True)
class FineTuning:
    """Trains a LoRA adapter of a local follower on the support."""

    follower: str
    """Reference of the model to tune, which must be on this machine. The new adapter is stacked on any it has."""
    folder: Path
    """The folder with one adapter folder per support, seed and recipe."""
    recipe: SFTMethod = field(default_factory=SFTMethod)
    name = "sft"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The naive prompt with a tuned follower. Raises `UnsupportedError` if the model is not on this machine."""
        naive = Instruction(text="", labels=support.labels, method=self.name)
        key = content_key([self.follower, support.key, seed, self.recipe.model_dump(), naive.frame])
        adapter = self.folder / key[:16]
        started = perf_counter()
        tokens = self._train(naive, support.examples, adapter, seed)
        cost = Cost(
            calls=len(support.examples) * self.recipe.epochs, prompt_tokens=tokens, seconds=perf_counter() - started
        )
        provenance = Provenance(
            n=len(support.examples),
            seed=seed,
            support_key=support.key,
            notes=(f"the follower was tuned: {self.recipe.epochs} epochs",),
        )
        tuned = {"follower": f"{self.follower}+{adapter}", "cost": cost, "provenance": provenance}
        return naive.model_copy(update=tuned).fitted_on(support)

    @in_calling_thread
    def _train(self, naive: Instruction, examples: Sequence[Example], adapter: Path, seed: int) -> int:
        """Train and save the adapter unless it exists. Return the number of training tokens."""
        saved_count = adapter / TOKENS_FILE
        if saved_count.exists():
            return int(saved_count.read_text("utf-8"))
        with required_by("Fine-tuning", "hf"):
            import torch
            from transformers import Trainer, TrainingArguments

            from promptmii.tuning import TrainableModel
        if weights_of(self.follower) is None:
            raise UnsupportedError(
                f"Fine-tuning needs a model on this machine (smol or hf:...), and the follower is {self.follower}."
            )
        model = TrainableModel.load(self.follower, LoraSettings(rank=self.recipe.rank), seed, fresh=True)
        rows = [model.row(naive.messages(example.text), defuse(example.label)) for example in examples]
        tokens = self.recipe.epochs * sum(len(row["input_ids"]) for row in rows)
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(StringIO()):  # the trainer prints its loss
            arguments = TrainingArguments(
                output_dir=scratch,
                num_train_epochs=self.recipe.epochs,
                learning_rate=self.recipe.learning_rate,
                per_device_train_batch_size=self.recipe.batch,
                warmup_steps=2,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                seed=seed,
                disable_tqdm=True,
                dataloader_pin_memory=False,
                use_cpu=not torch.cuda.is_available(),
            )
            Trainer(
                model=model.trained,
                args=arguments,
                train_dataset=rows,  # pyright: ignore[reportArgumentType]
                data_collator=model.collator(),
            ).train()
        with atomic_folder(adapter) as new:
            model.save(new)
            (new / TOKENS_FILE).write_text(f"{tokens}\n", encoding="utf-8")
        return tokens
