"""The tokenizer and chat template that a GGUF file carries."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from promptmii.errors import UnknownModelError
from promptmii.models.llama.native import Native


class GgufTokenizer:
    """See `models.chat.Tokenizer`."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.control = native.control_tokens()
        self.ends = native.ends()
        source = native.metadata("tokenizer.chat_template")
        try:
            self._template = _environment().from_string(source) if source else None
        except TemplateError as error:
            raise UnknownModelError(f"The file's chat template cannot be read: {error.message}.") from error
        begin = native.begin()
        self._begin = [] if begin is None else [begin]
        self._names = {"bos_token": self._name(begin), "eos_token": self._name(next(iter(self.ends), None))}

    @property
    def has_template(self) -> bool:
        """The file carries a chat template."""
        return self._template is not None

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """Token ids; `begin` puts the beginning-of-text token before each."""
        before = self._begin if begin else []
        return [before + self._native.tokenize(text, special=True) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        return self._native.text(tokens)

    def render(self, messages: Sequence[Mapping[str, str]], *, opening: bool, fixed: Mapping[str, Any]) -> str:
        """The chat as the template writes it. Raises `TemplateError`."""
        assert self._template is not None
        return self._template.render(messages=list(messages), add_generation_prompt=opening, **self._names, **fixed)

    def _name(self, token: int | None) -> str:
        return next((name for name, known in self.control.items() if known == token), "")


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers reads templates, which is what their authors test with."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    names: dict[str, Any] = environment.globals
    names["raise_exception"] = _raise
    return environment


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
