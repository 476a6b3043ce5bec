"""The model that a warm-up stage tunes: frozen weights under one adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmii.errors import ConfigError, MissingDependencyError
from promptmii.models import Weights, weights_of

try:
    import torch

    from promptmii.models.local import LocalModel, best_dtype, read_weights
    from promptmii.models.packing import IMPLEMENTATION
    from promptmii.train.lora import add_adapter, continue_adapter
except ImportError as error:
    raise MissingDependencyError("Training", "train") from error


@dataclass(frozen=True)
class Tunable:
    """A model with an adapter whose weights are trained."""

    local: LocalModel
    adapted: Any
    """The peft model around `local.model`."""
    below: Weights
    """What lies under the adapter."""

    @classmethod
    def load(cls, reference: str, rank: int, seed: int) -> "Tunable":
        """In the number format of this machine. The last adapter of the reference is trained on; without any, a new one.

        Raises `ConfigError`, `UnknownModelError`.
        """
        weights = weights_of(reference)
        if weights is None:
            raise ConfigError(f"The model to tune is {reference!r}; expected a model on this machine: smol, or hf:...")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = read_weights(reference, weights.below, best_dtype(device))
        local = LocalModel(reference, model.to(device), tokenizer, revision="untuned")
        if model.config._attn_implementation != IMPLEMENTATION:
            raise ConfigError(
                f"{reference} attends in a way that packed rows do not know (sliding windows, soft caps); choose another model."
            )
        torch.manual_seed(seed)  # the adapter's first values
        tuned = add_adapter(model, rank)
        if weights.adapters:
            continue_adapter(tuned, Path(weights.adapters[-1]))
        return cls(local, tuned, weights.below)
