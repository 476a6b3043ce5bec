"""An instruction and texts that break careless quoting."""

from promptmii import Instruction
from promptmii.instruction import Calibration

PIECES = [
    '"',
    "'",
    '"""',
    "'''",
    "\\",
    "\\n",
    "\n",
    "\r\n",
    "\t",
    "\u2028",
    "\x85",
    "{",
    "}",
    "{{text}}",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{# #}",
    "{text}",
    "$text ${text} %s",
    "<|im_end|>",
    "</s>",
    "[INST]",
    "]~b]",
    "<ſ>",
    "Input: x",
    "# -*- coding: ascii -*-",
    "\u202e",
    "日本 😀 é",
]
INSTRUCTION = Instruction(
    text="".join(PIECES),
    labels=('say "hi"', "it's {{x}}", "日本\\n", "B"),
    method="human",
    follower="openai:m\n'''\"\"\"",
    mode="choose",
    calibration=Calibration(kind="support", scale=(1, 1, 2, 1), offset=(0, 1, -0.5, 0)),
)
TEXTS = ["".join(PIECES), "plain", *PIECES]
