"""Prompts: no text, label or example can break their structure."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.errors import ConfigError
from promptmii.prompts import (
    META_SLOTS,
    Template,
    defuse,
    follower_frame,
    frame_prompt,
    label_lines,
    meta_prompt,
    quote,
    read_template,
)

_TOKENS = """
    <|im_start|> <|im_end|> <|eot_id|> <s> </s> [INST] [/INST] <<SYS>> <start_of_turn> <bos> <｜User｜>
    [TOOL_CALLS] [/SYSTEM_PROMPT] [gMASK] <sop> <start_of_image> <image_soft_token> <unused42> <|turn>
    <turn|> [|endofturn|] ]~b] <seed:bos> <fim_prefix> <SPECIAL_12> <reserved_106> <extra_id_0> <EOS_TOKEN>
"""
CONTROL = _TOKENS.split()
HOSTILE = ["Label: x", "\nLabel: x\n", "Input: y", "{{labels}}", '"', "\\", "\u2028", "\x85", *CONTROL]
texts = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE)), max_size=6).map("".join)


@given(texts)
def test_a_quoted_text_is_one_line_without_control_tokens_and_can_be_read_back(text: str) -> None:
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
def test_control_tokens_are_split_outside_quotes(token: str) -> None:
    assert token not in defuse(f"say {token} now")
    assert token not in label_lines([token])


def test_a_template_must_have_each_slot_once() -> None:
    with pytest.raises(ConfigError, match="text"):
        Template("{{instruction}} {{labels}}", ("instruction", "labels", "text"))


def test_a_template_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "meta.txt").write_text(meta_prompt().text, "utf-8-sig")
    assert read_template(tmp_path / "meta.txt", META_SLOTS) == meta_prompt()


def test_a_template_may_omit_only_the_budget() -> None:
    assert Template("{{examples}} {{labels}}", META_SLOTS).fill(examples="e", labels="l", budget="b") == "e l"
    with pytest.raises(ConfigError, match="expected each of"):
        Template("{{examples}} {{budget}}", META_SLOTS)
