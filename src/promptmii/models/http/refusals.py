"""What a refusal means: a fault that passes, the failure of one call, or the end of every call."""

import email.utils
import html
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptmii.errors import EndpointError
from promptmii.models.base import Failure, FailureKind

SHOWN = 300
"""Characters of a server's words that are shown."""
DEPTH = 9
"""Levels of an error or a content that are read; a deeper one is no server's way to say anything."""
LONGEST_WAIT = 120.0
"""Seconds: a server that asks for more is asked again all the same."""
TOO_LONG = re.compile(
    r"context ?(length|size|window)|too (long|many tokens)|maximum (context|model length|number of tokens)|"
    r"max_new_tokens. must be|must have less than \d+ tokens",
    re.IGNORECASE,
)
FLAGGED = re.compile(
    r"content[ _]?(filter|management|policy)|moderation|flagged|safety|responsibleai|prohibited_content", re.IGNORECASE
)
NO_MONEY = re.compile(
    r"insufficient[ _](\w+ )?(quota|credit|balance|fund)|(credit|account) balance|exceeded_current_quota|"
    r"billing[ _](hard[ _]limit|not[ _]active)|account (is not active|.{0,40}suspended)|arrearage|余额不足|欠费|"
    r"(spending|usage|key) limit|budget[ _](has been )?exceeded",
    re.IGNORECASE,
)
BAD_KEY = re.compile(
    r"(invalid|incorrect|wrong)[ _]api[ _]?key|api[ _]?key (is )?(not valid|invalid|incorrect|expired)|"
    r"authentication ?error",
    re.IGNORECASE,
)
"""Said of keys under another status than 401, as by Gemini (400) and LiteLLM (500)."""
NO_PLACE = re.compile(r"unexpected endpoint|invalid url|no such endpoint|unknown (endpoint|path|route)", re.IGNORECASE)
"""Said of an address under HTTP 200, as by LM Studio."""

WORDS = (
    "error",
    "errors",
    "detail",
    "message",
    "msg",
    "raw",
    "base_resp",
    "status_msg",
    "promptFeedback",
    "blockReason",
)
"""Fields that hold the message of an error, or what holds it."""
COMPLAINT = re.compile(
    r"support|unknown|unrecogni|unexpected|permitted|allowed|valid|cannot|extra|deprecated|only|must|should|range|"
    r"illegal|too large|非法|不支持|无效",
    re.IGNORECASE,
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


def refusal(
    status: int, body: Any, raw: str, wait: float | None = None, *, answered: bool = False
) -> RefusedError | EndpointError:
    """What a status, or an error under HTTP 200, means. `EndpointError` is for what no other call could survive.

    `answered`: the server has completed a chat, so it takes the key, and a 403 is about one text.
    """
    said = words_of(body) or readable(raw)
    status = status_of(status, body, said)
    message = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    everything = "; ".join([*_messages(body), *_codes(body)]) or raw
    if NO_MONEY.search(everything) or status == 402:
        return EndpointError(f"The account has no money or quota left: {message}", FailureKind.AUTH, lasting=True)
    if FLAGGED.search(everything) and status not in (401, 429) and status < 500:
        return RefusedError(Failure(FailureKind.REQUEST, message), lasting=True)
    about_the_key = status == 403 or (status != 429 and BAD_KEY.search(everything))
    if status == 401 or (about_the_key and not answered):
        # 403 is said of keys, and by firewalls that dislike a text.
        or_else = ", or ask who runs the server whether a firewall stands before it" if status == 403 else ""
        cure = f"Set OPENAI_API_KEY to a valid one{or_else}."
        return EndpointError(f"The server refuses the key ({message}). {cure}", FailureKind.AUTH, lasting=True)
    if status in (400, 413, 422, 500) and TOO_LONG.search(said):
        return RefusedError(Failure(FailureKind.CONTEXT, message), lasting=True)
    if status == 429:
        return RefusedError(Failure(FailureKind.RATE_LIMIT, message), wait)
    if status >= 500 or status == 408:
        return RefusedError(Failure(FailureKind.SERVER, message), wait)
    return RefusedError(Failure(FailureKind.REQUEST, message), body=body if body is not None else raw)


def status_of(status: int, body: Any, said: str) -> int:
    """The status; under HTTP 200 that which the error carries as its code."""
    if status != 200:
        return status
    codes = (int(code) for code in _codes(body) if re.fullmatch("[45][0-9][0-9]", code))
    return next(codes, 404 if NO_PLACE.search(said) else 400 if FLAGGED.search(said) else 500)


def _codes(body: Any) -> Iterable[str]:
    """What an error says of its kind for programs."""
    for one in (body.get("error"), body) if isinstance(body, dict) else body if isinstance(body, list) else ():
        if isinstance(one, dict):
            yield from (str(one[name]) for name in ("code", "type", "status") if one.get(name))


def words_of(body: Any) -> str:
    """The message in an error body of any shape: `error.message`, FastAPI's `detail`, a list of either, or a text."""
    return readable("; ".join(dict.fromkeys(_messages(body))))


def _messages(value: Any, depth: int = DEPTH) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for one in value:
            yield from _messages(one, depth - 1)
    elif isinstance(value, dict) and depth:
        inner = next((value[name] for name in WORDS if value.get(name)), None)
        place = value.get("loc")
        where = f"{'.'.join(map(str, place))}: " if isinstance(place, list) else ""
        yield from (where + message for message in _messages(inner, depth - 1))
        yield from _messages(value.get("metadata"), depth - 1)  # what a provider said to OpenRouter


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
