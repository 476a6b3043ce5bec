"""Models behind one protocol, found by reference: `smol`, `hf:<id or folder>[+adapter]`, `openai:<model>`.

An engine's module is imported only when a reference asks for it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from promptmii.errors import UnknownModelError, nearest
from promptmii.models.base import LanguageModel
from promptmii.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from promptmii.models.http import HttpConfig

__all__ = ["LanguageModel", "ScriptedModel", "adapted", "base_weights", "load_model"]

FORMS = ("smol[+adapter folder]", "hf:<id or folder>[+adapter folder]", "openai:<model>")


def load_model(reference: str, http: "HttpConfig | None" = None, *, cache: str | None = None) -> LanguageModel:
    """The model behind a reference. `http` and `cache` (a folder) are for `openai:` references.

    Raises `UnknownModelError`, `EndpointError`, or `MissingDependencyError`.
    """
    kind, _, name = reference.partition(":")
    if kind == "openai" and name:
        from promptmii.models.http import HttpModel
        from promptmii.models.wrap import Cached

        model = HttpModel(name, http)
        return Cached(model, Path(cache)) if cache else model
    weights = base_weights(reference)
    if weights is None:
        hint = nearest(kind.partition("+")[0], ("smol", "hf", "openai"))
        raise UnknownModelError(f"Unknown model reference {reference!r}. Expected one of: {'; '.join(FORMS)}. {hint}")
    from promptmii.models.local import LocalModel

    return LocalModel.load(reference, weights, reference.partition("+")[2] or None)


def base_weights(reference: str) -> str | None:
    """The id or folder of a local model's weights, its adapter aside; `None` where the reference names no local model."""
    base, _, _ = reference.partition("+")
    if base == "smol":
        from promptmii.models.smol import smol_folder

        return str(smol_folder())
    kind, _, name = base.partition(":")
    return name if kind == "hf" and name else None


def adapted(reference: str, adapter: Path) -> str:
    """The reference of a local model under an adapter."""
    return f"{reference}+{adapter}"
