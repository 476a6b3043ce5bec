"""An instruction is taken out of what chat models put around it, and stays as it is otherwise."""

import pytest

from promptmii import Example, MetaInducer, ScriptedModel, Support, Writer

TEXT = "Decide on the topic.\n\nbilling: money."
SUPPORT = Support(("billing", "other"), (Example("pay me", "billing"), Example("hello", "other")))


def instruction(answer: str) -> str:
    return MetaInducer(Writer(ScriptedModel(reply=[answer]))).induce(SUPPORT).text


@pytest.mark.parametrize(
    "answer",
    [
        f"```\n{TEXT}\n```",
        f"~~~markdown\n{TEXT}\n~~~\n",
        f"Sure! Here is the instruction:\n\n{TEXT}",
        f"Sure!\n\n```\n{TEXT}\n```",
        f"<response>{TEXT}</response>",
        f"Here's a concise classification prompt for the assistant:\n```text\n{TEXT}\n```",
        f"Certainly. Below is the revised instruction:\n{TEXT}",
        f"**Instruction:**\n{TEXT}",
        f"## Instruction\n\n{TEXT}",
        f"<instruction>\n{TEXT}\n</instruction>",
        f"<answer>{TEXT}</answer>",
        f'"{TEXT}"',
        f"“{TEXT}”\n",
    ],
)
def test_what_stands_around_an_instruction_is_dropped(answer: str) -> None:
    assert instruction(answer) == TEXT


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        f"```\n{TEXT}",
        "```\na\n```\nor\n```\nb\n```",
        f"Instructions for the support desk.\n{TEXT}",
        f"Here is what the labels mean:\n{TEXT}",
        f"Here is the instruction. If in doubt, choose other:\n{TEXT}",
        "Here is the instruction: choose the topic.",
        '"billing" is about money, and the rest is "other"',
        f"<billing>{TEXT}</billing>",
    ],
)
def test_any_other_instruction_stays_as_it_is(answer: str) -> None:
    assert instruction(answer) == answer
