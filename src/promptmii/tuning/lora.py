"""peft's low-rank adapters with leaner forward and backward passes.

peft's own forward pass writes and reads each output four times (base, adapter, scaled, sum), which costs a third of the
speed. This one adds the low-rank product to the base product in place and saves only the inputs for the backward pass.
"""

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from promptmii.config import LoraSettings
from promptmii.errors import ConfigError

NAME = "default"
"""The name that peft gives to the adapter."""
MUST_MATCH = (
    *("r", "lora_alpha", "use_rslora", "use_dora"),
    *("rank_pattern", "alpha_pattern", "bias", "lora_bias", "modules_to_save", "trainable_token_indices"),
)
"""Settings that must match for training to continue from an adapter."""


class _LowRank(torch.autograd.Function):
    """Computes x W^T + scale (x A^T) B^T, with W frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ down.to(x.dtype).T
        out = flat @ weight.T
        out.addmm_(low, up.to(low.dtype).T, alpha=scale)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, torch.Tensor, torch.Tensor, None]:
        flat, low, weight, down, up = ctx.saved_tensors
        flat_grad = grad.reshape(-1, grad.shape[-1])
        low_grad = (flat_grad @ up.to(flat_grad.dtype)) * ctx.scale
        input_grad = None
        if ctx.needs_input_grad[0]:
            input_grad = (flat_grad @ weight).addmm_(low_grad, down.to(flat_grad.dtype)).view(*grad.shape[:-1], -1)
        down_grad = (low_grad.T @ flat).to(down.dtype)
        up_grad = (flat_grad.T @ low).mul_(ctx.scale).to(up.dtype)
        return input_grad, None, down_grad, up_grad, None


class LeanLinear(LoraLinear):
    """peft's adapted linear layer, with the leaner passes if they give the same result."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """See `torch.nn.Linear`."""
        base: Any = self.get_base_layer()
        if self.disable_adapters or self.merged or base.bias is not None or self.active_adapters != [NAME]:
            return super().forward(x, *args, **kwargs)
        down, up = cast(Any, self.lora_A[NAME]).weight, cast(Any, self.lora_B[NAME]).weight
        return cast(Any, _LowRank).apply(x, base.weight, down, up, self.scaling[NAME])


def add_adapter(model: Any, settings: LoraSettings) -> Any:
    """Wrap `model` in peft: adapt its linear layers in place and freeze its own weights."""
    modules = settings.modules if isinstance(settings.modules, str) else list(settings.modules)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=modules,
        exclude_modules=_layers_below(model, settings.first_layer),
        task_type="CAUSAL_LM",
    )
    sharded = is_deepspeed_zero3_enabled()  # the hooks of ZeRO-3 need the forward passes of peft's own modules
    if not sharded and not settings.dropout:
        # peft documents this method, underscore included.
        register: Any = config._register_custom_module  # pyright: ignore[reportPrivateUsage]
        register({torch.nn.Linear: LeanLinear})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses an old attribute name of transformers
        # ZeRO-3 only gathers weights of a single dtype.
        return get_peft_model(model, config, autocast_adapter_dtype=not sharded)


@contextmanager
def merged(model: Any) -> Generator[None]:
    """Merge the adapter of `model` into its weights, as in later use; restore the weights bit for bit on exit."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLinear)]
    originals = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, weight in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = weight + layer.get_delta_weight(NAME).to(weight.dtype)
            layer.merged_adapters.append(NAME)
        yield
    finally:
        for layer, weight in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def _layers_below(model: Any, first: int) -> str | None:
    """A pattern for the layers to leave without an adapter. Raises `ConfigError` if these are all layers."""
    count: int = model.config.get_text_config().num_hidden_layers
    if first >= count:
        raise ConfigError(f"lora.first_layer is {first}; the model has {count} layers, counted from 0.")
    return rf".*\.layers\.({'|'.join(map(str, range(first)))})\..*" if first else None


def continue_adapter(tuned: Any, folder: Path) -> None:
    """Load an adapter folder into the adapter of `tuned`. Raises `ConfigError` if its settings or layers differ."""
    try:
        saved: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        config: Any = tuned.peft_config[NAME]
        differences = [
            f"{name} = {saved.get(name)}"
            for name in MUST_MATCH
            if saved.get(name, getattr(config, name)) != getattr(config, name)
        ]
        if differences:
            raise ConfigError(
                f"The adapter {folder} has {', '.join(differences)}; the settings ask for another. Make them equal, "
                "or merge it into the model first."
            )
        loaded = set_peft_model_state_dict(tuned, load_file(folder / "adapter_model.safetensors"))
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError, AttributeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(
            f"The adapter {folder} cannot be trained on: {reason} Expected a LoRA folder of the same model and rank."
        ) from error
    unmatched = [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if "lora_" in name)]
    if unmatched:
        raise ConfigError(
            f"The adapter {folder} adapts other layers than the settings ask for: {unmatched[0]} is on one side only."
        )


def save_adapter(tuned: Any, folder: Path, base: str, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write an adapter folder in bfloat16 that `<reference>+<folder>` loads; `base` names its base model.

    `state` holds the weights if those of `tuned` are divided among several processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(tuned, state_dict=state)
    rounded = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(rounded, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = tuned.peft_config[NAME].to_dict() | {
        "base_model_name_or_path": base,
        "inference_mode": True,
    }
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
