"""Scoring and recalibration on the rows of a table."""

import pytest
from tests.workbench.keyword import keyword

from promptmii import Example, Follower, Instruction, Naive, ScriptedModel, Support, workbench
from promptmii.config import Columns
from promptmii.errors import DataError, ScoreRefusedError, UnsupportedError
from promptmii.instruction import CalibrationKind
from promptmii.models.base import Failure, FailureKind


def test_rows_are_read_with_the_columns_of_the_instruction() -> None:
    def last(chat, option):
        return float(option in chat[-1]["content"].rpartition("||")[2])

    rows = [
        {"a": f"delivery or refund {i}", "b": label, "c": label} for i in range(3) for label in ("delivery", "refund")
    ]
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    provenance = instruction.provenance.model_copy(
        update={"text_template": "{a} || {b}", "text_columns": ("a", "b"), "label_column": "c"}
    )
    made = instruction.model_copy(update={"provenance": provenance})
    scored = workbench.score(made, rows, Follower(ScriptedModel(score=last))).scored
    assert scored.macro_f1 == 1.0
    other = [{"message": row["b"], "kind": row["c"]} for row in rows] + [{"message": "x", "kind": "unknown"}] * 2
    measured = workbench.score(made, other, Follower(ScriptedModel(score=keyword)))
    scored, notes = measured.scored, measured.notes
    assert scored.n == 6 - 4  # equal rows count once
    assert any("kind" in note for note in notes)
    assert any("unknown" in note or "2" in note for note in notes)


def test_rows_of_the_instruction_do_not_measure_it() -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    support = Support(("delivery", "refund"), tuple(Example(row["text"], row["label"]) for row in rows[:6]))
    follower = Follower(ScriptedModel(score=keyword))
    made = follower.prepare(Naive().induce(support), support)
    measured = workbench.score(made, rows, follower)
    scored, notes = measured.scored, measured.notes
    assert [example.text for example in scored.query] == ["a delivery 3", "a refund 3"]
    assert any("6 rows left out" in note for note in notes)
    with pytest.raises(DataError, match="made from or calibrated on all of these rows"):
        workbench.score(made, rows[:6], follower)


def test_an_edited_instruction_can_be_recalibrated(tmp_path) -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    support = Support(("delivery", "refund"), tuple(Example(row["text"], row["label"]) for row in rows[:2]))
    follower = Follower(ScriptedModel(score=keyword), "choose", "support")
    made = follower.prepare(Naive().induce(support), support)
    path = made.model_copy(update={"text": "Decide."}).save(tmp_path / "edited.json")
    edited = Instruction.load(path)
    assert edited.calibration is None
    fitted, _ = workbench.recalibrate(edited, rows[2:], follower, Columns())
    assert fitted.is_calibrated
    assert fitted.calibration_cost.calls == 6
    assert fitted.provenance.notes == ()
    assert len(fitted.provenance.support_rows) == 8
    assert Instruction.load(fitted.save(path, force=True)) == fitted


def test_a_batch_calibration_is_named_beside_its_score() -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    batch = Follower(ScriptedModel(score=keyword), "choose", "batch")
    made = Naive().induce(Support(("delivery", "refund"), ()))
    scored = workbench.score(made, rows, batch).instruction
    assert "calibration batch" in scored.export("python")
    again = workbench.score(scored, rows, Follower(ScriptedModel(score=keyword))).instruction
    assert "calibration none" in again.export("python")


def test_a_follower_without_likelihoods_is_not_calibrated() -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    made = Naive().induce(Support(("delivery", "refund"), ()))
    writes = Follower(ScriptedModel(["refund"]), "generate")
    with pytest.raises(UnsupportedError, match="needs likelihoods, and scripted gives none in mode generate"):
        workbench.recalibrate(made, rows, writes, Columns())
    assert workbench.recalibrate(made, rows, writes, Columns(), "none")[0].calibration is None
    measured = workbench.score(made, rows, writes, refit=rows)
    assert measured.scored.n == 8
    assert measured.notes[-1] == "nothing is fitted: scripted gives no likelihoods in mode generate"


def test_rows_that_calibrate_nothing_may_still_measure() -> None:
    rows = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
    made = Naive().induce(Support(("delivery", "refund"), ()))
    writes, compares = Follower(ScriptedModel(["refund"]), "generate"), Follower(ScriptedModel(score=keyword))
    unfitted: list[tuple[Follower, CalibrationKind]] = [(writes, "none"), (compares, "none"), (compares, "contextual")]
    for follower, kind in unfitted:
        fitted, _ = workbench.recalibrate(made, rows, follower, Columns(), kind)
        assert workbench.score(fitted, rows, follower).scored.n == 8
    fitted, _ = workbench.recalibrate(made, rows, compares, Columns(), "support")
    with pytest.raises(DataError, match="made from or calibrated on all of these rows"):
        workbench.score(fitted, rows, compares)


