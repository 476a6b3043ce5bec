"""Models behind one protocol, found by reference: `smol`, `hf:<id or folder>[+adapter]`, `openai:<model>`.

An engine's module is imported only when a reference asks for it.
"""

import json
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

    adapter = reference.partition("+")[2] or (name if _adapted_base(name) else None)
    return LocalModel.load(reference, weights, adapter)


def base_weights(reference: str) -> str | None:
    """The id or folder of a local model's weights, its adapter aside; `None` where the reference names no local model.

    A folder that holds an adapter alone stands for the model that the adapter names.
    """
    base, _, _ = reference.partition("+")
    if base == "smol":
        from promptmii.models.smol import smol_folder

        return str(smol_folder())
    kind, _, name = base.partition(":")
    if kind != "hf" or not name:
        return None
    inside = _adapted_base(name)
    return name if inside is None else base_weights(inside) or inside


def _adapted_base(folder: str) -> str | None:
    """What an adapter folder says it belongs to; `None` for anything else."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file() or (Path(folder) / "config.json").exists():
        return None
    try:
        return str(json.loads(path.read_text("utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise UnknownModelError(f"{path} does not name the model that the adapter belongs to: {error}.") from error


def adapted(reference: str, adapter: Path) -> str:
    """The reference of a local model under an adapter."""
    return f"{reference}+{adapter}"
