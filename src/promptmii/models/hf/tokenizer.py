"""The tokenizer and chat template that transformers loads."""

from collections.abc import Mapping, Sequence
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
        self.has_template: bool = tokenizer.chat_template is not None

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """Token ids; `begin` puts the beginning-of-text token before each."""
        return self._tokenizer(list(texts), add_special_tokens=begin)["input_ids"] if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def render(self, messages: Sequence[Mapping[str, str]], *, opening: bool, fixed: Mapping[str, Any]) -> str:
        """The chat as the template writes it. Raises `TemplateError`."""
        return self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opening, **fixed
        )
