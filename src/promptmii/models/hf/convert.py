"""Convert an embedded GGUF model to a transformers folder, for training and for processors on which torch is faster.

The weights are dequantised once, to bfloat16 safetensors, because transformers can take minutes to read a GGUF file.
"""

import json
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from promptmii.errors import required_by
from promptmii.files import atomic_folder, cache_folder, locked
from promptmii.models.embedded import embedded, embedded_file
from promptmii.models.hf import quiet

LAYOUT = "4"
"""Version of the conversion. Raise it when the conversion changes, so that older folders are not used."""


def converted(name: str) -> Path:
    """The folder of an embedded model, converted on first use. Raises `UnknownModelError`, `MissingDependencyError`."""
    source = embedded_file(name)
    folder = _folder(name)
    if not folder.is_dir():
        with locked(folder.parent, wait=lambda: None):
            if not folder.is_dir():
                with atomic_folder(folder) as new:
                    _convert(source, new)
    return folder


def is_converted(name: str) -> bool:
    """Whether an embedded model has been converted already."""
    return _folder(name).is_dir()


def _folder(name: str) -> Path:
    return cache_folder() / "models" / name / f"safetensors-{embedded(name).sha256[:12]}-{LAYOUT}"


def _convert(gguf: Path, folder: Path) -> None:
    with required_by("An embedded model under transformers", "hf"):
        import torch
        from safetensors.torch import save_file
        from tokenizers import pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with quiet(), redirect_stderr(StringIO()):  # hides the progress bar of the dequantisation
        model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    if model.config.model_type == "llama":
        # The file names the pre-tokenizer "smollm", which splits digits first. transformers reads every GPT-2
        # vocabulary as plain byte-level, which splits "\n\n1" and "  1" into tokens the model was not trained on.
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.save_pretrained(folder)
    # The file may hold a separate head, in more bits than the embeddings that the published model ties it to.
    tied = bool(model.config.tie_word_embeddings)
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {
        "dtype": "bfloat16",
        "architectures": [type(model).__name__],
        "tie_word_embeddings": tied,
    }
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str), encoding="utf-8")
