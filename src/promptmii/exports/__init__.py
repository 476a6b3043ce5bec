"""An instruction as code for other tools. A target is a template beside this module and its line in `TARGETS`.

Whatever comes from the artefact enters the code as a Python literal: nothing in it, however hostile, becomes code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from promptmii.errors import ConfigError, nearest
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
"""What each target gives. Its template is `<target>.txt`."""


@dataclass(frozen=True)
class Prompt:
    """What is exported."""

    before: str
    """What a model reads before the text."""
    after: str
    labels: tuple[str, ...]
    model: str
    """Its name on a server."""
    measured: str
    """The score, and what it was measured with."""
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    """Of the calibration; ones and zeros for none."""


def rendered(target: str, prompt: Prompt) -> str:
    """The prompt as a file for a target. Raises `ConfigError` for an unknown one."""
    if target not in TARGETS:
        raise ConfigError(f"Unknown export target {target!r}. {nearest(target, TARGETS)}")
    written = [defuse(label) for label in prompt.labels]
    values = {
        "before": _literal(prompt.before),
        "after": _literal(prompt.after),
        "labels": repr(dict(zip(written, prompt.labels, strict=True))),
        "model": repr(prompt.model),
        "measured": repr(prompt.measured),
        "control": "\n    ".join(map(repr, re.findall(".{1,100}", CONTROL.pattern))),
        "room": str(32 + max(len(json.dumps(label)) for label in written)),
        "scale": repr(prompt.scale),
        "offset": repr(prompt.offset),
        "prompt": f"{prompt.before}{_mark(prompt.before + prompt.after)}{prompt.after}",
    }
    pieces = {name: _filled(name, values).rstrip("\n") for name in ("core", "http")}
    return _filled(target, values | pieces)


def _filled(name: str, values: Mapping[str, str]) -> str:
    """A template in one pass, so that what is filled in is never read as a slot."""
    text = resources.files("promptmii.exports").joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: values[slot[1]], text)


def _literal(text: str) -> str:
    """Text as Python reads it, a line for each of its lines."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return repr(text) if len(lines) < 2 else "\n".join(("(", *(f"    {line!r}" for line in lines), ")"))


def _mark(text: str) -> str:
    """A mark for the place of the text, which the prompt does not hold elsewhere."""
    marks = ["{{text}}", *(f"{{{{text{number}}}}}" for number in range(2, len(text)))]
    return next(mark for mark in marks if mark not in text)
