"""Sentence embeddings by all-MiniLM-L6-v2 (`promptmii models install minilm`), run by sentence-transformers."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptmii.errors import MissingDependencyError
from promptmii.models.embedded import MINILM, embedded_file
from promptmii.models.threads import in_caller

PACKAGE = "sentence_transformers"


def available() -> bool:
    """The package and the weights are on this machine."""
    return find_spec(PACKAGE) is not None and MINILM.installed


def weights() -> Path:
    """The folder of the model. Raises `MissingDependencyError` or `UnknownModelError` if something is missing."""
    if find_spec(PACKAGE) is None:
        raise MissingDependencyError("Sentence embeddings", "rivals")
    embedded_file(MINILM.name)
    return MINILM.unpacked


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of unit length, shape (n, 384)."""
    return in_caller(lambda: _model().encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


@cache
def _model() -> Any:
    from promptmii.models.hf.model import quiet

    with quiet():
        return import_module(PACKAGE).SentenceTransformer(str(weights()), device="cpu")
