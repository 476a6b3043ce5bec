"""How alike texts are: by embeddings of all-MiniLM-L6-v2, which sentence-transformers runs, or by their characters."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from promptmii.errors import MissingDependencyError
from promptmii.models.embedded import MINILM, embedded_file
from promptmii.models.threads import in_caller

PACKAGE = "sentence_transformers"
Likeness = Callable[[Sequence[str]], NDArray[Any]]
"""Similarity of n texts to m known ones, shape (n, m)."""


def available() -> bool:
    """The package and the weights are on this machine."""
    return find_spec(PACKAGE) is not None and MINILM.installed


def best() -> Literal["embedding", "tfidf"]:
    """The best similarity that this machine has."""
    return "embedding" if available() else "tfidf"


def likeness(by: Literal["embedding", "tfidf"], corpus: Sequence[str]) -> Likeness:
    """By sentence embeddings, or by TF-IDF of the characters in `corpus`; raises as `weights` does."""
    if by == "embedding":
        own = embed(corpus)
        return lambda texts: embed(texts) @ own.T
    from sklearn.feature_extraction.text import TfidfVectorizer

    words: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    counted = words.fit_transform(corpus)
    return lambda texts: (words.transform(texts) @ counted.T).toarray()


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
