"""Reasoning models think aloud before they answer. What they think is neither a label nor an instruction."""

import re

_NAME = r"(?:\w+[:_-])*(?:\w*(?:think|thought|reason|reflect)\w*|analysis|scratchpad|rationale|inner_monologue)"
_OPEN = re.compile(rf"<\|?{_NAME}(?:\s[^<>]*)?\|?>|\[THINK\]|◁think▷|<\|channel>thought", re.IGNORECASE)
_CLOSE = re.compile(
    rf"</{_NAME}\s*>|<\|/{_NAME}\|>|<\|end_(?:of_)?(?:thinking|thought|think|reasoning)\|>|\[/THINK\]|◁/think▷|<channel\|>",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"(?:{_OPEN.pattern}).*?(?:{_CLOSE.pattern})", re.IGNORECASE | re.DOTALL)

# gpt-oss writes channels ("harmony"); a tokenizer that drops control tokens leaves their names glued to the text.
_CHANNEL = re.compile(r"<\|channel\|>|<\|message\|>|\A(?:analysis|commentary)(?=[A-Z])")
_FINAL = re.compile(r"(?:<\|channel\|>)?\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|assistant\s*final")
_END = re.compile(r"<\|(?:return|end|call|start)\|>.*", re.DOTALL)


def without_thought(text: str) -> str | None:
    """What a model said after thinking; `None` if it was still thinking when it stopped."""
    if _CHANNEL.search(text):
        finals = list(_FINAL.finditer(text))
        return _END.sub("", text[finals[-1].end() :]).strip() if finals else None
    text = _PAIR.sub("", text)
    closings = list(_CLOSE.finditer(text))  # some chat templates put the opening tag into the prompt
    if closings:
        text = text[closings[-1].end() :]
    return None if _OPEN.search(text) else text.strip()
