"""Takes an instruction out of what chat models put around it: an introduction, a code fence, a tag or quotes."""

import re

LONGEST_INTRODUCTION = 120
"""In characters."""
_NAME = r"(?:(?:the|your|a|an|my) )?(?:[\w-]+ ){0,3}(?:instructions?|prompt|guidelines?|guide)\b"
_INTRODUCTION = re.compile(
    r"(?:(?:sure|certainly|of course|okay|ok|absolutely)\b\W*)?"
    rf"(?:here(?:['’]s| is| are)|below (?:is|are)) {_NAME}[^:;.!?]*:\W*"
    r"|[#*\s]*(?:instructions?|prompt)[:*\s]*|(?:sure|certainly|of course)\W*",
    re.IGNORECASE,
)
"""A first line such as "Sure! Here is the instruction:" or "**Instruction:**"; one of two sentences may hold a rule."""
_WRAPPED = (
    re.compile(r"(```|~~~)[\w-]*[ \t]*\n(?P<text>(?:(?!\1).)*)\1", re.DOTALL),
    re.compile(
        r"<(answer|instructions?|prompt|output|response|final)>(?P<text>(?:(?!</?\1>).)*)</\1>",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r'["“](?P<text>[^"“”]*)["”]'),
)


def unwrapped(answer: str) -> str:
    """The instruction alone, if all of the answer is around it; any other answer without white space at its ends."""
    text = answer.strip()
    first, _, rest = text.partition("\n")
    if rest and len(first) <= LONGEST_INTRODUCTION and _INTRODUCTION.fullmatch(first):
        text = rest.strip()
    for pattern in _WRAPPED:
        if wrapped := pattern.fullmatch(text):
            text = wrapped["text"].strip()
    return text