def test_a_label_that_only_the_rows_have_is_in_the_tables() -> None:
    made = Naive().induce(Support(("delivery", "refund"), ()))
    rows = [("a delivery", "delivery"), ("a refund", "refund"), ("a delivery of praise", "praise")]
    columns = Columns(labels=("delivery", "refund", "praise"))
    result = workbench.score(made, rows, Follower(ScriptedModel(score=keyword)), columns).as_json()
    assert [(row["label"], row["support"]) for row in result["labels"]] == [
        ("delivery", 1),
        ("refund", 1),
        ("praise", 1),
    ]
    assert result["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]


def test_score_and_compare_warn_alike_of_labels_that_no_instruction_knows() -> None:
    made, model = Naive().induce(Support(("delivery", "refund"), ())), ScriptedModel(score=keyword)
    rows = [("a delivery", "delivery"), ("a refund", "refund"), ("good", "praise"), ("very good", "praise")]
    result, comparison = workbench.score(made, rows, model), workbench.compare([made, "Decide it."], rows, model)
    lacking = {note.partition(" (")[0] for note in (*result.notes, *comparison.notes) if "'praise'" in note}
    dropped = "Warning: 2 rows dropped: a label that"
    assert lacking == {f"{dropped} the instruction does not know", f"{dropped} no instruction knows"}
    assert result.scored.n == comparison.rows[0].scored.n == 2
    listed = workbench.score(made, rows, model, Columns(labels=("delivery", "refund"))).notes
    assert any(note.startswith("2 rows dropped: a label outside the given list") for note in listed)


def test_labels_are_recognized_in_every_spelling() -> None:
    made = Naive().induce(Support(("0", "1", "refund"), ()))
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(["0.0", "1.0", " Refund", "REFUND"])]
    measured = workbench.score(made, rows, Follower(ScriptedModel(score=keyword)))
    scored, notes = measured.scored, measured.notes
    assert sorted(scored.gold) == ["0", "1", "refund", "refund"]
    assert any("are one: '0' (also '0.0')" in note for note in notes)
    with pytest.raises(DataError, match=r"that the instruction does not know.*The column holds 'x', 'y'"):
        workbench.score(made, [("a", "x"), ("b", "y")], Follower(ScriptedModel(score=keyword)))


def test_a_failed_call_fails_its_row_and_refuses_the_score(tmp_path) -> None:
    def flaky(chat, option):
        return Failure(FailureKind.TIMEOUT, "too slow") if "slow" in chat[-1]["content"] else keyword(chat, option)

    source = tmp_path / "rows.csv"
    source.write_text(
        "text,label\nslow refund,refund\na refund,refund\na delivery,delivery\nb delivery,delivery\n", encoding="utf-8"
    )
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    follower = Follower(ScriptedModel(score=flaky))
    labelled = workbench.predict(instruction, str(source), follower, "text")
    assert [row["failure"] for row in labelled.rows] == ["timeout", "", "", ""]
    scored = workbench.score(instruction, str(source), follower).scored
    assert (scored.n, scored.n_failed, scored.macro_f1) == (4, 1, None)
    with pytest.raises(ScoreRefusedError, match="1 of 4 calls failed"):
        scored.measurement()


def test_rows_that_the_calibration_leaves_out_are_noted() -> None:
    rows = [Example(f"a {label} {i}", label) for i in range(4) for label in ("delivery", "refund")]
    refit = [(f"b {label} {i}", label) for i in range(4) for label in ("delivery", "refund", "praise")]
    made = Naive().induce(Support(("delivery", "refund"), ()))
    notes = workbench.score(made, rows, ScriptedModel(score=keyword), refit=refit).notes
    assert any("a list: Warning: 4 rows dropped" in note for note in notes)


def test_rows_that_all_calibrate_are_refused_before_any_call() -> None:
    asked: list[str] = []

    def recorded(chat, option):
        asked.append(option)
        return keyword(chat, option)

    rows = [Example(f"a {label} {i}", label) for i in range(3) for label in ("delivery", "refund")]
    instruction = Naive().induce(Support(("delivery", "refund"), ()))
    with pytest.raises(DataError, match="made from or calibrated on all of these rows"):
        workbench.score(instruction, rows, ScriptedModel(score=recorded), refit=rows)
    assert not asked
    assert workbench.score(instruction, rows, ScriptedModel(score=recorded), refit=rows[:4]).scored.n == 2
