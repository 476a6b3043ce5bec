"""What an HTTP response means: an answer, a fault of one call, or the end of every call."""

import email.utils
import math
import time
from typing import Any

import httpx
import openai

from promptmii.errors import EndpointError
from promptmii.models.base import Completion, Failure, FailureKind, Usage

TOO_LONG = ("context length", "context size", "too long", "maximum context")


class RefusedError(Exception):
    """A call that gave no answer, on its way up.

    `wait` is the pause in seconds that the server asks for; `lasting` says that asking again would end alike.
    """

    def __init__(self, failure: Failure, wait: float | None = None, *, lasting: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.wait = wait
        self.lasting = lasting


def refused_key(name: str) -> EndpointError:
    """The key is wrong, or missing."""
    return EndpointError(f"The server behind openai:{name} refuses the key. Set OPENAI_API_KEY to a valid one.")


def refusal(error: openai.APIStatusError, name: str) -> RefusedError | EndpointError:
    """What an HTTP status means. A refused key or an unknown model can work for no call, so these are errors."""
    status, message = error.status_code, str(error.message)[:300]
    if status in (401, 403):
        return refused_key(name)
    if 300 <= status < 400:
        return EndpointError(
            f"The server behind openai:{name} redirects to {error.response.headers.get('location', 'nowhere')}. "
            "Redirects are not followed; if you trust that address, give it with --base-url."
        )
    if status == 404:
        return EndpointError(f"The server does not know the model {name!r}: {message}")
    if status == 400 and any(words in message.casefold() for words in TOO_LONG):
        return RefusedError(Failure(FailureKind.CONTEXT, message))
    if status == 429:
        return RefusedError(Failure(FailureKind.RATE_LIMIT, message), _retry_after(error.response))
    if status >= 500 or status == 408:
        return RefusedError(Failure(FailureKind.SERVER, f"HTTP {status}: {message}"), _retry_after(error.response))
    return RefusedError(Failure(FailureKind.REQUEST, f"HTTP {status}: {message}"))


def _retry_after(response: Any) -> float | None:
    """The pause in seconds that an answer asks for; `None` where it asks for none, or in no form that means something."""
    given = response.headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), 120.0) if math.isfinite(seconds) else None


def read_completion(response: httpx.Response) -> Completion:
    """The completion in a response. Raises `RefusedError` on half a JSON, an error body under HTTP 200, or no text."""
    try:
        body: Any = response.json()
    except ValueError as error:
        raise RefusedError(Failure(FailureKind.BAD_ANSWER, f"not JSON: {response.text[:80]!r}")) from error
    if not isinstance(body, dict) or body.get("error"):
        raise RefusedError(Failure(FailureKind.SERVER, f"an error under HTTP 200: {str(body)[:200]}"))
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text, thought = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
        truncated = choice.get("finish_reason") == "length"
        usage = body.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        cost = Usage(
            1, usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, details.get("cached_tokens") or 0
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RefusedError(Failure(FailureKind.BAD_ANSWER, f"no answer in {str(body)[:80]!r}")) from error
    if not text and thought:
        spent = f"all {cost.completion_tokens} tokens of the answer" if truncated else "its answer"
        reason = f"the model spent {spent} on thinking and wrote no text; switch thinking off on the server, or allow more tokens"
        raise RefusedError(Failure(FailureKind.BAD_ANSWER, reason, cost), lasting=True)
    if not isinstance(text, str):
        raise RefusedError(Failure(FailureKind.BAD_ANSWER, f"an answer without text: {str(message)[:80]!r}", cost))
    return Completion(text, truncated, cost)
