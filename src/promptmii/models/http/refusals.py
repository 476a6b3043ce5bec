"""Classifies error responses: a temporary fault, the failure of one call, or a fault that every call would meet."""

import email.utils
import html
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptmii.errors import EndpointError
from promptmii.models.base import Failure, FailureKind, Usage

SHOWN = 300
"""Maximum length of a quoted server message, in characters."""
DEPTH = 9
"""Maximum nesting to follow in an error or a content; no real server nests deeper."""
TOO_LONG = re.compile(
    r"context[ _]?(length|limit|size|window)|too long|too many tokens(?!, please wait)|tokens?[ _]limit|"
    r"maximum (context|model length|number of tokens|(prompt|input|allowed) length)|range of input length|"
    r"tokens exceed|reduce the length|too large (to process|for .*model)|max_new_tokens. must be|"
    r"must have less than \d+ tokens",
    re.IGNORECASE,
)
ABOVE_LIMIT = re.compile(r"request too large for", re.IGNORECASE)
"""A request of more tokens than a minute allows, which OpenAI reports with status 429: it never fits."""
FLAGGED = re.compile(
    r"content[ _]?(filter|management|policy)|moderation|flagged|safety|responsibleai|prohibited_content", re.IGNORECASE
)
NO_MONEY = re.compile(
    r"insufficient[ _](\w+[ _])?(quota|credit|balance|fund)|insufficient tokens in .{0,20}(account|balance|wallet)|"
    r"(credit|account) balance|exceeded_current_quota|billing[ _](hard[ _]limit|not[ _]active)|"
    r"account (is not active|.{0,40}suspended)|arrearage|余额不足|额度(不足|已用尽)|欠费|"
    r"(spending|usage|key|credit|monthly)[ _]limit|balance .{0,20}deplet|"
    r"budget[ _](has been )?exceeded|overdue[ _]?(balance|payment|error)|"
    r"(any|out of|included) credits\b|free-models-per-day|free[ _]?tier[ _]?only|free tier .{0,40}exhausted|"
    r"calls ?/ ?month|\blimit: 0, model|"
    r"(exceeded|exhausted|reached|used up)\b[^.]{0,20} (daily|monthly) (free )?(request )?(quota|allocation)|"
    r"(daily|monthly)[ _](free[ _])?(request[ _])?(quota|allocation)( is| was| has been)? "
    r"(exceeded|exhausted|reached|used up)",
    re.IGNORECASE,
)
USED_UP = re.compile(r'"quotaId":\s*"\w*PerDay')
"""In an error of Gemini, whose message is the same for the quota of a minute."""
BAD_KEY = re.compile(
    r"(invalid|incorrect|wrong)[ _]api[ _]?key|api[ _]?key (is )?(not valid|invalid|incorrect|expired)|"
    r"authentication ?error|authorization header|token seems invalid",
    re.IGNORECASE,
)
"""For servers that report a bad key with a status other than 401, such as Gemini (400) and LiteLLM (500)."""
RESTRICTED = re.compile(r"missing scope|insufficient permission", re.IGNORECASE)
"""For valid keys that may not do everything, such as list the models."""
BUSY = (408, 409, 425, 498, 499)
"""Statuses under 500 for a busy server. At Groq, 498 is a lack of capacity, and 499 a request that it cancelled."""
INVALID = re.compile(r"\binvalid\b", re.IGNORECASE)
"""For servers that report a bad request with one of these statuses."""
BAD_REQUEST = re.compile(r"unsupported_?param|unexpected keyword|bad_?request_?error", re.IGNORECASE)
"""For servers that report a refused parameter with status 500, such as LiteLLM."""
WRONG_PATH = re.compile(
    r"unexpected endpoint|invalid url|no such endpoint|unknown (endpoint|path|route)", re.IGNORECASE
)
"""For servers that report a wrong address under HTTP 200, such as LM Studio."""
OUTER_FIELDS = ("error", "errors", "detail", "base_resp", "promptFeedback")
MESSAGE_FIELDS = (*OUTER_FIELDS, "message", "msg", "raw", "status_msg", "blockReason", "error_description")
"""Fields that contain an error message, directly or nested. A text in the first may only name the kind of error."""


