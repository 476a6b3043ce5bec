"""A draft is taken out of what chat models put around it, and loses items that it lists twice; faults are noted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, MetaInducer, ScriptedModel, Support, Writer
from promptmii.inducers.drafts import drop_repeated_items, line_notes
from promptmii.styles import Style

ITEMS = st.lists(st.sampled_from(["routes", "codes", "a sign", "the flight plan"]), min_size=1, max_size=8)
TEXT = "Decide on the topic.\n\nbilling: money."
SUPPORT = Support(("billing", "other"), (Example("pay me", "billing"), Example("hello", "other")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "6: Meals, drinks, snacks, drinks, drinks and drinks, in first class.",
            "6: Meals, drinks and snacks, in first class.",
        ),
        ("Broken, faulty, broken or not working.", "Broken, faulty or not working."),
        ("Stories, panels, panels, panels and panels", "Stories and panels"),
        ("Distance, flight times, travel times and stops.", "Distance, flight times, travel times and stops."),
        ("a: Codes and signs.\nb: Codes and signs.\n", "a: Codes and signs.\nb: Codes and signs.\n"),
        ("Black and white, black and white photos.", "Black and white, black and white photos."),
        ("Tea and milk, tea or rum, tea and milk.", "Tea and milk, tea or rum."),
        ("Refunds. Cards and refunds.", "Refunds. Cards and refunds."),
        ("", ""),
    ],
)
def test_a_sentence_lists_each_item_once(text: str, expected: str) -> None:
    assert drop_repeated_items(text) == expected


@given(ITEMS, st.sampled_from([", ", " and ", " or "]))
def test_every_item_stays_in_order(items: list[str], last: str) -> None:
    head = ", ".join(items[:-1])
    text = (head + last if head else "") + items[-1] + "."
    result = drop_repeated_items(text)
    assert drop_repeated_items(result) == result
    assert re.split(", | and | or ", result.rstrip(".")) == list(dict.fromkeys(items))


def test_a_note_names_labels_with_the_same_description() -> None:
    text = "Questions.\n- 9: Flights.\n- 10: Codes.\n- 11: flights.\nnote: Flights."
    assert line_notes(text, ("9", "10", "11")) == ("same description for the labels 9, 11",)
    assert line_notes("9: Flights.\n10: Codes.\n9: Flights.", ("9", "10")) == ()
    assert line_notes("甲：航班\n乙：航班", ("甲", "乙")) == ("same description for the labels 甲, 乙",)
    assert line_notes("1. **a**: x\n2. **b**: x", ("a", "b")) == ("same description for the labels a, b",)


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("Mails.\nbilling: money\ndelivery: parcels", ("no line for: defect, refund",)),
        ("1. **Billing**: money\n2. Delivery: parcels\n3. refund - returns", ("no line for: defect",)),
        ("billing: money\ndelivery: parcels, never a refund\nDefect\nparts", ("no line for: refund",)),
        ("billing: money\ndelivery: parcels\ndefect or refund: broken", ()),
        ("billing: money", ()),
        ("A mail about billing, delivery or a defect.", ()),
        ("", ()),
    ],
)
def test_a_note_names_labels_without_a_line_if_most_have_one(text: str, notes: tuple[str, ...]) -> None:
    assert line_notes(text, ("billing", "delivery", "defect", "refund")) == notes


def test_a_style_can_turn_off_dropping_repeated_items() -> None:
    written = "Things. a: Cats, dogs and cats. b: Cars."
    support = Support(("a", "b"), (Example("my cat", "a"), Example("my car", "b")))
    ours, faithful = (
        MetaInducer(Writer(ScriptedModel(reply=[written]), style)).induce(support).text
        for style in (Style(), Style(listed_once=False))
    )
    assert ours == "Things. a: Cats and dogs. b: Cars."
    assert faithful == written


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
        f"**Final Instruction:**\n\n{TEXT}",
        f"<final_instruction>\n{TEXT}\n</final_instruction>",
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
