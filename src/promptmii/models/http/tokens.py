"""What a server says of tokens: how many it reads at most, and how many a text has, estimated where it does not say.

vLLM, SGLang and llama.cpp's server count at `POST /tokenize`, beside `/v1`. The first two read `prompt`, the third
reads `content`, and each ignores what it does not know, so one body serves all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

REMEMBERED = 20_000
"""Texts whose count is kept."""


def estimate(text: str) -> int:
    """Four Latin letters make a token, or one character of another script."""
    return -(-sum(1 if ord(char) < 0x250 else 4 for char in text) // 4)


def fewest(text: str) -> int:
    """Fewer tokens than this no tokenizer makes of a text: one for six characters, runs of white space counted once."""
    return len(" ".join(text.split())) // 6


def count_request(name: str, text: str) -> dict[str, Any]:
    """The body that asks for the tokens of a text, without a beginning-of-text token."""
    return {"model": name, "prompt": text, "add_special_tokens": False, "content": text, "add_special": False}


def read_count(answer: Any) -> int | None:
    """The count in a decoded answer; `None` where it has none."""
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    return len(tokens) if isinstance(tokens, list) else None


def context_length(listing: Any, name: str) -> int | None:
    """From a model list: `max_model_len` (vLLM, SGLang) or `meta` (llama.cpp). A server of one model takes any name."""
    try:
        entries = listing["data"] if isinstance(listing, dict) else listing
        entry = next(entry for entry in entries if entry["id"] == name or len(entries) == 1)
        meta = entry.get("meta") or {}
        given = entry.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
    except (StopIteration, KeyError, TypeError, AttributeError):
        return None
    return (given if isinstance(given, int) and given > 0 else None) if not isinstance(given, bool) else None


class Memory:
    """The counts of the latest texts. It keeps digests, so long texts cost no more than short ones."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def known(self, texts: Sequence[str]) -> dict[str, int]:
        """The counts of those texts that are remembered."""
        digests = {text: _digest(text) for text in texts}
        return {text: self._counts[digest] for text, digest in digests.items() if digest in self._counts}

    def keep(self, counts: Mapping[str, int]) -> None:
        """Remember these counts, and forget the oldest beyond `REMEMBERED`."""
        self._counts |= {_digest(text): count for text, count in counts.items()}
        self._counts = dict([*self._counts.items()][-REMEMBERED:])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
