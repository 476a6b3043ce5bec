"""What a server answered, checked before anything is kept: text, reason of the end, and usage."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from promptmii.models.base import Chat, Completion, Failure, FailureKind, Usage
from promptmii.models.http.refusals import DEPTH, SHOWN, RefusedError, refusal, words_of
from promptmii.models.http.tokens import fewest

MOST_TOKENS = 10**9
"""No answer takes more: a larger count is a mistake of the server."""
# Each server has its own names for the reason of an end, OpenAI's "length", "content_filter" and "stop" among them.
CUT = re.compile(r"length|max\w*tokens|token_limit|context_window|incomplete", re.IGNORECASE)
WITHHELD = re.compile(
    r"filter|safety|recitation|sensitive|blocklist|prohibited|spii|refus|moderation|flagged", re.IGNORECASE
)
BROKEN = re.compile(r"error|abort|network|insufficient|malformed|cancel|fail|timeout", re.IGNORECASE)
THOUGHT = re.compile(r"reason|think|thought")
"""In the name of a field that holds what a model thought."""
NOTICED_CUT = 1000
"""Tokens from which a prompt is long enough to tell a cut one by its count."""


def read_completion(body: Any) -> Completion:
    """The completion in a decoded response. Raises `RefusedError` for everything that is no whole answer."""
    choice, message = _choice(body)
    text = _text(message.get("content"))
    usage = read_usage(body.get("usage"), text)
    end = str(choice.get("finish_reason"))
    refused = message.get("refusal") or _text(message.get("content"), ("refusal",))
    if choice.get("error") or BROKEN.search(end):
        # Others may well be answered, so this is no outage to be waited for.
        words = words_of(choice) or ("no reason given" if end == "error" else end)
        raise _refused(FailureKind.BAD_ANSWER, f"the server broke off with an error: {words}", usage)
    if WITHHELD.search(end):
        words = f"a content filter of the server withheld the answer{f' ({end})' if end != 'content_filter' else ''}"
        raise _refused(FailureKind.REQUEST, words, usage, lasting=True)
    cut = bool(CUT.search(end))
    if text.strip():
        return Completion(_encodable(text, usage), cut, usage)
    if refused:
        raise _refused(FailureKind.REQUEST, f"the model refused to answer: {str(refused)[:200]}", usage, lasting=True)
    thought = any(value and THOUGHT.search(name) for name, value in message.items())
    if cut or thought:
        written = "" if usage.completion_tokens is None else f"{usage.completion_tokens} "
        spent = f"all {written}tokens of the answer" if cut else "its answer"
        why = "on thinking" if thought else "(perhaps on thinking)"
        cure = "switch thinking off on the server, or allow more tokens"
        words = f"the model spent {spent} {why} and wrote no text; {cure}"
        raise _refused(FailureKind.BAD_ANSWER, words, usage, lasting=True)
    raise _refused(FailureKind.BAD_ANSWER, f"an answer without text: {str(message)[:SHOWN]!r}", usage)


def read_completions(body: Any, count: int) -> list[Completion | None]:
    """The completions in a response to a request for several, `None` for one that is missing or is no whole answer.

    They share its usage. Raises `RefusedError` where there is not one.
    """
    listed = body.get("choices") if isinstance(body, dict) else None
    choices = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    by_index = {one.get("index", place): one for place, one in enumerate(choices)}
    found = [_whole(by_index.get(n)) for n in range(count)]
    if not any(found):
        read_completion(body)  # says why
        raise _refused(FailureKind.BAD_ANSWER, f"no answer in {str(body)[:80]!r}")
    usage = read_usage(body.get("usage"), "text")
    shares = iter(_shares(usage, sum(one is not None for one in found)))
    return [one and replace(one, usage=next(shares)) for one in found]


def _whole(choice: Mapping[str, Any] | None) -> Completion | None:
    try:
        return read_completion({"choices": [choice]}) if choice else None
    except RefusedError:
        return None


def _shares(usage: Usage, parts: int) -> list[Usage]:
    """A request's usage in parts: the first has the prompt, and each its part of the tokens written."""
    written = usage.completion_tokens
    rest = [None if written is None else written // parts + (n < written % parts) for n in range(parts)]
    return [replace(usage, completion_tokens=rest[0]), *(Usage(0, 0, tokens) for tokens in rest[1:])]


def _choice(body: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice and its message."""
    try:
        choices = cast("Sequence[Mapping[str, Any]]", body["choices"])
        choice = next((choice for choice in choices if choice.get("index") == 0), choices[0])
        message = choice.get("message") or {}
        message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        if isinstance(body, dict) and words_of(body):
            raise refusal(200, body, "", answered=True) from error
        raise _refused(FailureKind.BAD_ANSWER, f"no answer in {str(body)[:SHOWN]!r}") from error
    return choice, message


def _text(content: Any, kinds: Sequence[str] = ("text", "output_text"), depth: int = DEPTH) -> str:
    """The text of a content, which some servers give in parts; of these only some kinds, so that thoughts are left out.

    A part that does not say its kind is text.
    """
    if isinstance(content, str):
        return content if "text" in kinds else ""
    if isinstance(content, list) and depth:
        return "".join(_text(part, kinds, depth - 1) for part in content)
    if isinstance(content, dict) and depth and content.get("type", "text") in kinds:
        inner = next((content[name] for name in ("text", "value", "refusal") if content.get(name)), "")
        return inner if isinstance(inner, str) else _text(inner, kinds, depth - 1)
    return ""


def _encodable(text: str, usage: Usage) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(FailureKind.BAD_ANSWER, f"half a character in {text[:80]!r}", usage) from error
    return text


def read_usage(given: Any, text: str) -> Usage:
    """The usage that a server reports. What it does not report, or not as a count, is unknown."""
    said: Mapping[str, Any] = given if isinstance(given, dict) else {}
    details = said.get("prompt_tokens_details")
    prompt, written = as_count(said.get("prompt_tokens")), as_count(said.get("completion_tokens"))
    cached = as_count(details.get("cached_tokens")) if isinstance(details, dict) else None
    # Servers that count nothing report zeros; no prompt has no tokens, nor has any text.
    return Usage(1, prompt or None, None if text and not written else written, min(cached or 0, prompt or 0))


def as_count(value: Any) -> int | None:
    """A count of tokens; `None` for anything else, such as NaN, a negative number or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS and value == int(value) else None


def refuse_cut_prompt(chat: Chat, usage: Usage) -> None:
    """Raise `RefusedError` where the server counted far fewer prompt tokens than the chat must have."""
    least = sum(fewest(message["content"]) for message in chat)
    if least > NOTICED_CUT and usage.prompt_tokens and usage.prompt_tokens < least and not usage.cached_tokens:
        message = (
            f"the server read only {usage.prompt_tokens:,} tokens of a prompt of at least {least:,}: "
            "it cuts what does not fit its context. "
            "Enlarge it there (Ollama: OLLAMA_CONTEXT_LENGTH), or name it with --context-length"
        )
        raise _refused(FailureKind.CONTEXT, message, usage, lasting=True)


def _refused(kind: FailureKind, message: str, usage: Usage = Usage(), *, lasting: bool = False) -> RefusedError:
    return RefusedError(Failure(kind, message, usage), lasting=lasting)
