"""Chat completions of one model: what is sent, which parameters a server does without, several answers in one request.

Whether a server gives several answers is seen in what it answers: one that gives fewer, or copies, is not asked again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from promptmii.models.base import Chat, Completion, FailureKind, ModelCard, Sampling, Usage
from promptmii.models.http.answers import read_completion, read_completions, refuse_cut_prompt
from promptmii.models.http.refusals import RefusedError, refused_parameter
from promptmii.models.http.transport import Server

NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent to servers that count tokens: vLLM, SGLang and llama.cpp have their own sampling defaults, such as top_k 40."""
DROPPABLE = (*NEUTRAL, "seed", "top_p", "max_tokens", "temperature")
"""Parameters that some models refuse, in the order in which they are done without."""


class Completions:
    """The requests, and what was learnt of the servers from their answers."""

    def __init__(self, name: str) -> None:
        """`name` as the servers know the model."""
        self._name = name
        self.dropped: set[str] = set()
        """Parameters without which a call succeeded after a refusal."""
        self.gives_several = True
        """No request for several answers got fewer yet."""

    async def one(
        self, server: Server, chat: Chat, sampling: Sampling, extra: Mapping[str, Any], card: ModelCard | None
    ) -> Completion:
        """One answer. Raises `RefusedError`."""
        completion = read_completion(await self._ask(server, chat, sampling, extra, card))
        self._check(server, chat, completion, card)
        return completion

    async def several(
        self, server: Server, chat: Chat, sampling: Sampling, count: int, card: ModelCard | None
    ) -> list[Completion | None]:
        """`count` samples from one request; `None` in the place of one that has to be asked for. Raises `RefusedError`.

        They share the usage of the request, so its prompt is counted once.
        """
        try:
            answer = await self._ask(server, chat, sampling, {"n": count}, card)
        except RefusedError as refused:
            if refused.failure.kind is not FailureKind.REQUEST or refused.lasting:
                raise
            self.gives_several = False
            return [None] * count
        found = read_completions(answer, count)
        given = [one for one in found if one]
        self._check(server, chat, given[0], card)
        if len({one.text for one in given}) > 1:
            return found
        self.gives_several = False  # one answer, or copies of it
        usage = sum((one.usage for one in given), Usage())
        return [replace(given[0], usage=usage), *[None] * (count - 1)]

    def _check(self, server: Server, chat: Chat, completion: Completion, card: ModelCard | None) -> None:
        server.answered = True
        if card and card.context_assumed and not card.exact_tokens:
            refuse_cut_prompt(chat, completion.usage)

    async def _ask(
        self, server: Server, chat: Chat, sampling: Sampling, extra: Mapping[str, Any], card: ModelCard | None
    ) -> Any:
        """The answer. A parameter that the server refuses is left out, and for good once that has worked."""
        dropped = set(self.dropped)
        while True:
            body = _body(sampling, dropped, neutral=card is not None and card.exact_tokens) | dict(extra)
            try:
                answer = await server.post("/chat/completions", {"model": self._name, "messages": list(chat)} | body)
                break
            except RefusedError as refused:
                request = refused.failure.kind is FailureKind.REQUEST
                name = refused_parameter(refused.body, body, DROPPABLE) if request else None
                if name is None:
                    raise
                dropped.add(name)
        self.dropped |= dropped
        return answer


def _body(sampling: Sampling, dropped: set[str], *, neutral: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "max_tokens": sampling.max_tokens,
    } | (NEUTRAL if neutral else {})
    if "max_tokens" in dropped:
        body["max_completion_tokens"] = body["max_tokens"]
    return {name: value for name, value in body.items() if name not in dropped}
