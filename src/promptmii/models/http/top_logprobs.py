"""Likelihoods of an answer's first token, from servers that list the likeliest tokens (OpenAI's `top_logprobs`).

A label's score is the log-probability of its first token, so all labels need different first tokens. To find them, the
model is asked once to repeat each label. A label that is not listed gets the lowest listed value.
"""

from collections.abc import Sequence
from typing import Any

from promptmii.models.base import Chat, Choice, FailureKind, Usage
from promptmii.models.http.answers import as_object, objects_in, read_usage
from promptmii.models.http.config import CHAT
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.likelihoods import LikelihoodProtocol, log_probability
from promptmii.models.http.refusals import RefusedError, bad_answer
from promptmii.models.http.transport import TOP_LOGPROBS, Server

FEWER = 5
"""Tokens to request from a server that refuses `TOP_LOGPROBS`; many servers allow five."""


async def _probe(server: Server) -> int | None:
    """0, in place of an end token, if the server lists likely tokens with consistent values, else `None`."""
    tokens, _ = await _answer_tokens(server, PROBE, 1)
    if not tokens:
        return None
    listed = _listed(tokens[0])
    return 0 if len(listed) > 1 and listed.get(str(tokens[0].get("token"))) == max(listed.values()) else None


async def _encode(server: Server, option: str) -> str:
    """The first token of an option. Raises `RefusedError` if the model does not repeat the option."""
    chat: Chat = [{"role": "user", "content": f"Repeat exactly, and write nothing else:\n{option}"}]
    tokens, _ = await _answer_tokens(server, chat, 8)
    first = str(tokens[0].get("token")) if tokens else ""
    if not first or not option.startswith(first):
        raise _indistinct(f"the model does not repeat {option!r}")
    return first


def _combine(options: Sequence[str], first_tokens: Sequence[str], _end: int) -> list[str]:
    """The first tokens. Raises `RefusedError` if two options share one, or if there are too many options."""
    if len(options) > TOP_LOGPROBS:
        raise _indistinct("too many labels")
    seen: dict[str, str] = {}
    for option, token in zip(options, first_tokens, strict=True):
        if token in seen:
            raise _indistinct(f"{seen[token]!r} and {option!r} begin with the same token {token!r}")
        seen[token] = option
    return list(first_tokens)


async def _score(server: Server, chat: Chat, options: list[str]) -> Choice:
    """`log P(first token | chat)` of each option. Raises `RefusedError`."""
    tokens, usage = await _answer_tokens(server, chat, 1)
    if not tokens:
        raise bad_answer("no log-probabilities in the answer")
    listed = _listed(tokens[0])
    if not any(token in listed for token in options):
        raise bad_answer(f"no label begins with one of the {len(listed)} likeliest tokens")
    lowest = min(listed.values())
    return Choice.likeliest([listed.get(token, lowest) for token in options], usage)


async def _answer_tokens(server: Server, chat: Chat, max_tokens: int) -> tuple[list[dict[str, Any]], Usage]:
    """The `logprobs` entries of the tokens of an answer."""
    parameters = {"temperature": 0, "max_tokens": max_tokens, "logprobs": True, "top_logprobs": server.top_logprobs}
    try:
        body = as_object(await server.post(CHAT, {"model": server.model, "messages": list(chat)} | parameters))
    except RefusedError as error:
        if server.top_logprobs == FEWER or "top_logprobs" not in error.failure.message:
            raise
        server.top_logprobs = FEWER
        return await _answer_tokens(server, chat, max_tokens)
    logprobs = [choice.get("logprobs") for choice in objects_in(body.get("choices"))]
    content = logprobs[0].get("content") if logprobs and isinstance(logprobs[0], dict) else None
    return objects_in(content), read_usage(body.get("usage"), wrote=False)


def _listed(entry: dict[str, Any]) -> dict[str, float]:
    """The log-probabilities of the likeliest tokens."""
    rows = objects_in(entry.get("top_logprobs"))
    if not rows:
        raise bad_answer("no likely tokens in the answer")
    listed: dict[str, float] = {}
    for row in rows:  # different tokens may have the same text, for instance with and without a space before it
        token, log_p = str(row.get("token")), log_probability(row.get("logprob"), 0)
        listed[token] = max(listed.get(token, log_p), log_p)
    return listed


def _indistinct(reason: str) -> RefusedError:
    message = f"the likelihoods of first tokens cannot tell these labels apart: {reason}"
    return RefusedError(FailureKind.REQUEST, message, lasting=True)


FIRST = LikelihoodProtocol("first-token likelihoods", _probe, _encode, _combine, _score)
