"""Models behind one protocol, loaded by reference: `qwen`, `gguf:<file>`, `hf:<id or folder>`, `openai:<model>`.

An engine is imported only when a reference needs it.
"""

import os
import re
from dataclasses import replace

from promptmii.errors import UnknownModelError
from promptmii.messages import nearest
from promptmii.models.base import LanguageModel
from promptmii.models.embedded import EMBEDDED
from promptmii.models.http.config import HttpConfig
from promptmii.models.references import (
    DEFAULT,
    FORMS,
    KINDS,
    WRITER,
    WRITERS,
    ServerReference,
    Weights,
    default_follower,
    gguf_of,
    is_local,
    weights_of,
)
from promptmii.models.scripted import ScriptedModel

# Waiting threads that spin take cores from other programs and gain nothing even on an idle machine.
# llama.cpp and torch read this variable when they start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = [
    "DEFAULT",
    "WRITER",
    "LanguageModel",
    "ScriptedModel",
    "Weights",
    "check_reference",
    "default_follower",
    "load_model",
    "weights_of",
]


def check_reference(reference: str, base_url: str | None = None) -> None:
    """Raise `UnknownModelError` if a reference has none of the known forms. Does not load the model."""
    if not (ServerReference.parse(reference) or is_local(reference)):
        raise _unknown(reference, base_url)


def _unknown(reference: str, base_url: str | None) -> UnknownModelError:
    kind = re.split("[:+@]", reference)[0]
    if kind in KINDS:
        hint = ""
    elif base_url:  # the user means a model on that server
        hint = f"The model of that name at {base_url} is openai:{reference}. "
    else:  # the message lists the known forms itself
        hint = nearest(kind, (*EMBEDDED, *WRITERS, *KINDS)).partition("Known:")[0]
    return UnknownModelError(f"Unknown model reference {reference!r}. {hint}Expected one of: {'; '.join(FORMS)}.")


def load_model(reference: str, http: HttpConfig | None = None) -> LanguageModel:
    """The model that a reference names. `http` is for `openai:` references; its context length also for GGUF files.

    Raises `ConfigError`, `UnknownModelError`, `EndpointError`, or `MissingDependencyError`.
    """
    server = ServerReference.parse(reference)
    if server:
        from promptmii.models.http.client import HttpModel

        config = http or HttpConfig()
        return HttpModel(server.model, replace(config, base_url=server.address or config.base_url), reference)
    gguf = gguf_of(reference)
    if gguf:
        from promptmii.models.llama import load_gguf

        return load_gguf(reference, gguf, http.context_length if http else None)
    weights = weights_of(reference)
    if weights is None:
        raise _unknown(reference, http and http.base_url)
    from promptmii.models.hf.model import TransformersModel

    return TransformersModel.load(reference, weights)
