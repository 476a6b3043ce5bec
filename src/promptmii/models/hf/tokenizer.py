"""The tokenizer and chat template that transformers loads."""

from collections.abc import Sequence
from typing import Any


class HfTokenizer:
    """See `models.chat.Tokenizer`."""

    def __init__(self, tokenizer: Any, configured: int | Sequence[int] | None) -> None:
        """`configured` are the end tokens of the model's generation configuration."""
        self._tokenizer = tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.control: dict[str, int] = {
            str(name): int(token) for name, token in (special | tokenizer.get_added_vocab()).items()
        }
        listed = [configured] if isinstance(configured, int) else list(configured or ())
        self.ends = [int(end) for end in (tokenizer.eos_token_id, *listed) if end is not None]
        self.template: str | None = tokenizer.get_chat_template() if tokenizer.chat_template else None
        self.names: dict[str, str] = tokenizer.special_tokens_map

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """See `models.chat.Tokenizer`."""
        return self._tokenizer(list(texts), add_special_tokens=begin)["input_ids"] if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        """See `models.chat.Tokenizer`."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
