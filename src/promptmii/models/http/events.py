"""Joins the events of a streamed answer, since some servers and gateways can only stream."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

_FIELDS = ("data:", "event:", "id:", "retry:", ":")
"""What the lines of a stream start with; a colon alone starts a comment, such as a sign of life."""


def joined(text: str) -> Any:
    """The body that the stream would be without streaming; `None` if the text is not a stream."""
    text = text.lstrip("\ufeff").lstrip()
    if not text.startswith(_FIELDS):
        return None
    events: list[dict[str, Any]] = []
    for line in text.split("\n"):  # not splitlines(), since a text may hold other line breaks
        if not line.startswith(_FIELDS[1:]):
            with suppress(ValueError, RecursionError):
                event = json.loads(line.removeprefix("data:"), strict=False)
                events += [event] if isinstance(event, dict) else []
    error = next((event for event in events if event.get("error")), None)
    if error or not any(map(_choices, events)):
        return error or next(reversed(events), None)  # an error may be only a message
    merged = _merged(events, done="[DONE]" in text)
    if any(choice["message"].get("content") for choice in merged["choices"]):
        return merged
    return next((event for event in reversed(events) if _is_whole(event)), merged)


def _is_whole(event: Mapping[str, Any]) -> bool:
    return any(choice.get("message") for choice in _choices(event))


def _choices(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _merged(events: Sequence[Mapping[str, Any]], *, done: bool) -> dict[str, Any]:
    """The choices, each with the pieces of its message in order, and the last usage."""
    unfinished = "stop" if done else "the stream was aborted"
    merged: dict[object, dict[str, Any]] = {}
    for choice in [choice for event in events for choice in _choices(event)]:
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