class RefusedError(Exception):
    """A request failed; `failure` is the result of the call unless a retry succeeds."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        usage: Usage = Usage(),
        *,
        wait: float | None = None,
        lasting: bool = False,
        body: object = None,
    ) -> None:
        """`wait`: the pause that the server requests. `lasting`: a retry would fail too. `body`: the response."""
        super().__init__(message)
        self.failure = Failure(kind, message, usage)
        self.wait = wait
        self.lasting = lasting
        self.body = body


class DoubtfulError(EndpointError):
    """Every call would fail, unless the server, or a firewall before it, objects to this text alone."""

    def __init__(self, message: str, kind: FailureKind | None, otherwise: RefusedError) -> None:
        """`otherwise`: the error if the text is the reason, because the server answers other texts."""
        super().__init__(message, kind, lasting=True)
        self.otherwise = otherwise


def bad_answer(message: str, usage: Usage = Usage(), *, lasting: bool = False) -> RefusedError:
    """The error for a response that lacks what was requested."""
    return RefusedError(FailureKind.BAD_ANSWER, message, usage, lasting=lasting)


def refusal(status: int, body: Any, raw: str, wait: float | None = None) -> RefusedError | EndpointError:
    """The error for an error status, or for an error body under HTTP 200; `EndpointError` if every call would fail."""
    detail = error_message(body) or plain_line(raw)
    status = effective_status(status, body, detail)
    message = f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
    full_text = "; ".join([*_messages(body), *_error_codes(body)]) or raw
    if NO_MONEY.search(full_text) or USED_UP.search(raw) or status == 402:
        return EndpointError(f"The account has no money or quota left: {message}", FailureKind.AUTH, lasting=True)
    if FLAGGED.search(full_text) and status not in (401, 429) and status < 500:
        return RefusedError(FailureKind.REQUEST, message, lasting=True)
    if ABOVE_LIMIT.search(full_text) or (status in (400, 409, 413, 422, 500) and TOO_LONG.search(full_text)):
        error = RefusedError(FailureKind.CONTEXT, message, lasting=True)
    elif status == 429:
        error = RefusedError(FailureKind.RATE_LIMIT, message, wait=wait)
    elif _is_busy(status, full_text):
        error = RefusedError(FailureKind.SERVER, message, wait=wait)
    else:
        error = RefusedError(FailureKind.REQUEST, message, body=body if body is not None else raw)
    if status not in (401, 403) and (status == 429 or not BAD_KEY.search(full_text)):
        return error
    # A 403 may also come from a firewall that objects to a text, or concern the model list alone.
    firewall = ", or ask the operator of the server whether a firewall blocks the request" if status == 403 else ""
    message = f"The server refuses the key ({message}). Set OPENAI_API_KEY to a valid one{firewall}."
    if status == 401 and not RESTRICTED.search(full_text):
        return EndpointError(message, FailureKind.AUTH, lasting=True)
    return DoubtfulError(message, FailureKind.AUTH, error)


def effective_status(status: int, body: Any, message: str) -> int:
    """The status, or the error code in the body if the status is 200."""
    if status != 200:
        return status
    codes = (int(code) for code in _error_codes(body) if re.fullmatch("[45][0-9][0-9]", code))
    code = next(codes, None)
    if code is not None:
        return code
    if WRONG_PATH.search(message):
        return 404
    return 400 if FLAGGED.search(message) else 500


def _error_codes(body: Any) -> Iterable[str]:
    """The machine-readable codes in an error body."""
    for item in body if isinstance(body, list) else [body]:
        for part in (item.get("error"), item) if isinstance(item, dict) else ():
            if isinstance(part, dict):
                yield from (str(part[name]) for name in ("code", "type", "status") if part.get(name))


def error_message(body: Any) -> str:
    """The message in an error body of any shape: `error.message`, FastAPI's `detail`, a list of either, or a string."""
    return plain_line("; ".join(dict.fromkeys(_messages(body))))


def _messages(value: Any, depth: int = DEPTH) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _messages(item, depth - 1)
    elif isinstance(value, dict) and depth:
        inner = [value[name] for name in MESSAGE_FIELDS if value.get(name)]
        inner = inner[: 2 if inner and isinstance(inner[0], str) else 1]
        location = value.get("loc")
        prefix = f"{'.'.join(map(str, location))}: " if isinstance(location, list) else ""
        yield from (prefix + message for part in inner for message in _messages(part, depth - 1))
        yield from _messages(value.get("metadata"), depth - 1)  # OpenRouter: the provider's own message


def plain_line(text: str) -> str:
    """The text on one line, without markup and control characters, truncated to `SHOWN` characters."""
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", " ", title[1] if title else text))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _is_busy(status: int, text: str) -> bool:
    """Whether the server may answer the same request later."""
    if status in BUSY:
        return not INVALID.search(text)
    return status >= 500 and status != 501 and not BAD_REQUEST.search(text)


def refused_parameter(body: Any, sent: Mapping[str, object], droppable: Sequence[str]) -> str | None:
    """The droppable parameter that an error mentions, or `None`.

    It may be a word of a quoted text, but then the request fails without the parameter too, and it is sent again.
    """
    error = body.get("error") if isinstance(body, dict) else None
    param = error.get("param") if isinstance(error, dict) else None
    if param in droppable and param in sent:
        return str(param)
    texts = [body] if isinstance(body, str) else ["; ".join(_messages(body)), json.dumps(body)]
    return next((name for text in texts for name in droppable if name in sent and _spelling(name).search(text)), None)


def _spelling(name: str) -> re.Pattern[str]:
    """Matches the name of a parameter, also in camel case, as words, or next to Chinese."""
    return re.compile(rf"(?<!\w){name.replace('_', '[_ -]?')}(?!\w)", re.IGNORECASE | re.ASCII)


def retry_after(header: str) -> float | None:
    """The pause in seconds that a `Retry-After` header requests; `None` if it is malformed."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
