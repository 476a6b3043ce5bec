"""What a refusal means: a fault that passes, the failure of one call, or the end of every call."""

import email.utils
import html
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptmii.errors import EndpointError
from promptmii.models.base import Failure, FailureKind

SHOWN = 300
"""Characters of a server's words that are shown."""
LONGEST_WAIT = 120.0
"""Seconds: a server that asks for more is asked again all the same."""
TOO_LONG = re.compile(r"context (length|size|window)|too long|maximum context|too many tokens", re.IGNORECASE)
FLAGGED = re.compile(r"content[ _](filter|management|policy)|moderation|flagged|safety|responsibleai", re.IGNORECASE)
NO_MONEY = re.compile(r"insufficient[ _](quota|credit|balance|fund)|(credit|account) balance", re.IGNORECASE)

COMPLAINT = re.compile(
    r"support|unknown|unrecogni|unexpected|permitted|allowed|invalid|cannot|extra|deprecated|only", re.IGNORECASE
)
"""Words of a refusal that is about a parameter, rather than about a text that happens to hold its name."""


class RefusedError(Exception):
    """A call that gave no answer, on its way up.

    `wait` is the pause in seconds that the server asks for; `lasting` means that asking again would end alike; `body`
    is all that the server said.
    """

    def __init__(
        self, failure: Failure, wait: float | None = None, *, lasting: bool = False, body: object = None
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.wait = wait
        self.lasting = lasting
        self.body = body


def refusal(status: int, body: Any, raw: str, wait: float | None = None) -> RefusedError | EndpointError:
    """What a status, or an error under HTTP 200, means. `EndpointError` is for what no other call could survive."""
    status = _own_status(body) or 500 if status == 200 else status
    said = words_of(body) or readable(raw)
    message = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    everything = json.dumps(body) if body is not None else raw
    if NO_MONEY.search(everything) or status == 402:
        return EndpointError(f"The account has no money or quota left: {message}", FailureKind.AUTH, lasting=True)
    if FLAGGED.search(everything) and status not in (401, 429) and status < 500:
        return RefusedError(Failure(FailureKind.REQUEST, message), lasting=True)
    if status in (401, 403):
        # 403 is said of keys, and by firewalls that dislike a text.
        or_else = ", or ask who runs the server whether a firewall stands before it" if status == 403 else ""
        cure = f"Set OPENAI_API_KEY to a valid one{or_else}."
        return EndpointError(f"The server refuses the key ({message}). {cure}", FailureKind.AUTH, lasting=True)
    if status in (400, 413, 422) and TOO_LONG.search(said):
        return RefusedError(Failure(FailureKind.CONTEXT, message))
    if status == 429:
        return RefusedError(Failure(FailureKind.RATE_LIMIT, message), wait)
    if status >= 500 or status == 408:
        return RefusedError(Failure(FailureKind.SERVER, message), wait)
    return RefusedError(Failure(FailureKind.REQUEST, message), body=body if body is not None else raw)


def _own_status(body: Any) -> int | None:
    """The status that an error under HTTP 200 carries as its code."""
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None


def words_of(body: Any) -> str:
    """The message in an error body of any shape: `error.message`, FastAPI's `detail`, a list of either, or a text."""
    return readable("; ".join(dict.fromkeys(_messages(body))))


def _messages(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _messages(one)
    elif isinstance(value, dict):
        inner = next((value[name] for name in ("error", "detail", "message", "msg") if value.get(name)), None)
        place = value.get("loc")
        where = f"{'.'.join(map(str, place))}: " if isinstance(place, list) else ""
        yield from (where + message for message in _messages(inner))


def readable(text: str) -> str:
    """One line without markup and control characters, of at most `SHOWN` characters."""
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", " ", title[1] if title else text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def refused_parameter(body: Any, sent: Mapping[str, object], droppable: Sequence[str]) -> str | None:
    """The parameter that a refusal complains about, in whatever shape; `None` where it names none of them."""
    error = body.get("error") if isinstance(body, dict) else None
    pointed = error.get("param") if isinstance(error, dict) else None
    if pointed in droppable and pointed in sent:
        return str(pointed)
    text = body if isinstance(body, str) else "; ".join(_messages(body))
    named = (name for name in droppable if name in sent and re.search(rf"(?<!\w){name}(?!\w)", text))
    return next(named, None) if COMPLAINT.search(text) else None


def retry_after(given: str) -> float | None:
    """The pause in seconds that a `Retry-After` header asks for; `None` where it says nothing that means something."""
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None
