"""Instructions extended with new labels."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.workbench.keyword import keyword

import promptmii
from promptmii import Example, Follower, Instruction, ScriptedModel, Support
from promptmii.errors import ConfigError, DataError, EndpointError
from promptmii.models.base import Failure, FailureKind
from promptmii.workbench.edit import NO_OLD_ROWS, extend

LABELS = ("delivery", "refund")
OLD = [Example(f"a {label} {i}", label) for i in range(10) for label in LABELS]
NEW = [Example(f"a billing {i}", "billing") for i in range(6)]
TEXT = "Tickets of a shop.\n- refund: money\n- delivery: parcels "


def made() -> Instruction:
    support = Support(LABELS, tuple(OLD[:6]))
    plain = Instruction(text=TEXT, labels=LABELS, method="mii")
    return Follower(ScriptedModel(score=keyword), "choose", "support").prepare(plain, support)


def model(reply: str | Failure = "**Billing:** the invoice is wrong\nand more") -> ScriptedModel:
    return ScriptedModel([reply], keyword)


def test_old_lines_stay_and_new_lines_have_their_style() -> None:
    follower, kept = model(), list[Instruction]()
    extended = extend(made(), NEW, follower, old=OLD, keep=kept.append)
    assert extended.instruction.text == TEXT + "\n- billing: the invoice is wrong"
    assert extended.instruction.labels == (*LABELS, "billing")
    assert extended.new_labels == ("billing",)
    request = follower.calls[0][0]["content"]
    assert TEXT.strip() in request
    assert request.count("a billing") == 3, "half of the new rows write, the other half measure"
    assert kept[0].text == extended.instruction.text
    assert kept[0].measured is None
    assert extended.instruction.is_calibrated
    assert extended.instruction.calibration_cost.calls == 6 + 3


def test_before_and_after_are_measured_and_old_labels_separately() -> None:
    extended = extend(made(), NEW, model(), old=OLD)
    after, before = extended.comparison.rows
    assert (after.macro_f1, before.macro_f1) == (1.0, pytest.approx(2 / 3, abs=0.15))
    assert {row.text for row in after.scored.query}.isdisjoint(row.text for row in OLD[:6])
    assert extended.old_labels is not None
    assert extended.old_labels.mean == pytest.approx(0, abs=0.2)


def test_the_instruction_may_be_a_file(tmp_path: Path) -> None:
    path = made().save(tmp_path / "made.json")
    extended = promptmii.extend(path, NEW, model(), old=OLD)
    assert isinstance(extended, promptmii.Extended)
    assert extended.new_labels == ("billing",)
    assert Instruction.load(path) == made()


def test_without_old_rows_nothing_is_calibrated() -> None:
    extended = extend(made(), NEW, model())
    assert extended.instruction.calibration is None
    assert NO_OLD_ROWS in extended.instruction.provenance.notes
    assert extended.old_labels is None


def test_a_label_in_another_spelling_is_not_new() -> None:
    rows = [*NEW, Example("where is it", "Delivery"), Example("still not here", "DELIVERY")]
    extended = extend(made(), rows, model())
    assert extended.instruction.labels == (*LABELS, "billing")
    with pytest.raises(ConfigError, match="no label that the instruction lacks"):
        extend(made(), rows[-2:], model())


def test_a_missing_line_is_an_error() -> None:
    for reply in ("", Failure(FailureKind.TIMEOUT, "slow")):
        with pytest.raises(EndpointError):
            extend(made(), NEW, model(reply))


def test_a_line_that_is_cut_is_noted() -> None:
    long = " ".join(["invoices"] * 200)
    for reply, cut in ((f"billing: {long}", True), (f"billing: invoices\n{long}", False)):
        notes = extend(made(), NEW, model(reply)).instruction.provenance.notes
        assert any("the line of billing is cut at 120 tokens" in note for note in notes) == cut


def test_an_extended_instruction_can_be_saved_and_loaded(tmp_path) -> None:
    extended = extend(made(), [replace(row, label="new: label") for row in NEW], model("words"), old=OLD)
    assert extended.instruction.text.endswith("- new: label: words")
    loaded = Instruction.load(extended.instruction.save(tmp_path / "a.json"))
    assert loaded == extended.instruction


def test_rows_with_several_labels_and_repeated_headers_name_no_label() -> None:
    rows = [{"text": row.text, "label": [row.label]} for row in NEW]
    rows += [{"text": "two at once", "label": ["billing", "login"]}, {"text": "text", "label": "label"}]
    assert extend(made(), rows, model()).new_labels == ("billing",)


def test_a_row_in_both_tables_has_its_new_label() -> None:
    relabelled = [Example(row.text, "billing") for row in OLD[:4] + OLD[12:16]]
    extended = extend(made(), relabelled, model(), old=OLD)
    measured = {row.text: row.label for row in extended.comparison.rows[0].scored.query}
    assert {measured.get(row.text, "billing") for row in relabelled} == {"billing"}


def test_a_new_label_without_a_usable_row_is_refused_before_any_call() -> None:
    follower = model()
    rows = [*NEW, Example("both", "login"), Example("both", "billing")]
    with pytest.raises(DataError, match="shows login: each was empty or contradicted"):
        extend(made(), rows, follower)
    assert not follower.calls


def test_rows_that_leave_none_to_measure_on_are_refused_before_any_call() -> None:
    follower = model()
    with pytest.raises(DataError, match="is left to measure on: the new lines are written from all"):
        extend(made(), NEW[:1], follower)
    assert not follower.calls
    assert extend(made(), NEW[:1], follower, old=OLD).new_labels == ("billing",)


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ('**Billing:** "late" invoices', '"late" invoices'),
        ("billing：发票有错", "发票有错"),
        ("Billing: ¿y mi factura?", "¿y mi factura?"),
    ],
)
def test_a_line_keeps_its_own_punctuation(reply: str, line: str) -> None:
    assert extend(made(), NEW, model(reply)).instruction.text == f"{TEXT}\n- billing: {line}"
