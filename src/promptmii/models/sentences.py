"""Similarity of texts, by sentence embeddings (all-MiniLM-L6-v2 on sentence-transformers) or by their characters."""

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
from promptmii.models.hf import quiet
from promptmii.models.threads import in_calling_thread

PACKAGE = "sentence_transformers"
SimilarityTo = Callable[[Sequence[str]], NDArray[Any]]
"""Computes the similarities of n texts to the m texts of a corpus, shape (n, m)."""


def available() -> bool:
    """Return whether the package and the weights are installed."""
    return find_spec(PACKAGE) is not None and MINILM.installed


def best_similarity() -> Literal["embedding", "tfidf"]:
    """The best kind of similarity available on this machine."""
    return "embedding" if available() else "tfidf"


def similarity_to(by: Literal["embedding", "tfidf"], corpus: Sequence[str]) -> SimilarityTo:
    """Similarity to `corpus` by sentence embeddings, or by TF-IDF of character n-grams. Raises as `weights` does."""
    if by == "embedding":
        embeddings = embed(corpus)
        return lambda texts: embed(texts) @ embeddings.T
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    vectors = vectorizer.fit_transform(corpus)
    return lambda texts: (vectorizer.transform(texts) @ vectors.T).toarray()


def weights() -> Path:
    """The model's folder. Raises `MissingDependencyError` or `UnknownModelError` if package or folder are missing."""
    if find_spec(PACKAGE) is None:
        raise MissingDependencyError("Sentence embeddings", "rivals")
    embedded_file(MINILM.name)
    return MINILM.unpacked


@in_calling_thread
def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings of unit length, shape (n, 384)."""
    return _model().encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


@cache
def _model() -> Any:
    folder = str(weights())
    with quiet():
        return import_module(PACKAGE).SentenceTransformer(folder, device="cpu")
