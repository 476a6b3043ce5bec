"""Models behind one protocol, found by reference: `smol`, `hf:<id or folder>`, `openai:<model>`; `+<folder>` adds an adapter.

An engine's module is imported only when a reference asks for it.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptmii.errors import UnknownModelError, nearest
from promptmii.models.base import LanguageModel
from promptmii.models.references import FORMS, SHIPPED, WRITER, Weights, reader_for, untrained_for, weights_of
from promptmii.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from promptmii.models.http import HttpConfig

__all__ = [
    "SHIPPED",
    "WRITER",
    "LanguageModel",
    "ScriptedModel",
    "Weights",
    "adapted",
    "load_model",
    "reader_for",
    "untrained_for",
    "weights_of",
]


def load_model(reference: str, http: "HttpConfig | None" = None, *, cache: str | None = None) -> LanguageModel:
    """The model behind a reference. `http` and `cache` (a folder) are for `openai:` references.

    Raises `UnknownModelError`, `EndpointError`, or `MissingDependencyError`.
    """
    kind, _, name = reference.partition(":")
    if kind == "openai" and name:
        return _served(reference, name, http, cache)
    weights = weights_of(reference)
    if weights is None:
        hint = nearest(kind.partition("+")[0], ("smol", *SHIPPED, "hf", "openai"))
        raise UnknownModelError(f"Unknown model reference {reference!r}. Expected one of: {'; '.join(FORMS)}. {hint}")
    from promptmii.models.local import LocalModel

    return LocalModel.load(reference, weights)


def _served(reference: str, name: str, http: "HttpConfig | None", cache: str | None) -> LanguageModel:
    from promptmii.models.http import HttpConfig, HttpModel
    from promptmii.models.wrap import Cached

    name, _, address = name.partition("@http")
    if address:
        if urlsplit(f"http{address}").username:
            raise UnknownModelError(
                f"The address of openai:{name} holds a user name. Keys belong in OPENAI_API_KEY, which is not stored."
            )
        http = replace(http or HttpConfig(), base_url=f"http{address}")
    model = HttpModel(name, http, reference)
    return Cached(model, Path(cache)) if cache else model


def adapted(reference: str, adapter: Path) -> str:
    """The reference of a local model under an adapter."""
    return f"{reference}+{adapter}"
