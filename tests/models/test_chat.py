"""Chat templates that cannot be used."""

from collections.abc import Mapping, Sequence

import pytest

from promptmii.errors import UnknownModelError
from promptmii.models.chat import ChatFormat, Tokenizer


class Characters(Tokenizer):
    """Characters are tokens; `template` is the chat template."""

    def __init__(self, template: str) -> None:
        self.control: Mapping[str, int] = {}
        self.ends: Sequence[int] = [1]
        self.template = template
        self.names: Mapping[str, str] = {}

    def encode(self, texts: Sequence[str], *, begin: bool = False) -> list[list[int]]:  # noqa: ARG002
        return [[*map(ord, text)] for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


@pytest.mark.parametrize("template", ["{{ messages[0].content + 3 }}", "{{ messages[9].content }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_one_message(template: str) -> None:
    with pytest.raises(UnknownModelError, match=r"chat template cannot render this chat: .+[^.]\.$"):
        ChatFormat(Characters(template))
