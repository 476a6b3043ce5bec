"""Exact likelihoods of labels from vLLM, which reports the log-probability of every token of a prompt.

One request holds a prompt per label: the chat's tokens followed by the label's, so that both keep their tokenization.
"""

import math
from collections.abc import Sequence
from typing import Any

from promptmii.models.base import Chat, Choice, Failure, Usage
from promptmii.models.http.answers import as_object, choices_by_index
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.likelihoods import TOLERANCE, TURNS, WORD, LikelihoodProtocol, log_probability
from promptmii.models.http.refusals import bad_answer
from promptmii.models.http.retries import Inquiry
from promptmii.models.http.tokens import encode, token_ids
from promptmii.models.http.transport import Server


async def _probe(server: Server) -> int | None:
    """The token that ends an answer if the server gives exact likelihoods, else `None`. Raises `RefusedError`."""
    prompt = await Inquiry(server).run(lambda: _chat_tokens(server, PROBE))
    if isinstance(prompt, Failure):
        return None  # not vLLM
    end = await _end_of_turn(server)
    body = _body(server.model, [prompt]) | {"logprobs": 1, "return_tokens_as_token_ids": True}
    logprobs = as_object(_choices(await server.post("/completions", body), 1)[0].get("logprobs"))
    try:
        token = int(str(logprobs["tokens"][0]).removeprefix("token_id:"))
        expected = log_probability(logprobs["token_logprobs"][0], token)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    choice = _choices(await server.post("/completions", _body(server.model, [[*prompt, token]])), 1)[0]
    return end if abs(_sum_log_p(choice, len(prompt), [token]) - expected) < TOLERANCE else None


def _combine(_: Sequence[str], tokens: Sequence[list[int]], end: int) -> list[list[int]]:
    """The tokens of each option, with the end token."""
    return [[*option, end] for option in tokens]


async def _score(server: Server, chat: Chat, options: list[list[int]]) -> Choice:
    """`log P(option + end | chat)` of each option. Raises `RefusedError`."""
    prompt = await _chat_tokens(server, chat)
    body = await server.post("/completions", _body(server.model, [[*prompt, *option] for option in options]))
    choices = _choices(body, len(options))
    scores = [_sum_log_p(choice, len(prompt), option) for choice, option in zip(choices, options, strict=True)]
    return Choice.likeliest(scores, Usage(1, len(prompt), 0))


def _body(model: str, prompts: list[list[int]]) -> dict[str, Any]:
    parameters = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "add_special_tokens": False}
    return {"model": model, "prompt": prompts} | parameters


def _choices(body: Any, count: int) -> list[dict[str, Any]]:
    choices = choices_by_index(as_object(body))
    if sorted(choices) != list(range(count)):
        raise bad_answer(f"{len(choices)} answers to {count} prompts")
    return [choices[n] for n in range(count)]


def _sum_log_p(choice: dict[str, Any], start: int, tokens: Sequence[int]) -> float:
    """The log-probability of `tokens`, which follow the first `start` tokens of a prompt."""
    entries = choice.get("prompt_logprobs")
    if not isinstance(entries, list) or len(entries) != start + len(tokens):
        raise bad_answer("no log-probability for each token of the prompt")
    rows = [as_object(as_object(entry).get(str(token))) for entry, token in zip(entries[start:], tokens, strict=True)]
    return math.fsum(log_probability(row.get("logprob"), token) for row, token in zip(rows, tokens, strict=True))


async def _chat_tokens(server: Server, chat: Chat, *, opening: bool = True) -> list[int]:
    """The tokens of a chat; `opening` appends those that open an answer."""
    body = {
        "model": server.model,
        "messages": list(chat),
        "add_generation_prompt": opening,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    return token_ids(await server.post_outside_v1("/tokenize", body))


async def _end_of_turn(server: Server) -> int:
    """The token that the chat template puts after an answer."""
    word = await encode(server, WORD)
    tokens = await _chat_tokens(server, TURNS, opening=False)
    positions = [n for n in range(len(tokens) - len(word)) if tokens[n : n + len(word)] == word]
    if not positions:
        raise bad_answer("the chat template changes the tokens of an answer")
    return tokens[positions[-1] + len(word)]


VLLM = LikelihoodProtocol("prompt likelihoods", _probe, encode, _combine, _score)
