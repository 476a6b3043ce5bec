"""Exports an instruction as code for other tools. Each target is a line in `TARGETS` and a template in this folder.

Values from the instruction file are inserted as Python literals, so none of them can become code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from promptmii.errors import ConfigError
from promptmii.messages import nearest
from promptmii.models.http.config import HOSTED
from promptmii.models.references import FIRST_TOKENS, without_address
from promptmii.prompts import CONTROL, defuse

TARGETS = {
    "openai": "Python with the package openai",
    "python": "Python with the standard library only, for any OpenAI-compatible server",
    "langchain": "a LangChain runnable",
    "dspy": "a DSPy module with its adapter",
    "promptfoo": "a promptfoo prompt function",
    "mlflow": "an MLflow model from code",
    "llama.cpp": "Python for llama-server: exact likelihoods, calibrated as measured",
    "txt": "the prompt alone, with a placeholder for the text as a JSON string",
}
"""Each target with its output. Its template is `<target>.txt`."""
ENDINGS = {"txt": ".txt"}
"""File endings of the targets that are not Python."""


@dataclass(frozen=True)
class Prompt:
    """The prompt to export, with the values that the templates need."""

    before: str
    """The prompt before the text."""
    after: str
    """The prompt after the text."""
    labels: tuple[str, ...]
    follower: str
    """The reference of the model that it was measured with, or nothing."""
    measured: str
    """The score, with the model and mode that it was measured for."""
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    """The calibration: `scale * log-probability + offset` of each label; ones and zeros if there is none."""


def rendered(target: str, prompt: Prompt) -> str:
    """The exported file. Raises `ConfigError` for an unknown target."""
    if target not in TARGETS:
        raise ConfigError(f"Unknown export target {target!r}. {nearest(target, TARGETS)}")
    written = [defuse(label) for label in prompt.labels]
    values = {
        "before": _literal(prompt.before),
        "after": _literal(prompt.after),
        "labels": repr(dict(zip(written, prompt.labels, strict=True))),
        "model": repr(_name_on_server(prompt.follower)),
        "server_address": repr(_default_server(prompt.follower)),
        "measured": repr(prompt.measured),
        "control": "\n    ".join(map(repr, re.findall(".{1,100}", CONTROL.pattern))),
        "max_tokens": str(32 + max(len(json.dumps(label)) for label in written)),
        "scale": repr(prompt.scale),
        "offset": repr(prompt.offset),
        "prompt": f"{prompt.before}{_placeholder(prompt.before + prompt.after)}{prompt.after}",
    }
    for piece in ("core", "server", "post", "http"):  # the last one holds the two before it
        values[piece] = _filled(piece, values).rstrip("\n")
    return _filled(target, values)


def _name_on_server(reference: str) -> str:
    return without_address(reference).removesuffix(FIRST_TOKENS).removeprefix("openai:").removeprefix("hf:")


def _default_server(reference: str) -> str:
    """The hosted API for an `openai:` model without an address, else nothing: no text goes where nobody sent it."""
    is_hosted = reference.startswith("openai:") and without_address(reference) == reference
    return HOSTED if is_hosted else ""


def _filled(name: str, values: Mapping[str, str]) -> str:
    """A filled template. All slots are replaced in one pass, so a value is never read as a slot."""
    text = resources.files("promptmii.exports").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: values[slot[1]], text)


def _literal(text: str) -> str:
    """A text as a Python literal, with one string per line."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return repr(text) if len(lines) < 2 else "\n".join(("(", *(f"    {line!r}" for line in lines), ")"))


def _placeholder(text: str) -> str:
    """A placeholder that does not occur in the prompt."""
    placeholders = ["{{text}}", *(f"{{{{text{number}}}}}" for number in range(2, len(text)))]
    return next(placeholder for placeholder in placeholders if placeholder not in text)
