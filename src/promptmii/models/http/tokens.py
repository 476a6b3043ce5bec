"""Token counts and context lengths as servers report them, and an estimate for servers that do not count.

vLLM, SGLang and llama.cpp's server count at `POST /tokenize`, outside `/v1`. The first two read `prompt`, the third
reads `content`, and all ignore unknown fields, so one request body serves all.
"""

from typing import Any

from promptmii.models.http.answers import as_count, as_object
from promptmii.models.http.refusals import bad_answer
from promptmii.models.http.transport import Server

LENGTHS = ("max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length")
"""Names of the context length in model lists: vLLM and SGLang, LM Studio, OpenRouter and Together, Groq, Mistral."""


def estimate(text: str) -> int:
    """One token per four Latin letters, or per character of another script."""
    return -(-sum(1 if ord(char) < 0x250 else 4 for char in text) // 4)


async def encode(server: Server, text: str) -> list[int]:
    """The token ids of a text, without a beginning-of-text token. Raises `RefusedError`."""
    body = {"model": server.model, "prompt": text, "add_special_tokens": False, "content": text, "add_special": False}
    return token_ids(await server.post_outside_v1("/tokenize", body))


def token_ids(answer: Any) -> list[int]:
    """The token ids in the decoded answer of `/tokenize`. Raises `RefusedError` if it has none."""
    tokens = as_object(answer).get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise bad_answer("no token ids in the answer of /tokenize")
    return tokens


def context_length(listing: Any, model: str) -> int | None:
    """The context length in a model list, under `LENGTHS` or in `meta` (llama.cpp), if given.

    A server with a single model accepts any name.
    """
    try:
        entries = listing["data"] if isinstance(listing, dict) else listing
        entry = next(entry for entry in entries if entry["id"] == model or len(entries) == 1)
        meta = entry.get("meta") or {}
        lengths = [*(entry.get(name) for name in LENGTHS), meta.get("n_ctx"), meta.get("n_ctx_train")]
        return next((length for length in map(as_count, lengths) if length), None)
    except (StopIteration, KeyError, TypeError, AttributeError):
        return None
