"""Exact likelihoods of labels from vLLM, which reports the log-probability of every token of a prompt.

One request holds the prompt with each label behind it, in tokens, so no label is split otherwise than as an answer.
"""

import math
from collections.abc import Sequence
from typing import Any

from promptmii.errors import EndpointError
from promptmii.models.base import Chat, Choice, Usage
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import Server
from promptmii.models.http.ways import TOLERANCE, TURNS, WORD, Way, as_object, objects_in, probable, refused


async def _probe(server: Server, name: str) -> int | None:
    """The token that ends an answer, if the server gives exact likelihoods; else `None`. Raises `RefusedError`."""
    try:
        prompt = await _chat(server, name, PROBE)
    except (RefusedError, EndpointError):
        return None  # not vLLM
    end = await _end_of_turn(server, name)
    body = _body(name, [prompt]) | {"logprobs": 1, "return_tokens_as_token_ids": True}
    written = as_object(_choices(await server.post("/completions", body), 1)[0].get("logprobs"))
    try:
        token = int(str(written["tokens"][0]).removeprefix("token_id:"))
        expected = probable(written["token_logprobs"][0], token)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    answer = _choices(await server.post("/completions", _body(name, [[*prompt, token]])), 1)[0]
    return end if abs(_log_p(answer, len(prompt), [token]) - expected) < TOLERANCE else None


def _join(_: Sequence[str], tokens: Sequence[list[int]], end: int) -> list[list[int]]:
    """The options in tokens, each with the end."""
    return [[*option, end] for option in tokens]


async def _score(server: Server, name: str, chat: Chat, options: list[list[int]]) -> Choice:
    """`log P(option + end | chat)` of each option. Raises `RefusedError`."""
    prompt = await _chat(server, name, chat)
    said = await server.post("/completions", _body(name, [[*prompt, *option] for option in options]))
    found = _choices(said, len(options))
    scores = tuple(_log_p(one, len(prompt), option) for one, option in zip(found, options, strict=True))
    return Choice.likeliest(scores, Usage(1, len(prompt), 0))


def _body(name: str, prompts: list[list[int]]) -> dict[str, Any]:
    wanted = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "add_special_tokens": False}
    return {"model": name, "prompt": prompts} | wanted


def _choices(answer: Any, count: int) -> list[dict[str, Any]]:
    rows = objects_in(as_object(answer).get("choices"))
    by_index = {row.get("index", n): row for n, row in enumerate(rows)}
    if sorted(by_index) != list(range(count)):
        raise refused(f"{len(rows)} answers to {count} prompts")
    return [by_index[n] for n in range(count)]


def _log_p(choice: dict[str, Any], start: int, tokens: Sequence[int]) -> float:
    """Of the tokens that follow the first `start` of a prompt."""
    listed = choice.get("prompt_logprobs")
    if not isinstance(listed, list) or len(listed) != start + len(tokens):
        raise refused("no log-probability for each token of the prompt")
    values: list[float] = []
    for place, token in enumerate(tokens, start):
        entry = as_object(listed[place]).get(str(token))
        values.append(probable(as_object(entry).get("logprob"), token))
    return math.fsum(values)


async def _chat(server: Server, name: str, messages: Chat, *, opening: bool = True) -> list[int]:
    kwargs = {"enable_thinking": False}
    body = {"model": name, "messages": list(messages), "add_generation_prompt": opening, "chat_template_kwargs": kwargs}
    return _read(await server.post_beside("/tokenize", body))


async def _tokens(server: Server, name: str, text: str) -> list[int]:
    return _read(await server.post_beside("/tokenize", {"model": name, "prompt": text, "add_special_tokens": False}))


def _read(answer: Any) -> list[int]:
    tokens = as_object(answer).get("tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, int) for token in tokens):
        raise refused("no token ids in the answer of /tokenize")
    return tokens


async def _end_of_turn(server: Server, name: str) -> int:
    """The token after an answer in the template."""
    word = await _tokens(server, name, WORD)
    tokens = await _chat(server, name, TURNS, opening=False)
    places = [n for n in range(len(tokens) - len(word)) if tokens[n : n + len(word)] == word]
    if not places:
        raise refused("the chat template splits an answer in another way than its text")
    return tokens[places[-1] + len(word)]


VLLM = Way("prompt likelihoods", _probe, _tokens, _join, _score)
