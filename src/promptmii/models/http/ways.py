"""What the ways in which servers give likelihoods of labels have in common."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from promptmii.models.base import Chat, Choice, Failure, FailureKind, Message
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import Server

FIRST_TOKENS = "+top_logprobs"
"""Behind a model's name: take the likelihoods of first tokens."""
WORD = "zyx"
TURNS: Sequence[Message] = (
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": WORD},
    {"role": "user", "content": "x"},
)
"""A chat that shows what a template writes behind an answer."""
TOLERANCE = 0.1
"""Nats between two computations of one token."""
LEAST = -1e30
"""A log-probability below this is the server's way to write minus infinity."""

ROUNDING = 1e-3
"""How far above zero rounding may lift a log-probability."""


class Way(NamedTuple):
    """A way to likelihoods. Its functions take a server and the model's name there, and raise `RefusedError`."""

    name: str
    probe: Callable[[Server, str], Coroutine[Any, Any, int | None]]
    """The token that ends an answer, if the server has this way; else `None`."""
    read: Callable[[Server, str, str], Coroutine[Any, Any, Any]]
    """An option as the model sees it."""
    join: Callable[[Sequence[str], Sequence[Any], int], Any]
    """Options that were read, to be compared."""
    score: Callable[[Server, str, Chat, Any], Coroutine[Any, Any, Choice]]
    """`log P(option + end | chat)` of each option."""


def as_object(answer: Any) -> dict[str, Any]:
    """A decoded answer. Raises `RefusedError` if it is no object."""
    if not isinstance(answer, dict):
        raise refused(f"expected an object, got {str(answer)[:80]!r}")
    return answer


def objects_in(listed: Any) -> list[dict[str, Any]]:
    """The objects in a decoded list; none of what is no list."""
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def refused(message: str) -> RefusedError:
    """The error for an answer that does not hold what was asked for."""
    return RefusedError(Failure(FailureKind.BAD_ANSWER, message))


def probable(value: object, token: int) -> float:
    """A log-probability that a server gave. Raises `RefusedError` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST < value <= ROUNDING:
        raise refused(f"{str(value)[:40]!r} is no log-probability of token {token}")
    return min(float(value), 0.0)
