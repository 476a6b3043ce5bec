"""LoRA adapters for llama.cpp: a GGUF file as it is, a folder of peft converted once."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptmii.errors import UnknownModelError
from promptmii.files import atomic_file, cache_folder
from promptmii.models.llama.native import Native

_PREFIX, _SUFFIXES = "base_model.model.", {".lora_A.weight": ".weight.lora_a", ".lora_B.weight": ".weight.lora_b"}


def adapter_file(adapter: Path, base: Native) -> Path:
    """The adapter as llama.cpp reads it. Raises `UnknownModelError` where it is none, or belongs to another kind of model."""
    if adapter.is_file():
        return adapter
    try:
        config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        weights = (adapter / "adapter_model.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise UnknownModelError(
            f"{adapter} is no adapter: {error}. Expected a LoRA in GGUF, or a folder with adapter_config.json and "
            "adapter_model.safetensors."
        ) from error
    digest = hashlib.sha256(weights + json.dumps(config, sort_keys=True).encode()).hexdigest()[:24]
    target = cache_folder() / "adapters" / f"{digest}.gguf"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(target) as file:
                write_lora(file, config, weights, base)
        except (KeyError, ValueError) as error:
            raise UnknownModelError(f"{adapter} cannot be converted for llama.cpp: {error}.") from error
    return target


def write_lora(target: Path, config: dict[str, Any], weights: bytes, base: Native) -> None:
    """Write peft's tensors under llama.cpp's names. Raises `ValueError`, `KeyError` for anything but a plain LoRA of linear layers."""
    import gguf
    from safetensors.numpy import load

    if config.get("peft_type", "LORA") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        raise ValueError("only plain LoRA of linear layers is supported")
    architecture = base.metadata("general.architecture") or ""
    number = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if number is None:
        raise ValueError(f"the architecture {architecture!r} is not known")
    names = gguf.get_tensor_name_map(number, int(base.metadata(f"{architecture}.block_count") or 0))
    writer = gguf.GGUFWriter(target, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    rank = float(config["r"])
    alpha = float(config["lora_alpha"]) * (rank**0.5 if config.get("use_rslora") else 1.0)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    heads = {"q_proj": f"{architecture}.attention.head_count", "k_proj": f"{architecture}.attention.head_count_kv"}
    for key, tensor in load(weights).items():
        suffix = next((one for one in _SUFFIXES if key.endswith(one)), "")
        module = key.removeprefix(_PREFIX).removesuffix(suffix)
        known = names.get_name(module) if suffix else None
        if known is None:
            raise ValueError(f"the tensor {key} has no place in {architecture}")
        head = heads.get(module.rpartition(".")[2])
        # llama.cpp keeps the two halves of a rotation side by side in models of this architecture.
        if architecture == "llama" and head and suffix == ".lora_B.weight":
            tensor = _interleaved(tensor, int(base.metadata(head) or 1))
        writer.add_tensor(known + _SUFFIXES[suffix], np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(tensor: NDArray[Any], heads: int) -> NDArray[Any]:
    rows, *rest = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(tensor.shape)
