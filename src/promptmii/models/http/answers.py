"""Reads chat completions, streamed or not, and checks their text, finish reason and usage."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from promptmii.models.base import Chat, Completion, FailureKind, Usage
from promptmii.models.http.refusals import DEPTH, SHOWN, RefusedError, bad_answer, error_message, refusal

MOST_TOKENS = 10**9
"""Larger counts are errors of the server."""
# Finish reasons differ between servers; OpenAI's are "length", "content_filter" and "stop".
TRUNCATED = re.compile(r"length|max\w*tokens|token_limit|context_window|incomplete", re.IGNORECASE)
WITHHELD = re.compile(
    r"filter|safety|recitation|sensitive|blocklist|prohibited|spii|refus|moderation|flagged|guardrail", re.IGNORECASE
)
BROKEN = re.compile(r"error|abort|network|insufficient|malformed|cancel|fail|timeout", re.IGNORECASE)
THOUGHT = re.compile(r"reason|think|thought")
"""Matches the names of message fields that contain a model's reasoning."""
_RULE = re.compile(r"([\W_])\1+|(\w)\2{3,}")
"""A repeated sign, such as the dashes of a line across a page, which tokenizers merge."""
CHECKED_PROMPT = 1000
"""Only longer prompts, in tokens, are compared with the server's count."""
STREAM_FIELDS = ("data:", "event:", "id:", "retry:", ":")
"""What the lines of a stream start with; a colon alone starts a comment, such as a sign of life."""


def read_completion(body: Any) -> Completion:
    """The completion in a decoded response. Raises `RefusedError` if there is no complete answer."""
    choice, message = _first_choice(body)
    text = _text(message.get("content"))
    usage = read_usage(body.get("usage"), wrote=bool(text))
    finish = str(choice.get("finish_reason"))
    if choice.get("error") or BROKEN.search(finish):
        # Other calls may well succeed, so this is not an outage to wait for.
        reason = error_message(choice) or ("no reason given" if finish == "error" else finish)
        raise bad_answer(f"the server stopped with an error: {reason}", usage)
    if WITHHELD.search(finish):
        detail = f" ({finish})" if finish != "content_filter" else ""
        reason = f"a content filter of the server withheld the answer{detail}"
        raise RefusedError(FailureKind.REQUEST, reason, usage, lasting=True)
    truncated = bool(TRUNCATED.search(finish))
    if not text.strip():
        raise _no_text(choice, message, usage, truncated=truncated)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise bad_answer(f"an incomplete character in {text[:80]!r}", usage) from error
    return Completion(text, truncated, usage)


def _no_text(choice: Mapping[str, Any], message: Mapping[str, Any], usage: Usage, *, truncated: bool) -> RefusedError:
    """The error for an answer without text: a refusal, tokens spent on reasoning, or nothing at all."""
    declined = message.get("refusal") or _text(message.get("content"), ("refusal",))
    if declined:
        reason = f"the model refused to answer: {str(declined)[:200]}"
        return RefusedError(FailureKind.REQUEST, reason, usage, lasting=True)
    reasoned = any(value and THOUGHT.search(name) for name, value in message.items())
    if not truncated and not reasoned:
        return bad_answer(f"an answer without text: {str(message or choice)[:SHOWN]!r}", usage)
    count = "" if usage.completion_tokens is None else f"{usage.completion_tokens} "
    spent = f"all {count}tokens of the answer" if truncated else "its answer"
    purpose = "on thinking" if reasoned else "(perhaps on thinking)"
    fix = "switch thinking off on the server, or allow more tokens"
    return bad_answer(f"the model spent {spent} {purpose} and wrote no text; {fix}", usage, lasting=True)


def read_completions(body: Any, count: int) -> list[Completion | None]:
    """The completions in a response to a request for several; `None` for each that is missing or incomplete.

    The response's usage is divided among them. Raises `RefusedError` if all are missing or incomplete.
    """
    choices = choices_by_index(body)
    completions = [_try_read(choices.get(n)) for n in range(count)]
    if not any(completions):
        read_completion(body)  # raises the specific error
        raise bad_answer(f"no answer in {str(body)[:80]!r}")
    usage = read_usage(body.get("usage"), wrote=True)
    shares = iter(_divide(usage, sum(completion is not None for completion in completions)))
    return [replace(completion, usage=next(shares)) if completion else None for completion in completions]


def _try_read(choice: Mapping[str, Any] | None) -> Completion | None:
    try:
        return read_completion({"choices": [choice]}) if choice else None
    except RefusedError:
        return None


