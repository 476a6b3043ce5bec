"""Exact likelihoods of labels from llama.cpp's server.

`/completion` reports the log-probability of the sampled token before any sampling setting applies. A bias forces it to
sample a certain token, so one request per token of a label yields the label's likelihood. The server caches the prompt
between requests. A grammar would be wrong: it also allows tokenizations that the model does not use.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

from promptmii.models.base import Chat, Choice, Failure, Usage
from promptmii.models.batching import Trie
from promptmii.models.http.answers import as_object, objects_in
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.likelihoods import TOLERANCE, TURNS, WORD, LikelihoodProtocol, log_probability
from promptmii.models.http.refusals import bad_answer
from promptmii.models.http.retries import Inquiry
from promptmii.models.http.tokens import token_ids
from promptmii.models.http.transport import Server

FORCING = 1e4
"""A logit bias larger than any logit."""
PROBED = 16
"""Likely tokens to request in the probe, enough to include one that is valid text."""
WIDER = (64, 1024, 16384)
"""Numbers of likely tokens to search, in turn, for a token that is only part of a character."""


async def _probe(server: Server) -> int | None:
    """The token that ends an answer if the server gives exact likelihoods, else `None`. Raises `RefusedError`."""
    if isinstance(await Inquiry(server).run(lambda: _rendered(server, PROBE)), Failure):
        return None  # not llama.cpp
    prompt, end = await _prompt(server, PROBE), await _end_of_turn(server)
    if end is None:
        return None
    sampled, _ = await _force(server, prompt, end, PROBED)
    rows = [row for row in objects_in(sampled.get("top_logprobs")) if _is_text(row.get("bytes"))]
    if not rows:
        return None
    token = rows[-1].get("id", -1)
    expected = log_probability(rows[-1].get("logprob"), token)
    forced, _ = await _log_p(server, prompt, token, end)
    return end if abs(forced - expected) < TOLERANCE else None


def _combine(_: Sequence[str], tokens: Sequence[list[int]], end: int) -> Trie:
    return Trie.build(tokens, end)


async def _score(server: Server, chat: Chat, options: Trie) -> Choice:
    """`log P(option + end | chat)` of each option. Raises `RefusedError`."""
    prompt = await _prompt(server, chat)
    end = options.steps[0][-1][1]
    log_p: dict[tuple[int, int], float] = {}
    cached = 0
    for node, token in sorted({step for option in options.steps for step in option}):
        prefix = [*prompt, *(options.tokens[ancestor] for ancestor in reversed(options.ancestors(node)))]
        log_p[node, token], reused = await _log_p(server, prefix, token, end)
        cached = cached or min(reused, len(prompt))
    scores = [math.fsum(log_p[step] for step in option) for option in options.steps]
    return Choice.likeliest(scores, Usage(1, len(prompt), 0, cached))


async def _log_p(server: Server, prompt: Sequence[int], token: int, end: int) -> tuple[float, int]:
    """The log-probability of a token after a prompt, and the number of cached prompt tokens."""
    sampled, cached = await _force(server, prompt, token, 1)
    if sampled.get("id") == token:
        return log_probability(sampled.get("logprob"), token), cached
    # The server does not report a forced token that is only part of a character, but lists it beside other tokens.
    for count in WIDER:
        sampled, _ = await _force(server, prompt, end, count)
        for row in objects_in(sampled.get("top_logprobs")):
            if row.get("id") == token and row.get("logprob") is not None:
                return log_probability(row["logprob"], token), cached
    raise bad_answer(f"token {token}, a part of a character, is not among the {WIDER[-1]:,} most likely ones")


async def _force(server: Server, prompt: Sequence[int], token: int, count: int) -> tuple[dict[str, Any], int]:
    """Force a token. Returns its entry, with the `count` likeliest tokens, and the number of cached prompt tokens."""
    body = {
        "model": server.model,
        "prompt": list(prompt),
        "n_predict": 1,
        "temperature": 0,
        "cache_prompt": True,
        "n_probs": count,
        "post_sampling_probs": False,
        "logit_bias": [[token, FORCING]],
    }
    answer = as_object(await server.post_outside_v1("/completion", body))
    entries, timings = objects_in(answer.get("completion_probabilities")), answer.get("timings")
    cached = timings.get("cache_n") if isinstance(timings, dict) else None
    return entries[0] if entries else {}, cached if isinstance(cached, int) else 0


def _is_text(raw: object) -> bool:
    try:
        return bool(bytes(cast("list[int]", raw)).decode())
    except (TypeError, ValueError):
        return False


async def _prompt(server: Server, chat: Chat) -> list[int]:
    return await _tokens(server, await _rendered(server, chat), begin=True, control=True)


async def _rendered(server: Server, chat: Chat) -> str:
    """The chat as a prompt, in the model's chat template."""
    body = {"messages": list(chat), "chat_template_kwargs": {"enable_thinking": False}}
    prompt = as_object(await server.post_outside_v1("/apply-template", body)).get("prompt")
    if not isinstance(prompt, str):
        raise bad_answer("no prompt in the answer of /apply-template")
    return prompt


async def _tokens(server: Server, text: str, *, begin: bool = False, control: bool = False) -> list[int]:
    """Token ids; `begin` adds a beginning-of-text token, `control` parses control tokens."""
    body = {"model": server.model, "content": text, "add_special": begin, "parse_special": control}
    return token_ids(await server.post_outside_v1("/tokenize", body))


async def _end_of_turn(server: Server) -> int | None:
    """The first token that the chat template puts after an answer, if it is a control token."""
    after = (await _rendered(server, TURNS)).rpartition(WORD)[2]
    as_text, parsed = await _tokens(server, after), await _tokens(server, after, control=True)
    return parsed[0] if parsed and parsed[:1] != as_text[:1] else None


LLAMA = LikelihoodProtocol("likelihoods", _probe, _tokens, _combine, _score)
