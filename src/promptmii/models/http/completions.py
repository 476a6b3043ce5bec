"""Chat completion requests of one model: their parameters, and several samples in one request.

The answers reveal what a server supports. One that returns a single sample, or copies, is not asked for several again.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from promptmii.models.base import Chat, Completion, FailureKind, ModelCard, Sampling, Usage
from promptmii.models.http.answers import check_whole_prompt, read_completion, read_completions
from promptmii.models.http.config import CHAT
from promptmii.models.http.refusals import RefusedError, refused_parameter
from promptmii.models.http.transport import Server

NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent to servers that count tokens: vLLM, SGLang and llama.cpp have their own sampling defaults, such as top_k 40."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""Sent to servers that only stream. Without the option, most report no usage, and so no cost."""
DROPPABLE = ("stream_options", *NEUTRAL, "seed", "top_p", "max_tokens", "temperature")
"""Parameters that some models reject. If an error mentions several, the first is dropped."""

STREAM = re.compile(r"\bstream", re.IGNORECASE)
"""In an error that asks for `"stream": true`."""


class Completions:
    """Sends the requests, and remembers what the servers do not support."""

    def __init__(self) -> None:
        self.card: ModelCard | None = None
        """Set by the client once it has queried the servers."""
        self._dropped: set[str] = set()
        """Rejected parameters of requests that succeeded without them."""
        self._streams = False
        """The servers only stream."""
        self.multiple = True
        """The servers may support several samples per request."""

    async def single(self, server: Server, chat: Chat, sampling: Sampling, extra: Mapping[str, Any]) -> Completion:
        """One answer; `extra` holds additional request fields. Raises `RefusedError`."""
        completion = read_completion(await self._post(server, chat, sampling, extra))
        self.check(server, chat, completion.usage)
        return completion

    async def several(self, server: Server, chat: Chat, sampling: Sampling, count: int) -> list[Completion | None]:
        """`count` samples from one request; `None` for each that is missing. Raises `RefusedError`.

        The usage of the request is divided among them, so the prompt is counted once.
        """
        try:
            response = await self._post(server, chat, sampling, {"n": count})
        except RefusedError as error:
            if error.failure.kind is not FailureKind.REQUEST or error.lasting:
                raise
            self.multiple = False
            return [None] * count
        samples = read_completions(response, count)
        received = [sample for sample in samples if sample]
        self.check(server, chat, received[0].usage)
        if len({sample.text for sample in received}) > 1:
            return samples
        self.multiple = False
        usage = sum((sample.usage for sample in received), Usage())
        return [replace(received[0], usage=usage), *[None] * (count - 1)]

    def check(self, server: Server, chat: Chat, usage: Usage) -> None:
        """Note that the server answered. Raises `RefusedError` if it read only part of the chat."""
        server.mark_answered()
        if self.card and self.card.context_assumed and not self.card.exact_tokens:
            check_whole_prompt(chat, usage)

    async def _post(self, server: Server, chat: Chat, sampling: Sampling, extra: Mapping[str, Any]) -> Any:
        """The decoded response. Drops rejected parameters, for good once a request has succeeded without them."""
        dropped, streams = set(self._dropped), self._streams
        neutral = self.card is not None and self.card.exact_tokens
        while True:
            parameters = _parameters(sampling, dropped, neutral=neutral, streams=streams) | dict(extra)
            try:
                response = await server.post(CHAT, {"model": server.model, "messages": list(chat)} | parameters)
                break
            except RefusedError as error:
                rejected = error.failure.kind is FailureKind.REQUEST
                name = refused_parameter(error.body, parameters, DROPPABLE) if rejected else None
                if name:
                    dropped.add(name)
                elif rejected and not streams and STREAM.search(error.failure.message):
                    streams = True
                else:
                    raise
        newly_dropped = dropped - self._dropped
        self._dropped |= dropped
        self._streams |= streams
        if "temperature" in newly_dropped:
            message = f"The model {server.model} refuses `temperature`. It uses its own, so answers vary between runs."
            warnings.warn(message, stacklevel=1)
        return response


def _parameters(sampling: Sampling, dropped: set[str], *, neutral: bool, streams: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "max_tokens": sampling.max_tokens,
        **(NEUTRAL if neutral else {}),
        **(STREAMED if streams else {}),
    }
    if "max_tokens" in dropped:
        parameters["max_completion_tokens"] = parameters["max_tokens"]
    return {name: value for name, value in parameters.items() if name not in dropped}
