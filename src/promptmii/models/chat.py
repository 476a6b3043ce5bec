"""Turn chats into prompt tokens, exactly as the model's own chat template writes them."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any, NoReturn, Protocol

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from promptmii.errors import UnknownModelError
from promptmii.models.base import Chat
from promptmii.words import any_of

_FIXED: Mapping[str, Any] = {
    "date_string": "26 Jul 2024",
    "strftime_now": date(2024, 7, 26).strftime,
    "enable_thinking": False,
    "tools": None,
    "documents": None,
}
"""Template variables. With today's date, prompts would change daily; with thinking, every label would be unlikely."""


class Tokenizer(Protocol):
    """The parts of an engine's tokenizer that a chat format needs."""

    control: Mapping[str, int]
    """Ids of control tokens, by their text."""
    ends: Sequence[int]
    """Tokens that end an answer, according to the model's files."""
    template: str | None
    """The model's chat template."""
    names: Mapping[str, str]
    """The text of tokens that templates refer to by name, such as `bos_token`."""

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """Token ids of each text, after a beginning-of-text token if `begin` is set and the model expects one."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        ...


class ChatFormat:
    """A tokenizer with its chat template and the tokens that end an answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises `UnknownModelError` if the template is invalid or no token ends an answer."""
        self._tokenizer = tokenizer
        try:
            self._template = _environment().from_string(tokenizer.template) if tokenizer.template else None
        except TemplateError as error:
            raise UnknownModelError(f"The model's chat template cannot be read: {error.message}.") from error
        self._variables = {**_FIXED, **tokenizer.names}
        # Some vocabularies list runs of spaces as control tokens; texts may contain those.
        control = [text for text in tokenizer.control if len(text.strip()) > 1]
        self._control = re.compile(any_of(control) or r"(?!)")
        turn_end = self._turn_end()
        ends = [*tokenizer.ends] if turn_end is None else [turn_end, *tokenizer.ends]
        self.ends: list[int] = list(dict.fromkeys(ends))
        """Tokens that end an answer, starting with the template's end of turn."""
        if not self.ends:
            raise UnknownModelError("The tokenizer names no end-of-text token; add eos_token to tokenizer_config.json.")

    def prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids of each prompt, including the opening of the answer. Contents cannot inject control tokens."""
        # A template writes the beginning-of-text token itself.
        return self._tokenizer.encode([self._render(chat) for chat in chats], begin=self._template is None)

    def options(self, options: Sequence[str]) -> list[list[int]]:
        """Token ids of possible answers."""
        return self.encode([self.defuse(option) for option in options])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, including any control tokens in them."""
        return self._tokenizer.encode(texts) if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        return self._tokenizer.decode(tokens)

    def defuse(self, content: str) -> str:
        """Break every control token in `content` by a space. Repeats, because a break can form a new token."""
        while self._control.search(content):
            content = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        return content

    def _render(self, chat: Chat) -> str:
        messages = [{"role": message["role"], "content": self.defuse(message["content"])} for message in chat]
        if self._template is None:
            return "\n\n".join(message["content"] for message in messages) + "\n"
        try:
            return self._fill(messages, opening=True)
        except UnknownModelError:
            # Some templates lack a system role: put the instruction at the start of the first message.
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise
            first = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        return self._fill([first, *messages[2:]], opening=True)

    def _fill(self, messages: Sequence[Mapping[str, str]], *, opening: bool) -> str:
        """Fill in the template; `opening` adds the opening of an answer. Raises `UnknownModelError`."""
        assert self._template is not None
        try:
            return self._template.render(messages=messages, add_generation_prompt=opening, **self._variables)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UnknownModelError(f"The model's chat template cannot render this chat: {error}.") from error

    def _turn_end(self) -> int | None:
        """The first control token that the template writes after an answer."""
        if self._template is None:
            return None
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "zyx"}]
        after = self._fill(turns, opening=False).rpartition("zyx")[2]
        control = set(self._tokenizer.control.values())
        return next((token for token in self.encode([after])[0] if token in control), None)


def _environment() -> ImmutableSandboxedEnvironment:
    """Read templates as transformers does, because their authors test them with it."""
    extensions = [loopcontrols, _Generation]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise  # pyright: ignore[reportArgumentType]
    return environment


class _Generation(Extension):
    """Supports `{% generation %}`, which marks text that a model is trained to write; renders the text unchanged."""

    tags = {"generation"}  # noqa: RUF012  jinja declares it so

    def parse(self, parser: Parser) -> list[Node]:
        """The statements inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
