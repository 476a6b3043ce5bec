"""The ways in which servers give likelihoods of labels."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from promptmii.models.base import Chat, Choice
from promptmii.models.http import likelihoods, prompt_logprobs, top_logprobs
from promptmii.models.http.transport import Server

FIRST_TOKENS = "+top_logprobs"
"""Behind a model's name: take the likelihoods of first tokens."""


class Way(NamedTuple):
    """A way to likelihoods."""

    name: str
    probe: Callable[[Server, str], Coroutine[Any, Any, int | None]]
    """The token that ends an answer, if a server has this way."""
    read: Callable[[Server, str, str], Coroutine[Any, Any, Any]]
    """An option as the model sees it."""
    join: Callable[[Sequence[str], Sequence[Any], int], Any]
    """Options that were read, to be compared."""
    score: Callable[[Server, str, Chat, Any], Coroutine[Any, Any, Choice]]


LLAMA = Way("likelihoods", likelihoods.probe, likelihoods.read, likelihoods.join, likelihoods.score)
VLLM = Way(
    "prompt likelihoods", prompt_logprobs.probe, prompt_logprobs.read, prompt_logprobs.join, prompt_logprobs.score
)
FIRST = Way("first-token likelihoods", top_logprobs.probe, top_logprobs.read, top_logprobs.join, top_logprobs.score)
