"""A local model in training: all its weights, or one adapter. Fine-tuning and RL both use it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from promptmii.config import LoraSettings
from promptmii.errors import ConfigError, required_by
from promptmii.models import Weights, weights_of
from promptmii.models.base import Chat

with required_by("Fine-tuning", "hf"):
    import torch
    from transformers import DataCollatorForSeq2Seq

    from promptmii.models.chat import ChatFormat
    from promptmii.models.hf.model import HfTokenizer, TransformersModel, read_weights
    from promptmii.tuning.lora import add_adapter, continue_adapter, save_adapter

IGNORED = -100
"""The label of tokens excluded from the loss."""


def trainable_weights(reference: str) -> Weights:
    """The weights of a reference. Raises `ConfigError` if it names none, `UnknownModelError` as `weights_of` does."""
    weights = weights_of(reference)
    if weights is None:
        raise ConfigError(f"The model to train is {reference!r}; expected a model on this machine: smol, or hf:...")
    return weights


@dataclass(frozen=True)
class TrainableModel:
    """A model in training with its tokenizer. Prompts have the same format as in later use."""

    reference: str
    model: Any
    """The bare causal language model, including any adapter layers."""
    trained: Any
    """The same model, or the peft model that wraps it."""
    below: Weights
    """The frozen weights under the adapter, or the starting weights if all are trained."""
    tokenizer: Any

    @classmethod
    def load(cls, reference: str, lora: LoraSettings | None, seed: int, *, fresh: bool = False) -> "TrainableModel":
        """With `lora`, train the last adapter of the reference, or a new one if it has none or `fresh` is set.

        Without `lora`, train all weights, with the adapters merged in. The caller moves the model to its device. Raises
        `ConfigError`, `UnknownModelError`.
        """
        weights = trainable_weights(reference)
        resume = bool(lora and weights.adapters and not fresh)
        below = weights.below if resume else weights
        # Trained weights stay in float32 under bf16 arithmetic; frozen weights need not.
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = read_weights(reference, below, device, None if lora else torch.float32)
        trained: Any = model.requires_grad_()  # peft freezes the weights that it merges adapters into
        if lora:
            torch.manual_seed(seed)  # for the adapter's initial weights
            trained = add_adapter(model, lora)
            if resume:
                continue_adapter(trained, Path(weights.adapters[-1]))
        return cls(reference, model, trained, below, tokenizer)

    @property
    def base(self) -> str:
        """The reference of the model under the adapter, or of the starting weights."""
        return self.reference if self.trained is self.model else self.below.reference

    @cached_property
    def form(self) -> ChatFormat:
        """The chat format, which turns chats and answers into tokens."""
        return ChatFormat(HfTokenizer(self.tokenizer, self.model.generation_config.eos_token_id))

    def row(self, chat: Chat, answer: str) -> dict[str, list[int]]:
        """A training example in tokens. Only the answer and its end-of-turn token have labels."""
        prompt = self.form.prompts([chat])[0]
        target = [*self.form.options([answer])[0], self.form.ends[0]]
        ids = [*prompt, *target]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*([IGNORED] * len(prompt)), *target]}

    def collator(self) -> DataCollatorForSeq2Seq:
        """A collator that pads rows on the right."""
        self.pad_on("right")
        return DataCollatorForSeq2Seq(self.tokenizer, padding=True, label_pad_token_id=IGNORED)

    def pad_on(self, side: Literal["left", "right"]) -> None:
        """Set the tokenizer's padding. If it has no token for that, any will do, because padding is masked."""
        tokenizer = self.tokenizer
        tokenizer.padding_side = side
        end: str = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(self.form.ends[0])
        tokenizer.pad_token = tokenizer.pad_token or end

    def local(self) -> TransformersModel:
        """The current weights as a `LanguageModel`. It caches keys and values, so get a new one after each step."""
        return TransformersModel(self.reference, self.model, self.tokenizer, "in training")

    def save(self, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write the adapter, or all weights and the tokenizer. `state` holds weights gathered from processes."""
        if self.trained is not self.model:
            save_adapter(self.trained, folder, self.below.stored_name, state)
        else:
            self.model.save_pretrained(str(folder), state_dict=state)
            self.tokenizer.save_pretrained(str(folder))

    def store_portable_base(self, folder: Path) -> None:
        """In an adapter's configuration, replace the base model's local path with its portable reference."""
        path = folder / "adapter_config.json"
        if path.exists():
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
            config["base_model_name_or_path"] = self.below.stored_name
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
