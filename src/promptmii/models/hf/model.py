"""Any causal language model of transformers on this machine, made fast for promptmii's use of it.

`choose` computes the common prefix of a batch once and everything else in packed rows (`packing.py`).
`generate` has its own decoding loop: equal chats share one prefill, and finished rows leave the batch.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptmii.errors import UnknownModelError, required_by
from promptmii.files import refuse_full_disk
from promptmii.messages import first_line
from promptmii.models.base import ModelCard
from promptmii.models.chat import ChatFormat, Tokenizer
from promptmii.models.hf import quiet
from promptmii.models.local import LocalModel
from promptmii.models.references import Weights, is_missing_folder
from promptmii.models.threads import in_calling_thread

with required_by("Models of transformers (hf:)", "hf"):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from promptmii.models.hf.engines import engine_for

SAMPLES = 1024
"""Values per tensor in the revision's hash: enough to tell any fine-tuned model apart, few enough to be quick."""


class HfTokenizer(Tokenizer):
    """A tokenizer of transformers with its chat template."""

    def __init__(self, tokenizer: Any, ends: int | Sequence[int] | None) -> None:
        """`ends` are the end tokens in the model's generation configuration."""
        self._tokenizer = tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.control = {str(name): int(token) for name, token in (special | tokenizer.get_added_vocab()).items()}
        configured = [ends] if isinstance(ends, int) else list(ends or ())
        self.ends = [int(end) for end in (tokenizer.eos_token_id, *configured) if end is not None]
        self.template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self.names = tokenizer.special_tokens_map

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=begin)["input_ids"] if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class TransformersModel(LocalModel):
    """A `LocalModel` whose weights can be trained."""

    def __init__(self, reference: str, model: Any, tokenizer: Any, revision: str) -> None:
        """Takes a model and a tokenizer of transformers; sets the model's attention to the fastest that it supports.

        Raises `UnknownModelError` if the model's configuration names no longest context.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:
            raise UnknownModelError(
                f"The configuration of {reference} names no longest context. Add max_position_embeddings, in tokens, "
                "to its config.json."
            )
        form = ChatFormat(HfTokenizer(tokenizer, model.generation_config.eos_token_id))
        card = ModelCard(reference, revision, int(context), gives_scores=True, contrasts=True)
        super().__init__(card, form, engine_for(model))

    @classmethod
    @in_calling_thread
    def load(cls, reference: str, weights: Weights) -> "TransformersModel":
        """Load onto the named device, or the best of this machine. Raises `UnknownModelError`."""
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        device = torch.device(weights.device or best)
        model, tokenizer = read_weights(reference, weights, device)
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:  # how torch reports a missing or full device
            message = f"{reference} cannot be put on {device}: {first_line(error)}. Name another device after @."
            raise UnknownModelError(message) from error
        return cls(reference, model, tokenizer, revision(model, tokenizer))


def read_weights(
    reference: str, weights: Weights, device: torch.device, dtype: torch.dtype | None = None
) -> tuple[Any, Any]:
    """The model, not yet on `device`, with its adapters merged; and its tokenizer.

    The default `dtype` is bfloat16 on accelerators. On CPUs it is float32, unless the weights are stored in 16 bits and
    the CPU multiplies bfloat16 natively (on AVX2, bfloat16 runs at a quarter of float32's speed). Raises
    `UnknownModelError` with the `reference` in its message, and `OutputError` if the disk is too full to download it.
    """
    if is_missing_folder(weights.source):
        raise UnknownModelError(f"{reference} cannot be loaded: the folder {weights.source} does not exist.")
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(weights.source)
            dtype = dtype or _dtype(AutoConfig.from_pretrained(weights.source).dtype, device)
            model: Any = AutoModelForCausalLM.from_pretrained(weights.source, dtype=dtype)
            for adapter in weights.adapters:
                model = _merged(model, adapter)
    except (OSError, ValueError) as error:
        refuse_full_disk(error, reference)
        message = f"{reference} cannot be loaded: {first_line(error)}. Expected a hub id or a folder with config.json."
        raise UnknownModelError(message) from error
    return model, tokenizer


def _merged(model: Any, adapter: str) -> Any:
    """The model with a LoRA merged into it. Raises `UnknownModelError` if the LoRA was trained on another model."""
    from peft import PeftModel

    # Without these checks, peft tries the hub for most of a minute.
    if is_missing_folder(adapter) or not (Path(adapter).is_dir() or adapter.count("/") == 1):
        raise UnknownModelError(f"The adapter {adapter} is not a folder. Expected a LoRA folder, or owner/name.")
    try:
        tuned: Any = PeftModel.from_pretrained(model, adapter)
        loaded = tuned.load_adapter(adapter, tuned.active_adapter)  # again, because only this reports unmatched weights
        unmatched = [*loaded.unexpected_keys, *(name for name in loaded.missing_keys if "lora_" in name)]
        if not unmatched:
            return tuned.merge_and_unload()
        reason = f"{unmatched[0]} is on one side only"
    except RuntimeError as error:  # how torch reports a wrong shape
        reason = str(error).strip().splitlines()[-1].strip()
    raise UnknownModelError(f"The adapter {adapter} does not fit this model: {reason}. Expected a LoRA trained on it.")


def _dtype(stored: object, device: torch.device) -> torch.dtype:
    if device.type in ("cuda", "mps"):
        return torch.bfloat16
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native and stored in (torch.bfloat16, torch.float16) else torch.float32


def revision(model: Any, tokenizer: Any) -> str:
    """A hash of the configuration, tokenizer and chat template, and of each tensor's dtype and samples of its values.

    It is computed from the loaded model, so it also covers hub revisions and merged adapters. The same weights in
    bfloat16 and in float32 are two revisions: up to 4 of 60 labels differ.
    """
    config: dict[str, Any] = model.config.to_dict()
    for incidental in ("dtype", "_name_or_path", "_attn_implementation", "transformers_version"):
        config.pop(incidental, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(str(tokenizer.chat_template).encode())
    for name, tensor in model.named_parameters():
        flat = tensor.detach().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(flat[:: max(1, flat.numel() // SAMPLES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
