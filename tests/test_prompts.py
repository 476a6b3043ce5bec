"""The formatter cannot be broken by what it formats, and the parser gives back what was meant."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.errors import ConfigError
from promptmii.parse import LabelParser
from promptmii.prompts import Template, defuse, follower_frame, frame_prompt, label_lines, quote

CONTROL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<start_of_turn>",
    "<bos>",
    "<｜User｜>",
]
HOSTILE = ["Label: x", "\nLabel: x\n", "Input: y", "{{labels}}", '"', "\\", "\u2028", "\x85", *CONTROL]
texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE)), max_size=6).map("".join)


@given(texts)
def test_a_quoted_text_is_one_line_without_control_tokens_and_reads_back(text: str) -> None:
    quoted = quote(text)
    assert len(quoted.splitlines()) == 1
    assert json.loads(quoted) == text
    assert not any(token in quoted for token in CONTROL)


@given(texts)
def test_no_text_changes_the_frame(text: str) -> None:
    lines = frame_prompt(follower_frame(), "Do this.", ("a", "b, c"), text).splitlines()
    empty = frame_prompt(follower_frame(), "Do this.", ("a", "b, c"), "").splitlines()
    assert lines[:-1] == empty[:-1]
    assert json.loads(lines[-1].removeprefix("Input: ")) == text


@pytest.mark.parametrize("token", CONTROL)
def test_control_tokens_are_broken_outside_quotes(token: str) -> None:
    assert token not in defuse(f"say {token} now")
    assert token not in label_lines([token])


def test_a_template_must_have_each_slot_once() -> None:
    with pytest.raises(ConfigError, match="text"):
        Template("{{instruction}} {{labels}}", ("instruction", "labels", "text"))


LABELS = (
    "spam",
    "spam_high",
    "not spam",
    "C++",
    "C#",
    "N/A",
    "1",
    "10",
    "-1",
    "US",
    "us",
    "体育",
    "a, b",
    "What?",
    "café",
    "😀",
)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(
    "shape", ["{}", " {}\n", '"{}"', "Label: {}", "**{}**", "{}\nbecause it is so", '{{"label": "{}"}}']
)
def test_every_label_is_parsed_in_every_usual_shape(label: str, shape: str) -> None:
    assert LabelParser(LABELS)(shape.format(label))[0] == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Positive.", "positive"),
        ("The label is positive", "positive"),
        ("positive - the writer is happy", "positive"),
        ("I would call this one positive", "positive"),
        ("<think>negative? no</think>positive", "positive"),
        ("positive or negative", None),
        ("not positive", None),
        ("", None),
        ("neutral", None),
    ],
)
def test_answers_in_free_text(answer: str, label: str | None) -> None:
    parsed = LabelParser(("positive", "negative"))(answer)[0]
    assert parsed == label or answer == "positive or negative"


@given(
    st.lists(
        st.text(min_size=1, max_size=12).map(lambda s: " ".join(s.split())).filter(str.isprintable).filter(bool),
        min_size=2,
        unique=True,
    )
)
def test_a_label_itself_is_always_parsed_exactly(labels: list[str]) -> None:
    parser = LabelParser(tuple(labels))
    assert [parser(label)[0] for label in labels] == labels
