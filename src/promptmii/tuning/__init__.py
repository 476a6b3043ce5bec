"""A local model whose weights are trained: all of them, or those of one adapter. Fine-tuning and training use it."""

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
"""The label of a token on which no loss is taken."""


@dataclass(frozen=True)
class TrainableModel:
    """Weights in training, their tokenizer, and how the model is asked: exactly as when it is used afterwards."""

    reference: str
    model: Any
    """The bare causal language model, an adapter in place."""
    trained: Any
    """The same, or the peft model around it."""
    below: Weights
    """What lies under the adapter, or all of it."""
    tokenizer: Any

    @classmethod
    def load(cls, reference: str, lora: LoraSettings | None, seed: int, *, fresh: bool = False) -> "TrainableModel":
        """With `lora` the last adapter of the reference is trained, or a new one; else all weights, adapters merged in.

        `fresh` puts a new adapter over those of the reference. The model is not on its device yet. Raises
        `ConfigError`, `UnknownModelError`.
        """
        weights = weights_of(reference)
        if weights is None:
            raise ConfigError(f"The model to train is {reference!r}; expected a model on this machine: smol, or hf:...")
        onward = bool(lora and weights.adapters and not fresh)
        below = weights.below if onward else weights
        # Weights that are trained are kept in full precision beside bf16 arithmetic; frozen ones need not be.
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = read_weights(reference, below, device, None if lora else torch.float32)
        trained: Any = model.requires_grad_()  # peft freezes what it merges into
        if lora:
            torch.manual_seed(seed)  # the adapter's first values
            trained = add_adapter(model, lora)
            if onward:
                continue_adapter(trained, Path(weights.adapters[-1]))
        return cls(reference, model, trained, below, tokenizer)

    @property
    def base(self) -> str:
        """Reference of what lies under the adapter, or of what all weights were trained from."""
        return self.reference if self.trained is self.model else self.below.reference

    @cached_property
    def form(self) -> ChatFormat:
        """How chats and answers become tokens."""
        return ChatFormat(HfTokenizer(self.tokenizer, self.model.generation_config.eos_token_id))

    def row(self, chat: Chat, answer: str) -> dict[str, list[int]]:
        """A chat and its answer to learn from, as tokens; only the answer and the end of the turn are labelled."""
        prompt = self.form.prompts([chat])[0]
        told = [*self.form.options([answer])[0], self.form.ends[0]]
        ids = [*prompt, *told]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*([IGNORED] * len(prompt)), *told]}

    def collator(self) -> DataCollatorForSeq2Seq:
        """Pads rows to one length, at their end."""
        self.tokenizer.padding_side = "right"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token  # masked; some have none
        return DataCollatorForSeq2Seq(self.tokenizer, padding=True, label_pad_token_id=IGNORED)

    def local(self) -> TransformersModel:
        """The weights of now, as the rest of promptmii uses a model. It caches keys and values, so not after a step."""
        return TransformersModel(self.reference, self.model, self.tokenizer, "step-0")

    def save(self, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write the adapter, or all weights and the tokenizer. `state` are weights that were spread over processes."""
        if self.trained is not self.model:
            save_adapter(self.trained, folder, self.below.named, state)
        else:
            self.model.save_pretrained(str(folder), state_dict=state)
            self.tokenizer.save_pretrained(str(folder))

    def name_base(self, folder: Path) -> None:
        """Let an adapter that peft saved name its model as the settings do, instead of by a path of this machine."""
        path = folder / "adapter_config.json"
        if path.exists():
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
            config["base_model_name_or_path"] = self.below.named
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
