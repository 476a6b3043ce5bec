"""Rows for a human to check."""

import csv
import math
import random
from pathlib import Path

import pytest
from tests.workbench.keyword import keyword

from promptmii import Example, Follower, Naive, ScriptedModel, Support
from promptmii.config import Columns
from promptmii.data import load_task, read_table
from promptmii.errors import DataError
from promptmii.models.base import Failure, FailureKind
from promptmii.workbench.review import FAILED, LABEL_ERROR, UNSURE, WRONG, review

LABELS = ("billing", "delivery", "refund")
MADE = Naive().induce(Support(LABELS, ()))


def noisy(chat, option):
    """Prefers the right label, with noise and a bias towards `billing`."""
    text = chat[-1]["content"].splitlines()[-1]
    return 3.0 * (option in text) + (option == "billing") + random.Random(text + option).random()


def test_swapped_labels_are_suspected_and_right_ones_are_not() -> None:
    rows = [Example(f"a {label} {i}", label) for i in range(30) for label in LABELS]
    swapped = {4: "refund", 30: "delivery", 60: "billing"}
    swapped = {i: label for i, label in swapped.items() if rows[i].label != label}
    data = [Example(row.text, swapped.get(i, row.label)) for i, row in enumerate(rows)]
    result = review(MADE, data, ScriptedModel(score=noisy), most=10)
    errors = [row for row in result.rows if row.reason == LABEL_ERROR]
    assert {row.text for row in errors} == {rows[i].text for i in swapped}
    assert {row.suggested_label for row in errors} == {rows[i].label for i in swapped}
    assert result.n == 90
    assert len(result.rows) == 10


def test_a_label_that_the_instruction_lacks_is_wrong() -> None:
    rows = [Example(f"a {label} {i}", label) for i in range(5) for label in (*LABELS, "login")]
    result = review(MADE, rows, ScriptedModel(score=noisy), Columns(labels=(*LABELS, "login")))
    assert {row.reason for row in result.rows if row.label == "login"} == {WRONG}


def test_labels_off_the_shortlist_do_not_hide_label_errors() -> None:
    """With many labels a follower compares a few per text, and the others have no probability."""
    labels = tuple(f"label {k}" for k in range(12))

    def shortlisted(chat, option):
        number, asked = int(chat[-1]["content"].split()[-1].strip('"')), int(option.split()[-1])
        noise = random.Random(f"{number} {asked}")
        compared = asked == number % 12 or noise.random() < 0.4
        return 3.0 * (asked == number % 12) + noise.gauss(0, 1) if compared else -math.inf

    data = [Example(f"number {i}", labels[(i + (i % 25 == 0)) % 12]) for i in range(100)]
    result = review(Naive().induce(Support(labels, ())), data, ScriptedModel(score=shortlisted), most=120)
    errors = {row.text: row.suggested_label for row in result.rows if row.reason == LABEL_ERROR}
    right = [errors.get(f"number {i}") == labels[i % 12] for i in range(0, 100, 25)]
    assert sum(right) >= 3
    assert len(errors) <= 5


def test_wrong_rows_come_before_unsure_rows() -> None:
    rows = [Example("a billing", "billing"), Example("a thing", "refund"), Example("a delivery", "delivery")]
    result = review(MADE, rows, ScriptedModel(score=keyword))
    assert (result.rows[0].text, result.rows[0].reason) == ("a thing", WRONG)
    assert [row.reason for row in result.rows] == [WRONG, UNSURE, UNSURE]


def test_wrong_rows_that_are_not_listed_are_counted() -> None:
    rows = [Example(f"a thing {i}", "refund") for i in range(4)] + [Example("a billing", "billing")]
    assert review(MADE, rows, ScriptedModel(score=keyword), most=1).counts == {WRONG: 4}
    assert review(MADE, rows, ScriptedModel(score=keyword), most=5).counts == {WRONG: 4, UNSURE: 1}


