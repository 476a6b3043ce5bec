"""The tokenizer and chat template that a GGUF file carries."""

from collections.abc import Sequence

from promptmii.models.llama.native import Native


class GgufTokenizer:
    """See `models.chat.Tokenizer`."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.control = native.control_tokens()
        self.ends = native.ends()
        self.template = native.metadata("tokenizer.chat_template")
        begin = native.begin()
        self._begin = [] if begin is None else [begin]
        by_id = {token: name for name, token in self.control.items()}
        self.names = {"bos_token": by_id.get(begin, ""), "eos_token": by_id.get(next(iter(self.ends), None), "")}

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """See `models.chat.Tokenizer`."""
        before = self._begin if begin else []
        return [before + self._native.tokenize(text, special=True) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """See `models.chat.Tokenizer`."""
        return self._native.text(tokens)
