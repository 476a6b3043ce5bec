"""`Keeping` and the `--keep` option: marked lines stay in the instruction, whatever the generator writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, MetaInducer, ScriptedModel, Support, Writer
from promptmii.errors import ConfigError
from promptmii.inducers import Keeping, marked_lines
from promptmii.inducers.keeping import with_lines

SUPPORT = Support(("delivery", "refund"), (Example("a refund", "refund"), Example("a delivery", "delivery")))
START = "Tickets of a shop.\nrefund: money back, never vouchers\ndelivery: parcels"
KEPT = "refund: money back, never vouchers"
lines = st.lists(st.text("ab: -", min_size=1, max_size=5).filter(str.strip), max_size=5)


def test_a_kept_line_replaces_the_line_about_the_same_label() -> None:
    model = ScriptedModel(reply=["Shop mails.\n- Refund: any money\ndelivery: late parcels"])
    kept = marked_lines(START, ["vouchers"])
    instruction = Keeping(MetaInducer(Writer(model, start=START)), kept).induce(SUPPORT)
    assert instruction.text == "Shop mails.\nrefund: money back, never vouchers\ndelivery: late parcels"
    assert "1 line kept as given" in instruction.provenance.notes
    assert START in model.calls[0][0]["content"], "the generator sees the text to improve"


def test_a_kept_line_that_the_generator_dropped_is_added() -> None:
    assert with_lines("b: x", ["First.", "a: y"]) == "First.\na: y\nb: x"
    assert with_lines("A sentence.\nb: x", ["b: z", "Last."]) == "A sentence.\nb: z\nLast."
    assert with_lines("• b: x", ["b: z"]) == "b: z"
    assert with_lines("一句话。\n退款：钱", ["退款：退钱，不给券"]) == "一句话。\n退款：退钱，不给券"


@given(lines, lines)
def test_the_merged_text_contains_every_kept_line(text: list[str], kept: list[str]) -> None:
    merged = with_lines("\n".join(text), kept).splitlines()
    assert all(line in merged for line in kept)
    assert [line for line in merged if line not in kept and line not in text] == []


@pytest.mark.parametrize(
    ("budget", "draft", "text", "note"),
    [
        (15, "Shop mails today.\nrefund: x\ndelivery: " + "late " * 9, f"Shop mails today.\n{KEPT}", "trimmed to the"),
        (15, "word " * 40, f"{KEPT}\n" + "word " * 8 + "word", "trimmed to the"),
        (7, "word " * 40, f"{KEPT}\nword", "trimmed to the"),
        (4, "word\n" * 9, KEPT, "over the"),
    ],
)
def test_kept_lines_count_towards_the_budget(budget: int, draft: str, text: str, note: str) -> None:
    writer = Writer(ScriptedModel(reply=[draft]), budget=budget, start=START)
    instruction = Keeping(MetaInducer(writer), marked_lines(START, ["vouchers"])).induce(SUPPORT)
    assert instruction.text == text
    assert any(line.startswith(f"{note} budget of {budget} tokens") for line in instruction.provenance.notes)


@pytest.mark.parametrize(
    ("mark", "words"),
    [("voucherz", "contains 'voucherz' .--keep"), ("", "keeps every line"), (" ", "keeps every line")],
)
def test_a_mark_in_no_line_or_without_words_is_refused(mark: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        marked_lines(START, [mark])
