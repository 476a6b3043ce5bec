"""Supervised fine-tuning: the examples go into weights instead of text, as a LoRA adapter (Hu et al. 2021).

The follower learns to answer the naive prompt of each example with its label. The result is an instruction with an
empty text and a follower of its own, `<follower>+<adapter folder>`, so it is used, scored and kept like any other.
"""

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import Field

from promptmii.errors import MissingDependencyError, UnsupportedError
from promptmii.inducers.method import Kit, Method
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models import adapted, weights_of
from promptmii.models.threads import in_caller
from promptmii.prompts import Template, defuse, follower_frame
from promptmii.task import Example, Support, content_key


class SFTMethod(Method):
    """Its entry in the table; its options are the recipe."""

    name = "sft"
    summary = "fine-tuning: a LoRA adapter of the follower, trained on the n examples"
    prompt = "labels"

    epochs: int = Field(default=5, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    rank: int = Field(default=16, ge=1, description="of the adapter")
    batch: int = Field(default=4, ge=1)

    def inducer(self, kit: Kit) -> "FineTuning":
        """See `Method`."""
        return FineTuning(kit.follower.model.card.reference, kit.adapters, self)


@dataclass(frozen=True)
class FineTuning:
    """LoRA of a local follower on the support's examples."""

    follower: str
    """Reference of the model to tune, one on this machine; an adapter of its own lies under the new one."""
    folder: Path
    """Where adapters are kept, one folder for each support, seed and recipe."""
    recipe: SFTMethod = field(default_factory=SFTMethod)
    frame: Template = field(default_factory=follower_frame)
    name: str = "sft"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The naive prompt for a tuned follower. Raises `UnsupportedError` unless the model is on this machine."""
        adapter = (
            self.folder
            / content_key([self.follower, support.key, seed, self.recipe.model_dump(), self.frame.text])[:16]
        )
        naive = Instruction(text="", labels=support.labels, method=self.name, frame=self.frame.text)
        started = perf_counter()
        tokens = in_caller(lambda: self._train(naive, support.examples, adapter, seed))
        cost = Cost(
            calls=len(support.examples) * self.recipe.epochs, prompt_tokens=tokens, seconds=perf_counter() - started
        )
        provenance = Provenance(
            n=len(support.examples),
            seed=seed,
            support_key=support.key,
            notes=(f"the follower was tuned: {self.recipe.epochs} epochs",),
        )
        return naive.model_copy(
            update={"follower": adapted(self.follower, adapter), "cost": cost, "provenance": provenance}
        )

    def _train(self, naive: Instruction, examples: Sequence[Example], adapter: Path, seed: int) -> int:
        """Write the adapter folder, unless it is there; how many tokens were processed."""
        try:
            import torch
            from peft import LoraConfig, get_peft_model
            from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

            from promptmii.models.chat import ChatFormat
            from promptmii.models.hf.model import read_weights
            from promptmii.models.hf.tokenizer import HfTokenizer
        except ImportError as error:
            raise MissingDependencyError("Fine-tuning", "hf") from error
        weights = weights_of(self.follower)
        if weights is None:
            raise UnsupportedError(
                f"Fine-tuning needs a model on this machine (smol or hf:...), and the follower is {self.follower}."
            )
        torch.manual_seed(seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = read_weights(self.follower, weights, device)
        model.to(device)
        rows = _rows(ChatFormat(HfTokenizer(tokenizer, model.generation_config.eos_token_id)), naive, examples)
        tokens = self.recipe.epochs * sum(len(row["input_ids"]) for row in rows)
        if (adapter / "adapter_config.json").exists():
            return tokens
        lora = LoraConfig(
            r=self.recipe.rank, lora_alpha=2 * self.recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        tuned: Any = get_peft_model(model, lora, autocast_adapter_dtype=True)
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
                use_cpu=device.type == "cpu",
            )
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # masked; some models have none
            padding = DataCollatorForSeq2Seq(tokenizer, padding=True)
            Trainer(model=tuned, args=arguments, train_dataset=rows, data_collator=padding).train()  # pyright: ignore[reportArgumentType]
        # Complete or not there: a kill in the middle must not leave half an adapter behind.
        self.folder.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=self.folder))
        tuned.save_pretrained(str(half))
        half.replace(adapter)
        return tokens


def _rows(form: Any, naive: Instruction, examples: Sequence[Example]) -> list[dict[str, list[int]]]:
    """Token ids, and the answer's alone as labels."""
    prompts = form.prompts([naive.messages(example.text) for example in examples])
    answers = [[*answer, form.ends[0]] for answer in form.options([defuse(example.label) for example in examples])]
    return [
        {
            "input_ids": [*prompt, *answer],
            "attention_mask": [1] * (len(prompt) + len(answer)),
            "labels": [*([-100] * len(prompt)), *answer],
        }
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