def test_the_csv_has_the_columns_of_the_table() -> None:
    cells = [("a thing", "Refund", "because"), ("a thing", "", "empty"), ("a delivery", "delivery", "so")]
    table = [{"id": i, "text": text, "kind": kind, "reason": why} for i, (text, kind, why) in enumerate(cells)]
    columns = Columns(text="text", label="kind")
    first, second = csv.DictReader(review(MADE, table, ScriptedModel(score=keyword), columns).csv().splitlines())
    assert (first["id"], first["kind"]) == ("0", "Refund")
    assert (first["suggested_label"], first["reason"], first["reason'"]) == ("billing", "because", WRONG)
    assert (second["id"], second["reason"], second["reason'"]) == ("2", "so", UNSURE)
    unlabelled = [{"id": "7", "text": "a thing"}, {"id": "8", "text": "a delivery"}]
    rows = csv.DictReader(review(MADE, unlabelled, ScriptedModel(score=keyword)).csv().splitlines())
    assert [(row["id"], row["label"], row["reason"]) for row in rows] == [("7", "", UNSURE), ("8", "", UNSURE)]


def test_a_table_without_labels_gives_the_least_certain_rows() -> None:
    texts = ["a refund here", "what is this", "a refund or delivery"]
    result = review(MADE, texts, ScriptedModel(score=keyword), most=2)
    assert [row.text for row in result.rows] == ["what is this", "a refund or delivery"]
    assert {row.reason for row in result.rows} == {UNSURE}
    assert any("read without labels" in note for note in result.notes)
    with pytest.raises(DataError, match="label"):
        review("Decide it well.", texts, ScriptedModel(score=keyword))


def test_failed_calls_have_their_own_reason() -> None:
    def flaky(chat, option):
        return Failure(FailureKind.TIMEOUT, "slow") if "slow" in chat[-1]["content"] else keyword(chat, option)

    rows = [Example("slow refund", "refund"), Example("a delivery", "delivery")]
    result = review(MADE, rows, Follower(ScriptedModel(score=flaky)))
    assert {row.text: row.reason for row in result.rows} == {"a delivery": UNSURE, "slow refund": FAILED}


def test_the_csv_can_be_read_as_a_table() -> None:
    rows = [Example('a "refund",\nplease', "refund"), Example("a delivery", "refund"), Example("delivery", "delivery")]
    rows.append(Example("refund\rrefund", "refund"))
    result = review(MADE, rows, ScriptedModel(score=keyword))
    again = list(csv.DictReader(result.csv().splitlines(keepends=True)))
    assert {(row["text"], row["label"], row["suggested_label"]) for row in again} == {
        ('a "refund",\nplease', "refund", "refund"),
        ("a delivery", "refund", "delivery"),
        ("delivery", "delivery", "delivery"),
        ("refund\rrefund", "refund", "refund"),
    }


def test_the_csv_of_a_table_with_lists_can_be_used_as_data(tmp_path: Path) -> None:
    rows = [{"text": f"a {kind} {i}", "label": [kind], "tags": ["a", "b"]} for i in range(3) for kind in LABELS]
    (tmp_path / "a.csv").write_text(review(MADE, rows, ScriptedModel(score=keyword)).csv())
    assert load_task(tmp_path / "a.csv", label="label").task.labels == LABELS
    assert {row["tags"] for row in read_table(tmp_path / "a.csv").rows} == {'["a", "b"]'}


def test_generate_mode_gives_only_wrong_rows() -> None:
    rows = [Example("a refund", "refund"), Example("a delivery", "delivery")]
    result = review(MADE, rows, Follower(ScriptedModel(["refund"]), "generate"))
    assert [(row.reason, row.probability) for row in result.rows] == [(WRONG, None)]
    assert "the model gives no probabilities, so label errors and unsure rows are not found" in result.notes


def test_failed_calls_count_even_if_other_rows_rank_higher() -> None:
    def flaky(chat, option):
        return Failure(FailureKind.TIMEOUT, "slow") if "slow" in chat[-1]["content"] else keyword(chat, option)

    rows = [Example("slow refund", "refund"), Example("a delivery", "delivery")]
    rows += [Example(f"a delivery {i}", "refund") for i in range(2)]
    result = review(MADE, rows, ScriptedModel(score=flaky), most=2)
    assert ([row.reason for row in result.rows], result.n_failed) == ([WRONG, WRONG], 1)
