"""The ways in which servers give likelihoods of labels."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from promptmii.models.base import Chat, Choice
from promptmii.models.http import likelihoods, prompt_logprobs, top_logprobs
from promptmii.models.http.transport import Server

FIRST_TOKENS = "+top_logprobs"
"""Behind a model's name: take the likelihoods of first tokens."""


class Way(NamedTuple):
    """A way to likelihoods: does a server have it (then the token that ends an answer), what options are, a score."""

    name: str
    probe: Callable[[Server, str], Coroutine[Any, Any, int | None]]
    answers: Callable[[Server, str, Sequence[str], int], Coroutine[Any, Any, Any]]
    score: Callable[[Server, str, Chat, Any], Coroutine[Any, Any, Choice]]


LLAMA = Way("likelihoods", likelihoods.probe, likelihoods.answers, likelihoods.score)
VLLM = Way("prompt likelihoods", prompt_logprobs.probe, prompt_logprobs.answers, prompt_logprobs.score)
FIRST = Way("first-token likelihoods", top_logprobs.probe, top_logprobs.answers, top_logprobs.score)
