"""Find GGUF files, compute their revision, and convert peft's LoRA adapters to GGUF."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from promptmii.errors import UnknownModelError, required_by
from promptmii.files import atomic_file, cache_folder, private_folder, refuse_full_disk
from promptmii.messages import first_line
from promptmii.models.embedded import EMBEDDED, embedded_file
from promptmii.models.references import is_path

SAMPLES = 256
"""Positions in a file whose bytes are hashed for the revision."""
_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication")
"""LoRA options that llama.cpp does not support."""
_DTYPES = ("BF16", "F16", "F32")
_PREFIX, _SUFFIXES = "base_model.model.", {".lora_A.weight": ".weight.lora_a", ".lora_B.weight": ".weight.lora_b"}


Header = Callable[[str], str | None]
"""Looks up a key in a GGUF file's header; returns its value as text, or `None` if the key is missing."""


def model_file(source: str) -> Path:
    """The file of an embedded model, a local path, or a file on the hub. Raises `UnknownModelError`."""
    if source in EMBEDDED:
        return embedded_file(source)
    path = Path(os.path.expanduser(source))  # unlike Path.expanduser, it does not raise for an unknown user
    if path.is_file():
        return path
    repository, _, name = source.rpartition("/")
    if repository.count("/") != 1 or is_path(repository):
        raise UnknownModelError(f"There is no file {source}. Expected a GGUF file, or owner/name/file.gguf on the hub.")
    with required_by("A model of the hub", "hub"):
        from huggingface_hub import hf_hub_download
    try:
        return Path(hf_hub_download(repository, name))
    except (OSError, ValueError, LookupError) as error:
        refuse_full_disk(error, source)
        raise UnknownModelError(f"{source} is neither a file nor on the hub: {first_line(error)}") from error


def revision(paths: Sequence[Path]) -> str:
    """A hash of each file's size and samples of its bytes, which is quick even for large files."""
    digest = hashlib.sha256(b"llama.cpp")
    for path in paths:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(str(size).encode())
                for position in range(0, size, max(1, size // SAMPLES)):
                    file.seek(position)
                    digest.update(file.read(64))
        except OSError as error:
            raise UnknownModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:16]


def adapter_file(adapter: Path, base: Header) -> Path:
    """The adapter as a GGUF file; a peft folder is converted once. Raises `UnknownModelError` if it cannot be."""
    if adapter.is_file():
        return adapter
    try:
        config: dict[str, Any] = dict(json.loads((adapter / "adapter_config.json").read_text("utf-8")))
        weights = (adapter / "adapter_model.safetensors").read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise UnknownModelError(
            f"{adapter} is not an adapter: {error}. Expected a LoRA in GGUF, or a folder with adapter_config.json and "
            "adapter_model.safetensors."
        ) from error
    shape = _Shape.of(base)
    digest = hashlib.sha256(weights + json.dumps([config, shape], sort_keys=True).encode()).hexdigest()[:24]
    target = cache_folder() / "adapters" / f"{digest}.gguf"
    if not target.is_file():
        private_folder(target.parent)
        try:
            with atomic_file(target) as file:
                _write_lora(file, config, weights, shape)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UnknownModelError(f"{adapter} cannot be converted for llama.cpp: {error}.") from error
    return target


class _Shape(NamedTuple):
    """The parts of a model's configuration that determine the names and row order of its weights."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int

    @classmethod
    def of(cls, header: Header) -> "_Shape":
        name = header("general.architecture") or ""
        keys = ("block_count", "attention.head_count", "attention.head_count_kv")
        return cls(name, *(int(header(f"{name}.{key}") or 1) for key in keys))


def _write_lora(target: Path, config: dict[str, Any], weights: bytes, base: _Shape) -> None:
    """Write a plain LoRA of this model's linear layers.

    For anything else, raises `ValueError`, `TypeError`, `KeyError` or `SafetensorError`.
    """
    unsupported = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type", "LORA") != "LORA" or unsupported:
        found = ", ".join(unsupported) or config["peft_type"]
        raise ValueError(f"expected a plain LoRA of linear layers, got one with {found}")
    number = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == base.architecture), None)
    if number is None:
        raise ValueError(f"the architecture {base.architecture!r} is not known")
    names = gguf.get_tensor_name_map(number, base.layers)
    writer = gguf.GGUFWriter(target, base.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    rank = float(config["r"])
    alpha = float(config["lora_alpha"]) * (rank**0.5 if config.get("use_rslora") else 1.0)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    heads = {"q_proj": base.heads, "k_proj": base.kv_heads}
    for key, tensor in _tensors(weights):
        suffix = next((end for end in _SUFFIXES if key.endswith(end)), "")
        module = key.removeprefix(_PREFIX).removesuffix(suffix)
        name = names.get_name(module) if suffix else None
        if name is None:
            raise ValueError(f"the model has no place for {key}")
        head = heads.get(module.rpartition(".")[2])
        # In this architecture, llama.cpp interleaves the two halves of each head's rotary dimensions.
        if base.architecture == "llama" and head and suffix == ".lora_B.weight":
            tensor = _interleaved(tensor, head)
        writer.add_tensor(name + _SUFFIXES[suffix], np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(weights: bytes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors of a safetensors file as float32. Raises `ValueError`."""
    for name, tensor in deserialize(weights):
        dtype = tensor["dtype"]
        if dtype not in _DTYPES:
            raise ValueError(f"{name} holds numbers of the kind {dtype}; expected {', '.join(_DTYPES)}")
        flat = gguf.dequantize(np.frombuffer(tensor["data"], np.uint8), gguf.GGMLQuantizationType[dtype])
        yield name, flat.reshape(tensor["shape"])


def _interleaved(tensor: NDArray[Any], heads: int) -> NDArray[Any]:
    rows, *rest = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(tensor.shape)
