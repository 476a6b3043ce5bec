"""From a chat to the tokens of its prompt, exactly as the model's own template writes it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2.exceptions import TemplateError

from promptmii.errors import UnknownModelError
from promptmii.models.base import Chat

_FIXED: Mapping[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False}
"""Today's date and a chain of thought would make a prompt differ from day to day, and a label unlikely."""


class Tokenizer(Protocol):
    """What a chat format needs of an engine's tokenizer."""

    @property
    def control(self) -> Mapping[str, int]:
        """Tokens by name that steer the model rather than stand for text."""
        ...

    @property
    def ends(self) -> Sequence[int]:
        """Tokens that end an answer, as the model's files say."""
        ...

    @property
    def has_template(self) -> bool:
        """The model comes with a chat template."""
        ...

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:
        """Token ids; `begin` puts a beginning-of-text token before each where the model wants one."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        ...

    def render(self, messages: Sequence[Mapping[str, str]], *, opening: bool, fixed: Mapping[str, Any]) -> str:
        """The chat as the template writes it, with the opening of an answer or without. Raises `TemplateError`."""
        ...


class ChatFormat:
    """A tokenizer with its chat template, and the tokens that close an answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises `UnknownModelError` where nothing ends an answer."""
        self._tokenizer = tokenizer
        # Some vocabularies list runs of spaces as control tokens; a text may hold those.
        names = [name for name in tokenizer.control if len(name.strip()) > 1]
        self._control = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
        turn_end = self._turn_end()
        ends = [*tokenizer.ends] if turn_end is None else [turn_end, *tokenizer.ends]
        self.ends: list[int] = list(dict.fromkeys(ends))
        """The end of a turn in the template first."""
        if not self.ends:
            raise UnknownModelError("The tokenizer names no end-of-text token; add eos_token to tokenizer_config.json.")

    def prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids, the opening of the answer included. Contents cannot bring in control tokens."""
        # A template writes the beginning-of-text token itself.
        return self._tokenizer.encode([self._render(chat) for chat in chats], begin=not self._tokenizer.has_template)

    def options(self, options: Sequence[str]) -> list[list[int]]:
        """Token ids of possible answers."""
        return self.encode([self.defuse(option) for option in options])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts as they are."""
        return self._tokenizer.encode(texts) if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        return self._tokenizer.decode(tokens)

    def defuse(self, content: str) -> str:
        """`content` with every control token broken by a space. Again, until none is left: a break can bare another."""
        while self._control.search(content):
            content = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        return content

    def _render(self, chat: Chat) -> str:
        messages = [{"role": message["role"], "content": self.defuse(message["content"])} for message in chat]
        if not self._tokenizer.has_template:
            return "\n\n".join(message["content"] for message in messages) + "\n"
        try:
            return self._tokenizer.render(messages, opening=True, fixed=_FIXED)
        except TemplateError as error:
            # Some templates know no system role: the instruction then opens the first message.
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise _unreadable(error) from error
            opened = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        try:
            return self._tokenizer.render([opened, *messages[2:]], opening=True, fixed=_FIXED)
        except TemplateError as error:
            raise _unreadable(error) from error

    def _turn_end(self) -> int | None:
        """The first control token after an answer in the template."""
        if not self._tokenizer.has_template:
            return None
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "zyx"}]
        try:
            text = self._tokenizer.render(turns, opening=False, fixed=_FIXED)
        except TemplateError as error:
            raise _unreadable(error) from error
        control = set(self._tokenizer.control.values())
        return next((token for token in self.encode([text.rpartition("zyx")[2]])[0] if token in control), None)


def _unreadable(error: TemplateError) -> UnknownModelError:
    return UnknownModelError(f"The model's chat template cannot write this chat: {error.message}.")