def _divide(usage: Usage, parts: int) -> list[Usage]:
    """A request's usage, divided: the first part gets the prompt, and each an equal share of the completion tokens."""
    total = usage.completion_tokens
    shares = [None if total is None else total // parts + (n < total % parts) for n in range(parts)]
    return [replace(usage, completion_tokens=shares[0]), *(Usage(0, 0, share) for share in shares[1:])]


def _first_choice(body: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice and its message."""
    choices = objects_in(body.get("choices") if isinstance(body, dict) else None)
    choice = next((choice for choice in choices if choice.get("index") == 0), choices[0] if choices else {})
    message = choice.get("message") or {}
    if choice and isinstance(message, dict):
        return choice, message
    succeeded = isinstance(body, dict) and str(body.get("code")) in ("0", "200")  # an answer of another format
    if isinstance(body, dict | list) and error_message(body) and not succeeded:
        raise refusal(200, body, "")
    raise bad_answer(f"no answer in {str(body)[:SHOWN]!r}")


def _text(content: Any, kinds: Sequence[str] = ("text", "output_text"), depth: int = DEPTH) -> str:
    """The text of a message's content: a string, or its parts of the given kinds, which leaves out reasoning.

    A part without a kind is text.
    """
    if isinstance(content, str):
        return content if "text" in kinds else ""
    if isinstance(content, list) and depth:
        return "".join(_text(part, kinds, depth - 1) for part in content)
    if isinstance(content, dict) and depth and content.get("type", "text") in kinds and not content.get("thought"):
        inner = next((content[name] for name in ("text", "value", "refusal") if content.get(name)), "")
        return inner if isinstance(inner, str) else _text(inner, kinds, depth - 1)
    return ""


def read_usage(reported: Any, *, wrote: bool) -> Usage:
    """The usage that a server reports, `wrote` if for a text. Missing and invalid counts are unknown: `None`."""
    counts: Mapping[str, Any] = reported if isinstance(reported, dict) else {}
    details = counts.get("prompt_tokens_details")
    prompt, completion = as_count(counts.get("prompt_tokens")), as_count(counts.get("completion_tokens"))
    cached = as_count(details.get("cached_tokens")) if isinstance(details, dict) else None
    # Servers that do not count report zeros, but no prompt and no text has zero tokens.
    if wrote and not completion:
        completion = None
    return Usage(1, prompt or None, completion, min(cached or 0, prompt or 0))


def check_whole_prompt(chat: Chat, usage: Usage) -> None:
    """Raise `RefusedError` if the server counted far fewer prompt tokens than the chat must have."""
    minimum = sum(_minimum_tokens(message["content"]) for message in chat)
    if minimum > CHECKED_PROMPT and usage.prompt_tokens and usage.prompt_tokens < minimum and not usage.cached_tokens:
        message = (
            f"the server read only {usage.prompt_tokens:,} tokens of a prompt of at least {minimum:,}: "
            "it truncates prompts that do not fit its context. "
            "Increase its context (Ollama: OLLAMA_CONTEXT_LENGTH), or give its size with --context-length"
        )
        raise RefusedError(FailureKind.CONTEXT, message, usage, lasting=True)


def _minimum_tokens(text: str) -> int:
    """A lower bound for any tokenizer: one token per six characters, with white space or a rule as one character."""
    return len(_RULE.sub(r"\1\2", " ".join(text.split()))) // 6


def as_count(value: Any) -> int | None:
    """A count of tokens; `None` for anything else, such as NaN, a negative number or a string."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS and value == int(value) else None


def as_object(value: Any) -> dict[str, Any]:
    """A decoded JSON object. Raises `RefusedError` for anything else."""
    if not isinstance(value, dict):
        raise bad_answer(f"expected an object, got {str(value)[:80]!r}")
    return value


def choices_by_index(body: Any) -> dict[int, dict[str, Any]]:
    """The choices in a response by `index`, or by position if a server does not number them."""
    choices = objects_in(body.get("choices") if isinstance(body, dict) else None)
    indices = [index for choice in choices if isinstance(index := choice.get("index"), int)]
    if len(indices) < len(choices):
        return dict(enumerate(choices))
    return dict(zip(indices, choices, strict=True))


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a decoded JSON list; an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def join_stream(text: str) -> Any:
    """The body that a streamed answer would be without streaming; `None` if the text is not a stream.

    Some servers and gateways can only stream.
    """
    text = text.lstrip("\ufeff").lstrip()
    if not text.startswith(STREAM_FIELDS):
        return None
    events: list[dict[str, Any]] = []
    for line in text.split("\n"):  # not splitlines(), since a text may hold other line breaks
        if not line.startswith(STREAM_FIELDS[1:]):
            with suppress(ValueError, RecursionError):
                event = json.loads(line.removeprefix("data:"), strict=False)
                events += [event] if isinstance(event, dict) else []
    error = next((event for event in events if event.get("error")), None)
    if error or not any(objects_in(event.get("choices")) for event in events):
        return error or next(reversed(events), None)  # an error may be only a message
    merged = _merged(events, done="[DONE]" in text)
    if any(choice["message"].get("content") for choice in merged["choices"]):
        return merged
    whole = [event for event in events if any(choice.get("message") for choice in objects_in(event.get("choices")))]
    return whole[-1] if whole else merged


def _merged(events: Sequence[Mapping[str, Any]], *, done: bool) -> dict[str, Any]:
    """The choices, each with the pieces of its message in order, and the last usage."""
    unfinished = "stop" if done else "the stream was aborted"
    merged: dict[object, dict[str, Any]] = {}
    for choice in [choice for event in events for choice in objects_in(event.get("choices"))]:
        index = choice.get("index", 0)
        whole = merged.setdefault(index, {"index": index, "message": {}, "finish_reason": unfinished})
        whole |= {name: choice[name] for name in ("finish_reason", "error") if choice.get(name)}
        delta = choice.get("delta")
        for name, piece in delta.items() if isinstance(delta, dict) else ():
            whole["message"].setdefault(name, []).append(piece)
    for whole in merged.values():
        whole["message"] = {name: _together(pieces) for name, pieces in whole["message"].items()}
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    return {"choices": [*merged.values()], "usage": usage}


def _together(pieces: Sequence[Any]) -> Any:
    """The pieces of a text as one text; other pieces, such as parts of a content, as a list."""
    texts = [piece for piece in pieces if piece]
    return "".join(texts) if all(isinstance(piece, str) for piece in texts) else texts
