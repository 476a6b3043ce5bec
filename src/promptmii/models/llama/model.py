"""A GGUF model as a `LanguageModel`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from promptmii.errors import MissingDependencyError, UnknownModelError
from promptmii.models.base import ModelCard
from promptmii.models.chat import ChatFormat
from promptmii.models.embedded import EMBEDDED, embedded_file
from promptmii.models.llama.adapters import adapter_file
from promptmii.models.llama.engine import NativeEngine, threads
from promptmii.models.llama.native import BATCH, Native
from promptmii.models.llama.tokenizer import GgufTokenizer
from promptmii.models.local import LocalModel
from promptmii.models.references import GgufFile
from promptmii.models.threads import in_caller

CONTEXT = 8192
"""Most tokens of a prompt and its answer unless the user asks for more. Memory is taken for all of them."""
SAMPLES = 256
"""Places of a file whose bytes enter the revision."""


def load_gguf(reference: str, gguf: GgufFile, context: int | None = None) -> LocalModel:
    """A model and its adapters, with a context of so many tokens. Raises `UnknownModelError`, `ModelError`."""
    return in_caller(lambda: _load(reference, gguf, context))


def _load(reference: str, gguf: GgufFile, context: int | None) -> LocalModel:
    path = _model_file(gguf.place)
    native = Native(path)
    try:
        length = min(context or CONTEXT, native.trained_context)
        adapters = [adapter_file(Path(adapter), native) for adapter in gguf.adapters]
        native.open(length + BATCH, threads(), adapters)
        card = ModelCard(reference, revision([path, *adapters]), length, gives_scores=True)
        return LocalModel(card, ChatFormat(GgufTokenizer(native)), NativeEngine(native))
    except BaseException:
        native.close()
        raise


def _model_file(place: str) -> Path:
    """The file of an embedded model, of this machine, or of the hub. Raises `UnknownModelError`."""
    if place in EMBEDDED:
        return embedded_file(place)
    path = Path(place).expanduser()
    if path.is_file():
        return path
    repository, _, name = place.rpartition("/")
    if repository.count("/") != 1:
        raise UnknownModelError(f"There is no file {place}. Expected a GGUF file, or owner/name/file.gguf on the hub.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingDependencyError("A model of the hub", "hub") from error
    try:
        return Path(hf_hub_download(repository, name))
    except (OSError, ValueError, LookupError) as error:
        raise UnknownModelError(
            f"{place} is neither a file nor on the hub: {str(error).strip().splitlines()[0]}"
        ) from error


def revision(paths: Sequence[Path]) -> str:
    """A hash of the length and samples of each file, so that large files are told apart in no time."""
    digest = hashlib.sha256(b"llama.cpp")
    for path in paths:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(str(size).encode())
                for place in range(0, size, max(1, size // SAMPLES)):
                    file.seek(place)
                    digest.update(file.read(64))
        except OSError as error:
            raise UnknownModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()[:16]
