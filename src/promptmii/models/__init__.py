"""Models behind one protocol, found by reference: `smol`, `hf:<id or folder>[+adapter]`, `openai:<model>`.

An engine's module is imported only when a reference asks for it.
"""

from promptmii.errors import UnknownModelError, nearest
from promptmii.models.base import LanguageModel
from promptmii.models.scripted import ScriptedModel

__all__ = ["LanguageModel", "ScriptedModel", "load_model"]

FORMS = ("smol", "hf:<id or folder>[+adapter folder]", "openai:<model>")


def load_model(reference: str, endpoint: object = None) -> LanguageModel:
    """The model behind a reference; `endpoint` is an `HttpConfig` for `openai:` references.

    Raises `UnknownModelError`, `EndpointError`, or `MissingDependencyError`.
    """
    if reference == "smol":
        from promptmii.models.local import LocalModel
        from promptmii.models.smol import smol_folder

        return LocalModel.load("smol", str(smol_folder()))
    kind, _, name = reference.partition(":")
    if kind == "hf" and name:
        from promptmii.models.local import LocalModel

        base, _, adapter = name.partition("+")
        return LocalModel.load(reference, base, adapter or None)
    if kind == "openai" and name:
        from promptmii.models.http import HttpConfig, HttpModel

        return HttpModel(name, endpoint if isinstance(endpoint, HttpConfig) else HttpConfig())
    hint = nearest(kind, ("smol", "hf", "openai"))
    raise UnknownModelError(f"Unknown model reference {reference!r}. Expected one of: {'; '.join(FORMS)}. {hint}")
