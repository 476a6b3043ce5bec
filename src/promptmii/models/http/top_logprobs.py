"""Likelihoods of the first token of an answer, from servers that list the likeliest ones (OpenAI's `top_logprobs`).

A label's score is the log-probability of its first token, so labels must differ in it. Which token that is, the model
shows by repeating each label once. A label that is not listed gets the value of the least likely one that is.
"""

from collections.abc import Sequence
from typing import Any

from promptmii.models.base import Chat, Choice, Failure, FailureKind
from promptmii.models.http.answers import read_usage
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import LISTED, Server
from promptmii.models.http.ways import Way, as_object, objects_in, probable, refused

FEWER = 5
"""What is asked of a server that refuses to list `LISTED`, as many do."""


async def _probe(server: Server, name: str) -> int | None:
    """0 if the server lists likely tokens with log-probabilities that fit together; else `None`."""
    written, _ = await _asked(server, name, PROBE, 1)
    if not written:
        return None
    listed = _listed(written[0])
    return 0 if len(listed) > 1 and listed.get(str(written[0].get("token"))) == max(listed.values()) else None


async def _read(server: Server, name: str, option: str) -> str:
    """The first token of an option. Raises `RefusedError` where the model shows none."""
    chat: Chat = [{"role": "user", "content": f"Repeat exactly, and write nothing else:\n{option}"}]
    written, _ = await _asked(server, name, chat, 8)
    token = str(written[0].get("token")) if written else ""
    if not token or not option.startswith(token):
        raise _unusable(f"the model does not show how it begins {option!r}")
    return token


def _join(options: Sequence[str], first: Sequence[str], _end: int) -> list[str]:
    """The first tokens. Raises `RefusedError` where two options share one, or there are too many."""
    for n, token in enumerate(first):
        other = next((o for o, t in zip(options[:n], first[:n], strict=True) if t == token), None)
        if other is not None or len(options) > LISTED:
            reason = f"{other!r} and {options[n]!r} begin with the same token {token!r}" if other else "too many labels"
            raise _unusable(reason)
    return list(first)


async def _score(server: Server, name: str, chat: Chat, options: list[str]) -> Choice:
    """`log P(first token | chat)` of each option. Raises `RefusedError`."""
    written, usage = await _asked(server, name, chat, 1)
    if not written:
        raise refused("no log-probabilities in the answer")
    listed = _listed(written[0])
    least = min(listed.values())
    scores = tuple(listed.get(token, least) for token in options)
    if not any(token in listed for token in options):
        raise refused(f"none of the labels begins like one of the {len(listed)} likeliest answers")
    return Choice.likeliest(scores, usage)


async def _asked(server: Server, name: str, chat: Chat, tokens: int) -> tuple[list[dict[str, Any]], Any]:
    """What is said of each token that the model wrote."""
    wanted = {"temperature": 0, "max_tokens": tokens, "logprobs": True, "top_logprobs": server.listed}
    try:
        said = as_object(await server.post("/chat/completions", {"model": name, "messages": list(chat)} | wanted))
    except RefusedError as refusal:
        if server.listed == FEWER or "top_logprobs" not in refusal.failure.message:
            raise
        server.listed = FEWER
        return await _asked(server, name, chat, tokens)
    told = [choice.get("logprobs") for choice in objects_in(said.get("choices"))]
    content = told[0].get("content") if told and isinstance(told[0], dict) else None
    return objects_in(content), read_usage(said.get("usage"), "")


def _listed(row: dict[str, Any]) -> dict[str, float]:
    found = {str(one.get("token")): probable(one.get("logprob"), 0) for one in objects_in(row.get("top_logprobs"))}
    if not found:
        raise refused("no likely tokens in the answer")
    return found


def _unusable(reason: str) -> RefusedError:
    message = f"the likelihoods of first tokens cannot tell these labels apart: {reason}"
    return RefusedError(Failure(FailureKind.REQUEST, message), lasting=True)


FIRST = Way("first-token likelihoods", _probe, _read, _join, _score)
