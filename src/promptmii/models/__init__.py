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

__all__ = ["LanguageModel", "ScriptedModel", "load_model"]

FORMS = ("smol", "hf:<id or folder>[+adapter folder]", "openai:<model>")


def load_model(reference: str, http: "HttpConfig | None" = None, *, cache: str | None = None) -> LanguageModel:
    """The model behind a reference. `http` and `cache` (a folder) are for `openai:` references.

    Raises `UnknownModelError`, `EndpointError`, or `MissingDependencyError`.
    """
    kind, _, name = reference.partition(":")
    if reference == "smol":
        from promptmii.models.local import LocalModel
        from promptmii.models.smol import smol_folder

        return LocalModel.load("smol", str(smol_folder()))
    if kind == "hf" and name:
        from promptmii.models.local import LocalModel

        base, _, adapter = name.partition("+")
        return LocalModel.load(reference, base, adapter or None)
    if kind == "openai" and name:
        from promptmii.models.http import HttpModel
        from promptmii.models.wrap import Cached

        model = HttpModel(name, http)
        return Cached(model, Path(cache)) if cache else model
    hint = nearest(kind, ("smol", "hf", "openai"))
    raise UnknownModelError(f"Unknown model reference {reference!r}. Expected one of: {'; '.join(FORMS)}. {hint}")
