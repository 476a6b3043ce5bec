"""Edited instructions, measured before and after."""

from pathlib import Path

import pytest
from tests.workbench.test_compare import LABELS, ROWS, made, obedient

import promptmii
from promptmii import Example, Instruction, MetaInducer, Naive, ScriptedModel, Support, Writer
from promptmii.errors import ConfigError, DataError
from promptmii.workbench.edit import rows_for, with_text


def test_before_and_after_are_calibrated_on_the_rows_of_the_instruction() -> None:
    before = made(8)
    assert not with_text(before, "always refund, always delivery").is_calibrated
    comparison = promptmii.edit(before, "always refund, always delivery", ROWS, ScriptedModel(score=obedient))
    new, old = comparison.rows
    assert (new.name, old.name) == ("after", "before")
    assert new.instruction.is_calibrated
    assert new.instruction.calibration_cost.calls == 8
    assert old.instruction.calibration == before.calibration
    assert new.scored.n == 16
    assert comparison.differences["before"].mean < 0
    assert "edited by hand" in new.instruction.provenance.notes


def test_edit_reads_an_instruction_file_and_writes_none(tmp_path: Path) -> None:
    path = made(8).save(tmp_path / "made.json")
    before = path.read_bytes()
    comparison = promptmii.edit(path, "always refund, always delivery", ROWS, ScriptedModel(score=obedient))
    assert [row.name for row in comparison.rows] == ["after", "before"]
    assert comparison.rows[0].instruction.text == "always refund, always delivery"
    assert comparison.rows[0].instruction.measured is not None
    assert path.read_bytes() == before


def test_an_edit_keeps_the_kind_of_calibration(tmp_path) -> None:
    before = made(8)
    assert before.calibration is not None
    kind = before.calibration.model_copy(update={"kind": "supervised"})
    supervised = before.model_copy(update={"calibration": kind})
    comparison = promptmii.edit(supervised, "Look for it.", ROWS, ScriptedModel(score=obedient))
    assert comparison.rows[0].instruction.calibration is not None
    assert comparison.rows[0].instruction.calibration.kind == "supervised"
    plain = made(8).model_copy(update={"calibration": None})
    comparison = promptmii.edit(plain, "Look for it.", ROWS, ScriptedModel(score=obedient))
    assert comparison.rows[0].instruction.calibration is None, "it had none, so the edited one gets none"
    after = with_text(supervised, "Look for it.")
    assert Instruction.load(after.save(tmp_path / "a.json")).calibration is None


def test_an_edited_text_gets_notes_on_its_own_lines() -> None:
    support = Support(("a", "b", "c:d"), (Example("my cat", "a"), Example("my car", "b")))
    written = MetaInducer(Writer(ScriptedModel(reply=["a: cats\nb: cars"]))).induce(support)
    assert written.provenance.notes == ("no line for: c:d",)
    edited = with_text(written, f"{written.text}\nc:d: cars")
    assert edited.provenance.notes == ("same description for the labels b, c:d", "edited by hand")


def test_examples_are_drawn_if_the_table_has_no_rows_of_the_instruction() -> None:
    rows = [{"text": f"other {label} {i}", "label": label} for i in range(20) for label in LABELS]
    comparison = promptmii.edit(made(8), "Look for it.", rows, ScriptedModel(score=obedient))
    assert comparison.rows[0].instruction.is_calibrated
    assert comparison.rows[0].scored.n == 40 - 20


def test_invalid_edits_are_refused() -> None:
    with pytest.raises(DataError, match="edited text is empty"):
        with_text(made(4), " \n")
    plain = Naive().induce(Support(LABELS, (Example("a", "refund"),)))
    with pytest.raises(ConfigError, match="it names none that it was made from") as refused:
        rows_for(plain)
    assert refused.value.__cause__ is None, "the current folder, which may hold a dataset, is not read"
    gone = plain.provenance.model_copy(update={"source": "gone.csv"})
    with pytest.raises(ConfigError, match=r"made from, gone\.csv, cannot be read"):
        rows_for(plain.model_copy(update={"provenance": gone}))
