"""GGUF files: where they are, and what pins them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from promptmii.errors import MissingDependencyError, UnknownModelError, first_line
from promptmii.models.embedded import EMBEDDED, embedded_file

SAMPLES = 256
"""Places of a file whose bytes enter the revision."""


def model_file(place: str) -> Path:
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
        raise UnknownModelError(f"{place} is neither a file nor on the hub: {first_line(error)}") from error


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
