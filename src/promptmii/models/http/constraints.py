"""Constrains an answer to one of K labels, with the request fields of each kind of server.

A server that does not know a field ignores it and answers freely, so each server is probed: asked which animal barks,
with two musical instruments as the only options, a server that enforces the constraint must name an instrument.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, assert_never

from promptmii.models.base import Chat
from promptmii.parse import without_thought

PROBE: Chat = [{"role": "user", "content": "Which animal barks? Answer with one word."}]
PROBE_OPTIONS = ("violin", "harpsichord")
"""Unlikely answers: a model that gives one is really restricted to them."""


class Dialect(StrEnum):
    """The request fields of a kind of server, in the order in which they are probed."""

    VLLM = "vllm"
    """vLLM 0.12 and later: `structured_outputs`."""
    GUIDED = "guided"
    """vLLM before 0.12: `guided_choice`."""
    REGEX = "regex"
    """SGLang."""
    GRAMMAR = "grammar"
    """llama.cpp's server: GBNF."""
    SCHEMA = "schema"
    """Ollama and hosted APIs: `response_format` with an enum; the answer is JSON."""


def fields(dialect: Dialect, options: Sequence[str]) -> dict[str, Any]:
    """Fields to add to a chat completion request."""
    match dialect:
        case Dialect.VLLM:
            return {"structured_outputs": {"choice": list(options)}}
        case Dialect.GUIDED:
            return {"guided_choice": list(options)}
        case Dialect.REGEX:
            return {"regex": "(" + "|".join(re.escape(option) for option in options) + ")"}
        case Dialect.GRAMMAR:
            return {"grammar": "root ::= " + " | ".join(json.dumps(option, ensure_ascii=False) for option in options)}
        case Dialect.SCHEMA:
            schema = {
                "type": "object",
                "properties": {"label": {"type": "string", "enum": list(options)}},
                "required": ["label"],
                "additionalProperties": False,
            }
            named = {"name": "label", "strict": True, "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case _:
            assert_never(dialect)


def token_limit(options: Sequence[str]) -> int:
    """Enough tokens for any answer: one per byte of the longest option as JSON, and some for text around it."""
    return 32 + max(len(json.dumps(option)) for option in options)


def read(dialect: Dialect, answer: str, options: Sequence[str]) -> int | None:
    """The index of the answered option, or `None`. Reasoning and white space around it are ignored."""
    if answer not in options:
        answer = without_thought(answer) or ""
    if dialect is Dialect.SCHEMA:
        answer = _label(answer)
    if answer in options:
        return options.index(answer)
    matches = [i for i, option in enumerate(options) if option.strip() == answer.strip()]
    return matches[0] if len(matches) == 1 else None


def _label(answer: str) -> str:
    """The label in the JSON of an answer, with a fence or sentences around it, or with the same JSON again; else ""."""
    labels: list[object] = []
    end = 0
    for start in (brace.start() for brace in re.finditer("{", answer)):
        if start >= end:
            with suppress(ValueError, LookupError, RecursionError):
                value, end = json.JSONDecoder().raw_decode(answer, start)
                labels.append(value["label"])
    label = labels[0] if labels else ""
    return label if isinstance(label, str) and labels.count(label) == len(labels) else ""
