"""Lines that must stay do, whatever is written around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii import Example, MetaInducer, ScriptedModel, Support, Writer
from promptmii.errors import ConfigError
from promptmii.inducers import Keeping, marked_lines
from promptmii.inducers.fixed import with_lines

SUPPORT = Support(("delivery", "refund"), (Example("a refund", "refund"), Example("a delivery", "delivery")))
START = "Tickets of a shop.\nrefund: money back, never vouchers\ndelivery: parcels"
lines = st.lists(st.text("ab: -", min_size=1, max_size=5).filter(str.strip), max_size=5)


def test_a_kept_line_takes_the_place_of_the_one_about_the_same_label() -> None:
    model = ScriptedModel(reply=["Shop mails.\n- Refund: any money\ndelivery: late parcels"])
    kept = marked_lines(START, ["vouchers"])
    made = Keeping(MetaInducer(Writer(model, start=START)), kept).induce(SUPPORT)
    assert made.text == "Shop mails.\nrefund: money back, never vouchers\ndelivery: late parcels"
    assert "1 line kept as given" in made.provenance.notes
    assert START in model.calls[0][0]["content"], "the writer sees what it is to improve"


def test_a_kept_line_that_the_writer_dropped_is_added() -> None:
    assert with_lines("b: x", ["First.", "a: y"]) == "First.\na: y\nb: x"
    assert with_lines("A sentence.\nb: x", ["b: z", "Last."]) == "A sentence.\nb: z\nLast."


@given(lines, lines)
def test_every_kept_line_is_there_in_any_case(text: list[str], kept: list[str]) -> None:
    made = with_lines("\n".join(text), kept).splitlines()
    assert all(line in made for line in kept)
    assert [line for line in made if line not in kept and line not in text] == []


def test_a_mark_that_no_line_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"contains 'voucherz' .--keep"):
        marked_lines(START, ["voucherz"])
