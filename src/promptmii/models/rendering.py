"""From a chat to the tokens of its prompt, exactly as the model's own template writes it."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from promptmii.errors import UnknownModelError
from promptmii.models.base import Chat


class ChatFormat:
    """A tokenizer with its chat template, and the tokens that close an answer."""

    def __init__(self, tokenizer: Any, configured: int | Sequence[int] | None) -> None:
        """`configured` are the end tokens of the model's generation configuration."""
        self._tokenizer = tokenizer
        names = sorted((str(name) for name in tokenizer.get_added_vocab()), key=len, reverse=True)
        # Some vocabularies add runs of spaces; only what can be taken for control is broken.
        control = [re.escape(name) for name in names if len(name.strip()) > 1]
        self._control = re.compile("|".join(control) or r"(?!)")
        listed = [configured] if isinstance(configured, int) else list(configured or ())
        ends = [self._turn_end(), tokenizer.eos_token_id, *listed]
        self.ends = list(dict.fromkeys(int(end) for end in ends if end is not None))
        """The end of a turn in the template first."""
        if not self.ends:
            raise UnknownModelError("The tokenizer names no end-of-text token; add eos_token to tokenizer_config.json.")

    def prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """Token ids, the opening of the answer included. Contents cannot bring in control tokens."""
        # A template writes the beginning-of-text token itself; without one the tokenizer adds it.
        return self.encode([self._render(chat) for chat in chats], special=self._tokenizer.chat_template is None)

    def options(self, options: Sequence[str]) -> list[list[int]]:
        """Token ids of possible answers."""
        return self.encode([self.defuse(option) for option in options])

    def encode(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """Token ids of texts as they are."""
        return self._tokenizer(list(texts), add_special_tokens=special)["input_ids"] if texts else []

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def defuse(self, content: str) -> str:
        """`content` with every control token broken by a space. Again, until none is left: a break can bare another."""
        while self._control.search(content):
            content = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        return content

    def _render(self, chat: Chat) -> str:
        messages = [{"role": message["role"], "content": self.defuse(message["content"])} for message in chat]
        if self._tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in messages) + "\n"
        try:
            return self._template(messages)
        except TemplateError:
            # Some templates know no system role: the instruction then opens the first message.
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise
            opened = messages[1] | {"content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            return self._template([opened, *messages[2:]])

    def _template(self, messages: Sequence[dict[str, str]], opening: bool = True) -> str:
        # Today's date and a chain of thought would make the prompt different from day to day, and a label unlikely.
        fixed = {"date_string": "26 Jul 2024", "enable_thinking": False}
        return self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opening, **fixed
        )

    def _turn_end(self) -> int | None:
        """The first control token after an answer in the template."""
        if self._tokenizer.chat_template is None:
            return None
        text = self._template(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "zyx"}], opening=False
        )
        after = self.encode([text.rpartition("zyx")[2]])[0]
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.get_added_vocab().values())
        return next((token for token in after if token in special), None)
