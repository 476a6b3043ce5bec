"""The generator in training: its weights, its tokenizer and how it is asked, exactly as when instructions are made with it."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmii.errors import ConfigError, MissingDependencyError, UnknownModelError
from promptmii.inducers.writing import Writer
from promptmii.models import Weights, weights_of
from promptmii.models.base import ModelCard
from promptmii.prompts import META_SLOTS, meta_prompt, read_template
from promptmii.train.config import LoraSettings, TrainSettings

try:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoTokenizer
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    from promptmii.models.local import LocalModel, best_dtype, quiet, read_weights
    from promptmii.models.rendering import ChatFormat
    from promptmii.train.lora import LeanLinear, continue_adapter
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error


@dataclass(frozen=True)
class Policy:
    """The model that learns to write."""

    reference: str
    model: Any
    """The bare causal language model, an adapter in place."""
    trained: Any
    """The same, or the peft model around it."""
    below: Weights
    """What lies under the adapter, or all of it."""
    tokenizer: Any
    form: ChatFormat

    @classmethod
    def load(cls, settings: TrainSettings, *, cpu: bool) -> "Policy":
        """The generator. With `lora` the last adapter of its reference is trained on, else adapters are merged and all weights trained.

        Raises `ModelError`, `ConfigError`.
        """
        weights = weights_of(settings.model)
        if weights is None:
            raise ConfigError(f"The generator to train is {settings.model!r}; expected a model on this machine: smol, or hf:...")
        below = weights.below if settings.lora else weights
        # Weights that are trained are kept in full precision beside bf16 arithmetic; frozen ones need not be.
        dtype = best_dtype(torch.device("cpu" if cpu else "cuda")) if settings.lora else torch.float32
        model, tokenizer = read_weights(settings.model, below, dtype)
        tokenizer.padding_side = "left"
        form = ChatFormat(tokenizer, model.generation_config.eos_token_id)
        model.generation_config.eos_token_id = form.ends  # an answer ends where the chat template ends a turn
        trained: Any = model.requires_grad_()  # peft freezes what it merges into
        if settings.lora:
            # ZeRO-3 gathers weights of one number format only.
            trained = get_peft_model(model, _lora(settings.lora), autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
            if weights.adapters:
                continue_adapter(trained, Path(weights.adapters[-1]))
        return cls(settings.model, model, trained, below, tokenizer, form)

    def name_base(self, folder: Path) -> None:
        """Let an adapter that was saved name its model as the settings do: a path of this machine would mean nothing elsewhere."""
        path = folder / "adapter_config.json"
        if path.exists():
            config: dict[str, Any] = json.loads(path.read_text("utf-8"))
            config["base_model_name_or_path"] = self.below.named
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def local(self, model: Any, step: int) -> LocalModel:
        """The weights of now, as everything else in promptmii uses a model. A new one for each step: it remembers keys and values."""
        return LocalModel(self.reference, model, self.tokenizer, revision=f"step-{step}")


class Tokens(LocalModel):
    """A tokenizer alone, to lay out and count prompts where no weights are needed."""

    def __init__(self, reference: str, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._format = ChatFormat(tokenizer, None)
        self._card = ModelCard(reference, "tokenizer", context_length, gives_scores=False)


def tokens_of(reference: str, source: str) -> Tokens:
    """The tokenizer and context of a local model. Raises `UnknownModelError`."""
    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(source, local_files_only=True)
            tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)
            return Tokens(reference, tokenizer, int(config.max_position_embeddings))
    except (OSError, ValueError) as error:
        raise UnknownModelError(f"{reference} is not on this machine: {str(error).strip().splitlines()[0]}") from error


def writer_for(settings: TrainSettings, model: Any) -> Writer:
    """How the generator is asked, in training and in validation alike."""
    template = read_template(Path(settings.template), META_SLOTS) if settings.template else meta_prompt()
    longest = int(settings.trl.get("max_completion_length", 1024))
    return Writer(model, template, settings.budget, longest=longest, longest_prompt=settings.longest_prompt)


def _lora(settings: LoraSettings) -> LoraConfig:
    modules = settings.modules if isinstance(settings.modules, str) else list(settings.modules)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=modules,
        task_type="CAUSAL_LM",
    )
    if not torch.cuda.is_available() and not settings.dropout:
        register: Any = config._register_custom_module  # pyright: ignore[reportPrivateUsage] peft documents it under this name
        register({torch.nn.Linear: LeanLinear})
    return config
