"""Comparisons of prompts on the same rows, checks for continuous integration, and disagreements."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from tests.workbench.keyword import keyword

from promptmii import Example, Follower, Instruction, Naive, ScriptedModel, Support, compare, metrics
from promptmii.errors import ConfigError, DataError, ScoreRefusedError
from promptmii.models.base import Failure, FailureKind
from promptmii.workbench.compare import junit

LABELS = ("delivery", "refund")
ROWS = [{"text": f"a {label} {i}", "label": label} for i in range(12) for label in LABELS]


def obedient(chat, option):
    """Follows `always <label>` in the instruction, or else looks for the label in the text."""
    prompt = chat[-1]["content"]
    return 3.0 * (option in prompt) if f"always {option}" in prompt else keyword(chat, option)


def made(rows: int, follower: str = "scripted") -> Instruction:
    """An instruction made from and calibrated on the first rows."""
    support = Support(LABELS, tuple(Example(row["text"], row["label"]) for row in ROWS[:rows]))
    plain = Naive().induce(support).model_copy(update={"text": "Look for the word.", "method": "mii"})
    return Follower(ScriptedModel(score=obedient, name=follower), "choose", "support").prepare(plain, support)


def test_all_prompts_are_measured_on_rows_that_no_prompt_was_made_from() -> None:
    model = ScriptedModel(score=obedient)
    comparison = compare([made(8), "always refund.", "naive", "icl"], ROWS, model)
    assert [row.name for row in comparison.rows] == ["mii", "always refund.", "naive", "icl"]
    assert len({row.scored.query for row in comparison.rows}) == 1
    assert {e.text for e in comparison.rows[0].scored.query} == {row["text"] for row in ROWS[8:]}
    icl = comparison.rows[3].instruction
    assert all(row["text"] in icl.text for row in ROWS[:8]), "ICL shows the examples that the instruction was made from"
    assert [row.instruction.calibration is not None for row in comparison.rows] == [True] * 4
    assert comparison.rows[0].macro_f1 == 1.0
    assert list(comparison.differences) == ["always refund.", "naive", "icl"]
    assert any("8 rows left out" in note for note in comparison.notes)


def test_differences_are_paired_and_holm_adjusted() -> None:
    comparison = compare(["Look for it.", "always refund.", "naive"], ROWS, ScriptedModel(score=obedient))
    first, second, third = (row.scored for row in comparison.rows)
    plain = [metrics.paired_difference(first.gold, first.labels, other.labels) for other in (second, third)]
    assert [d.mean for d in comparison.differences.values()] == [d.mean for d in plain]
    assert [d.p for d in comparison.differences.values()] == metrics.holm([d.p for d in plain])
    assert comparison.differences["always refund."].p == min(1, 2 * plain[0].p) < 0.05


def test_disagreements_are_rows_with_different_labels() -> None:
    comparison = compare(["Look for it.", "always refund."], ROWS, ScriptedModel(score=obedient))
    rows = list(csv.DictReader(comparison.csv().splitlines()))
    assert {row["label"] for row in rows} == {"delivery"}
    assert len(rows) == 12
    assert {(row["Look for it."], row["always refund."]) for row in rows} == {("delivery", "refund")}


def test_a_text_is_calibrated_on_the_given_examples() -> None:
    comparison = compare("Look for it.", ROWS, ScriptedModel(score=obedient), examples=ROWS[:4], n=3)
    row = comparison.rows[0]
    assert row.instruction.is_calibrated
    assert row.instruction.calibration_cost.calls == 3
    assert row.scored.n == 24 - 3


def test_rows_that_icl_takes_from_the_table_are_noted() -> None:
    comparison = compare(["naive", "icl"], ROWS, ScriptedModel(score=obedient))
    left_out = len(ROWS) - comparison.rows[0].scored.n
    assert comparison.rows[1].instruction.provenance.n == left_out == 14
    note = "14 rows left out: they were drawn as examples; promptmii compare --examples ROWS takes others"
    assert note in comparison.notes


def test_a_mapping_names_prompts_and_examples_may_be_a_table() -> None:
    comparison = compare(
        {"list": "naive", "shots": "icl"}, ROWS[12:], ScriptedModel(score=obedient), examples=pd.DataFrame(ROWS[:12])
    )
    assert [row.name for row in comparison.rows] == ["list", "shots"]
    assert all(row["text"] in comparison.rows[1].instruction.text for row in ROWS[:12])


@pytest.mark.parametrize("n", [0, -1])
def test_a_comparison_needs_at_least_one_example(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n is {n}; expected at least one"):
        compare(["Look for it.", "naive"], ROWS, ScriptedModel(score=obedient), n=n)


def test_texts_that_begin_alike_are_compared_under_different_names() -> None:
    texts = [f"Classify the support ticket by {what}." for what in ("team", "urgency")]
    comparison = compare(texts, ROWS, ScriptedModel(score=obedient))
    assert [row.name for row in comparison.rows] == ["Classify the support ti…", "Classify the support ti…'"]
    assert [row.instruction.text for row in comparison.rows] == texts


def test_no_prompt_takes_the_name_of_a_column() -> None:
    model = ScriptedModel(score=obedient)
    comparison = compare({"mine": "Look for it.", "other": "always refund."}, ROWS, model)
    assert {row["label"] for row in csv.DictReader(comparison.csv().splitlines())} == {"delivery"}
    with pytest.raises(ConfigError, match="cannot be named 'label'"):
        compare({"mine": "Look for it.", "label": "always refund."}, ROWS, model)


def test_an_uncalibrated_text_beside_a_calibrated_instruction_is_noted() -> None:
    comparison = compare([made(4), "Look for it."], ROWS[8:], ScriptedModel(score=obedient))
    assert any("not calibrated, as others are: Look for it." in note for note in comparison.notes)


def test_an_instruction_that_knows_fewer_labels_misses_the_others() -> None:
    wide = Instruction(text="Look.", labels=(*LABELS, "billing"), method="wide", mode="choose")
    rows = ROWS[8:] + [{"text": f"a billing {i}", "label": "billing"} for i in range(3)]
    comparison = compare([wide, made(4)], rows, ScriptedModel(score=obedient))
    assert [row.macro_f1 for row in comparison.rows] == [1.0, pytest.approx(2 / 3, abs=0.1)]
    assert any("mii does not know billing" in note for note in comparison.notes)


def test_a_failed_call_refuses_the_comparison() -> None:
    def flaky(chat, option):
        return Failure(FailureKind.TIMEOUT, "slow") if "refund 3" in chat[-1]["content"] else keyword(chat, option)

    with pytest.raises(ScoreRefusedError, match=r"Look for it\.: 1 of 24 calls failed"):
        compare(["Look for it."], ROWS, ScriptedModel(score=flaky))


@pytest.mark.parametrize(
    ("prompts", "error", "words"),
    [
        ([], ConfigError, "Nothing is given"),
        (["naive", "naive"], ConfigError, "given twice"),
        (["naive", "always refund.", "always refund."], ConfigError, "given twice"),
        (["mii"], ConfigError, "written or trained first"),
        (["naiv"], DataError, "not a file, and is too short"),
    ],
)
def test_invalid_prompts_are_refused(prompts: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        compare(prompts, ROWS, ScriptedModel(score=keyword))


def test_checks_report_failures_also_as_junit() -> None:
    model = ScriptedModel(score=obedient)
    good = compare(["Look for it.", "always refund."], ROWS, model)
    assert [check.failure for check in good.checks(at_least=0.9, not_worse=True)] == [None, None]
    bad = compare(["always refund.", "Look for it."], ROWS, model).checks(at_least=0.9, not_worse=True)
    assert [check.failure is None for check in bad] == [False, False]
    suite = ElementTree.fromstring(junit(bad))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.find("failure") is not None for case in suite] == [True, True]


def test_a_prompt_may_be_the_path_of_an_instruction(tmp_path: Path) -> None:
    path = str(made(4).save(tmp_path / "a.json"))
    comparison = compare([path, "icl"], ROWS, ScriptedModel(score=obedient))
    assert list(comparison.differences) == ["icl"]
    assert comparison.rows[0].name == path
