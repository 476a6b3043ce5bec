"""Shared parts of the protocols by which servers report the likelihoods of labels."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from promptmii.models.base import Chat, Choice, Message
from promptmii.models.http.refusals import bad_answer
from promptmii.models.http.transport import Server

WORD = "zyx"
TURNS: Sequence[Message] = (
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": WORD},
    {"role": "user", "content": "x"},
)
"""A chat that reveals what a chat template puts after an answer."""
TOLERANCE = 0.1
"""Allowed difference between two computations of one log-probability, in nats."""
MINUS_INFINITY = -1e30
"""Servers report minus infinity as a value below this."""
ROUNDING = 1e-3
"""Rounding may lift a log-probability this far above zero."""


class LikelihoodProtocol(NamedTuple):
    """A way to get likelihoods. Its functions raise `RefusedError`."""

    name: str
    probe: Callable[[Server], Coroutine[Any, Any, int | None]]
    """The token that ends an answer if the server speaks this protocol, else `None`."""
    encode: Callable[[Server, str], Coroutine[Any, Any, Any]]
    """Encode one option, for instance as tokens."""
    combine: Callable[[Sequence[str], Sequence[Any], int], Any]
    """Prepare the encoded options for `score`, from their texts, their encodings and the end token."""
    score: Callable[[Server, Chat, Any], Coroutine[Any, Any, Choice]]
    """`log P(option + end | chat)` of each option."""


def log_probability(value: object, token: int) -> float:
    """The log-probability that a server reports for a token. Raises `RefusedError` if it is invalid."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not MINUS_INFINITY < value <= ROUNDING:
        raise bad_answer(f"{str(value)[:40]!r} is not a log-probability (token {token})")
    return min(float(value), 0.0)
