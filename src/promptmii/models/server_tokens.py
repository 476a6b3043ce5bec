"""How many tokens a text has for a model behind HTTP: asked of the server where it can say, estimated elsewhere."""

from collections.abc import Sequence
from typing import Any

import httpx
import openai

from promptmii.errors import EndpointError

REMEMBERED = 20_000
"""Texts whose count is kept."""


def estimate(text: str) -> int:
    """Four Latin letters make a token, or one character of another script."""
    return -(-sum(1 if ord(char) < 0x250 else 4 for char in text) // 4)


class TokenCounts:
    """`POST /tokenize` as vLLM and llama.cpp's server have it, beside `/v1`. One body serves both: each ignores the other's fields."""

    def __init__(self, name: str, clients: Sequence[openai.AsyncOpenAI]) -> None:
        """`name` of the model; any of the servers can count."""
        self._name = name
        self._clients = clients
        self._known: dict[str, int] = {}

    async def probe(self) -> bool:
        """The server counts tokens."""
        try:
            return await self("hello") > 0
        except EndpointError:
            return False

    async def __call__(self, text: str) -> int:
        """Tokens without special ones. Raises `EndpointError` where the server gives no count."""
        if text not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[text] = await self._ask(text)
        return self._known[text]

    async def _ask(self, text: str) -> int:
        client = self._clients[len(text) % len(self._clients)]
        url = str(client.base_url).rstrip("/").removesuffix("/v1") + "/tokenize"
        body = {"model": self._name, "prompt": text, "add_special_tokens": False, "content": text, "add_special": False}
        try:
            answer: Any = (await client.post(url, cast_to=httpx.Response, body=body)).json()
        except (openai.APIError, ValueError) as error:
            raise EndpointError(f"{url} gave no token count: {error}") from error
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise EndpointError(f"{url} answered {str(answer)[:80]!r}; expected a list of tokens.")
        return len(tokens)  # pyright: ignore[reportUnknownArgumentType]
