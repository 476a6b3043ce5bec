"""Exact likelihoods of labels from llama.cpp's server.

`/completion` reports the log-probability of the sampled token before any sampling setting. A bias makes it sample the
token that we ask about, so one request for each token of a label gives the label's likelihood. The server keeps the
prompt between requests. A grammar would not do: it allows spellings in tokens that the model does not use.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

from promptmii.errors import EndpointError
from promptmii.models.base import Chat, Choice, Usage
from promptmii.models.batching import Trie
from promptmii.models.http.constraints import PROBE
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import Server
from promptmii.models.http.ways import TOLERANCE, TURNS, WORD, Way, as_object, objects_in, probable, refused

FORCING = 1e4
"""A bias that no logit outweighs."""
PROBED = 16
"""Likely tokens among which one is a whole character."""
WIDER = (64, 1024, 16384)
"""Likely tokens to look for a part of a character in."""


async def _probe(server: Server, name: str) -> int | None:
    """The token that ends an answer, if the server gives exact likelihoods; else `None`. Raises `RefusedError`."""
    try:
        await _rendered(server, PROBE)
    except (RefusedError, EndpointError):
        return None  # not llama.cpp
    prompt, end = await _prompt(server, name, PROBE), await _end_of_turn(server, name)
    if end is None:
        return None
    first, _ = await _forced(server, name, prompt, end, PROBED)
    whole = [(token, value) for token, value, text in _listed(first) if _is_text(text)]
    if not whole:
        return None
    token, expected = whole[-1][0], probable(whole[-1][1], whole[-1][0])
    forced, _ = await _log_probability(server, name, prompt, token, end)
    return end if abs(forced - expected) < TOLERANCE else None


def _join(_: Sequence[str], tokens: Sequence[list[int]], end: int) -> Trie:
    """The options as a tree."""
    return Trie.build(tokens, end)


async def _score(server: Server, name: str, chat: Chat, options: Trie) -> Choice:
    """`log P(option + end | chat)` of each option. Raises `RefusedError`."""
    prompt = await _prompt(server, name, chat)
    known: dict[tuple[int, int], float] = {}
    cached = 0
    for node, token in sorted({step for option in options.steps for step in option}):
        beginning = [*prompt, *(options.tokens[one] for one in reversed(options.ancestors(node)))]
        known[node, token], reused = await _log_probability(server, name, beginning, token, options.steps[0][-1][1])
        cached = cached or min(reused, len(prompt))
    scores = tuple(math.fsum(known[step] for step in option) for option in options.steps)
    return Choice.likeliest(scores, Usage(1, len(prompt), 0, cached))


async def _log_probability(server: Server, name: str, prompt: Sequence[int], token: int, end: int) -> tuple[float, int]:
    """Of a token after a prompt, and how much of the prompt the server still had."""
    first, cached = await _forced(server, name, prompt, token, 1)
    if first.get("id") == token:
        return probable(first.get("logprob"), token), cached
    for count in WIDER:  # the server says nothing of half a character, so the token is looked up beside another
        first, _ = await _forced(server, name, prompt, end, count)
        value = next((value for listed, value, _ in _listed(first) if listed == token), None)
        if value is not None:
            return probable(value, token), cached
    raise refused(f"token {token}, a part of a character, is not among the {WIDER[-1]:,} most likely ones")


async def _forced(
    server: Server, name: str, prompt: Sequence[int], token: int, count: int
) -> tuple[dict[str, Any], int]:
    """What the server says of a token it must take, the `count` likeliest beside it, and how much it had cached."""
    body = {"model": name, "prompt": list(prompt), "n_predict": 1, "temperature": 0, "cache_prompt": True}
    wanted = {"n_probs": count, "post_sampling_probs": False, "logit_bias": [[token, FORCING]]}
    answer = as_object(await server.post_beside("/completion", body | wanted))
    first, timings = objects_in(answer.get("completion_probabilities")), answer.get("timings")
    cached = timings.get("cache_n") if isinstance(timings, dict) else None
    return first[0] if first else {}, cached if isinstance(cached, int) else 0


def _listed(first: dict[str, Any]) -> list[tuple[int, object, object]]:
    """Token, log-probability and bytes of the likeliest tokens."""
    return [(row.get("id", -1), row.get("logprob"), row.get("bytes")) for row in objects_in(first.get("top_logprobs"))]


def _is_text(raw: object) -> bool:
    try:
        return bool(bytes(cast("list[int]", raw)).decode())
    except (TypeError, ValueError):
        return False


async def _prompt(server: Server, name: str, chat: Chat) -> list[int]:
    return await _tokens(server, name, await _rendered(server, chat), begin=True, control=True)


async def _rendered(server: Server, chat: Chat) -> str:
    body = {"messages": list(chat), "chat_template_kwargs": {"enable_thinking": False}}
    text = as_object(await server.post_beside("/apply-template", body)).get("prompt")
    if not isinstance(text, str):
        raise refused("no prompt in the answer of /apply-template")
    return text


async def _tokens(server: Server, name: str, text: str, *, begin: bool = False, control: bool = False) -> list[int]:
    """Token ids; `begin` adds the beginning of text, `control` reads the names of control tokens as such."""
    body = {"model": name, "content": text, "add_special": begin, "parse_special": control}
    tokens = as_object(await server.post_beside("/tokenize", body)).get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise refused("no token ids in the answer of /tokenize")
    return tokens


async def _end_of_turn(server: Server, name: str) -> int | None:
    """The first token after an answer in the template, if it is a control token."""
    after = (await _rendered(server, TURNS)).rpartition(WORD)[2]
    plain, read = await _tokens(server, name, after), await _tokens(server, name, after, control=True)
    return read[0] if read and read[:1] != plain[:1] else None


LLAMA = Way("likelihoods", _probe, _tokens, _join, _score)
