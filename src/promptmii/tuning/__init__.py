"""A local model in training, either all its weights or one adapter. Fine-tuning and RL both use it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptmii.config import LoraSettings
from promptmii.errors import ConfigError, MissingDependencyError
from promptmii.models import Weights, weights_of
from promptmii.models.base import Chat

try:
    import torch
    from transformers import DataCollatorForSeq2Seq

    from promptmii.models.chat import ChatFormat
    from promptmii.models.hf.model import HfTokenizer, TransformersModel, read_weights
    from promptmii.tuning.lora import add_adapter, continue_adapter, save_adapter
except ImportError as error:
    raise MissingDependencyError("Fine-tuning", "hf") from error

IGNORED = -100
"""The label of tokens excluded from the loss."""


@dataclass(frozen=True)
class TrainableModel:
    """Weights in training and their tokenizer, prompted exactly as in later use."""

    reference: str
    model: Any
    """The bare causal language model, with any adapter layers in place."""
    trained: Any
    """The same model, or the peft model around it."""
    below: Weights
    """The frozen weights under the adapter, or the starting weights if all are trained."""
    tokenizer: Any

    @classmethod
    def load(cls, reference: str, lora: LoraSettings | None, seed: int, *, fresh: bool = False) -> "TrainableModel":
        """With `lora`, train the reference's last adapter or a new one; without, train all weights, adapters merged in.

        `fresh` stacks a new adapter on those of the reference. The model is not on its device yet. Raises
        `ConfigError`, `UnknownModelError`.
        """
        weights = weights_of(reference)
        if weights is None:
            raise ConfigError(f"The model to train is {reference!r}; expected a model on this machine: smol, or hf:...")
        resume = bool(lora and weights.adapters and not fresh)
        below = weights.below if resume else weights
        # Trained weights stay in float32 under bf16 arithmetic; frozen weights need not.
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = read_weights(reference, below, device, None if lora else torch.float32)
        trained: Any = model.requires_grad_()  # peft freezes what it merges into
        if lora:
            torch.manual_seed(seed)  # for the adapter's initial values
            trained = add_adapter(model, lora)
            if resume:
                continue_adapter(trained, Path(weights.adapters[-1]))
        return cls(reference, model, trained, below, tokenizer)

    @property
    def base(self) -> str:
        """Reference of the model under the adapter, or of the starting weights."""
        return self.reference if self.trained is self.model else self.below.reference

    @cached_property
    def form(self) -> ChatFormat:
        """Turns chats and answers into tokens."""
        return ChatFormat(HfTokenizer(self.tokenizer, self.model.generation_config.eos_token_id))

    def row(self, chat: Chat, answer: str) -> dict[str, list[int]]:
        """A training example as tokens; only the answer and the end of its turn have labels."""
        prompt = self.form.prompts([chat])[0]
        target = [*self.form.options([answer])[0], self.form.ends[0]]
        ids = [*prompt, *target]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*([IGNORED] * len(prompt)), *target]}

    def collator(self) -> DataCollatorForSeq2Seq:
        """Pads rows on the right."""
        self.tokenizer.padding_side = "right"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token  # masked; some have none
        return DataCollatorForSeq2Seq(self.tokenizer, padding=True, label_pad_token_id=IGNORED)

    def local(self) -> TransformersModel:
        """The current weights as a `LanguageModel`. It caches keys and values, so make a new one after each step."""
        return TransformersModel(self.reference, self.model, self.tokenizer, "step-0")

    def save(self, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write the adapter, or all weights and the tokenizer. `state` holds weights gathered from processes."""
        if self.trained is not self.model:
            save_adapter(self.trained, folder, self.below.named, state)
        else:
            self.model.save_pretrained(str(folder), state_dict=state)
            self.tokenizer.save_pretrained(str(folder))

    def name_base(self, folder: Path) -> None:
        """Replace the local path by which peft names an adapter's base model with its portable reference."""
        path = folder / "adapter_config.json"
        if path.exists():
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
            config["base_model_name_or_path"] = self.below.named
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
