"""Prompts: instruction files, text files and texts."""

from pathlib import Path

import pytest
from tests.workbench.keyword import keyword

from promptmii import Follower, Naive, ScriptedModel, Support, score
from promptmii.config import Columns
from promptmii.data import load_task
from promptmii.errors import ArtefactError, DataError
from promptmii.inputs import instruction_from_text, load_task_for, read_prompt, with_test_rows
from promptmii.workbench.review import review

ROWS = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
TEXT = "Tickets of a shop.\nrefund: money"


def test_a_text_and_a_file_of_it_are_the_same_instruction(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "utf16.md").write_text(TEXT, encoding="utf-16")
    model = ScriptedModel(score=keyword)
    results = [
        score(prompt, ROWS, model)
        for prompt in (TEXT, str(tmp_path / "prompt.txt"), tmp_path / "prompt.txt", tmp_path / "utf16.md")
    ]
    assert {result.instruction.text for result in results} == {TEXT}
    assert {result.macro_f1 for result in results} == {1.0}
    assert results[0].instruction.labels == ("delivery", "refund")
    assert results[0].instruction.follower == "scripted"
    assert (results[0].name, results[1].name) == ("Tickets of a shop. refu…", str(tmp_path / "prompt.txt"))
    saved = results[0].instruction.save(tmp_path / "made.json")
    assert score(saved, ROWS, model).instruction == results[0].instruction


def test_a_text_is_measured_unchanged() -> None:
    model = ScriptedModel(score=keyword)
    odd = 'Say "{text}" {{labels}}\r\n  two  spaces <|im_end|>'
    measured = score(odd, ROWS, Follower(model))
    assert measured.instruction.text == odd
    assert any("{text} is not a slot here" in note for note in measured.instruction.provenance.notes)


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ("", DataError, "is empty.*naive"),
        (" \n", DataError, "is empty"),
        ("tickets", DataError, "not a file, and is too short"),
        ("no-such-file.txt", ArtefactError, "No such file"),
        ("no such file.txt", ArtefactError, "No such file"),
        ("no-such-file.json", ArtefactError, "cannot be read"),
        ("NO-SUCH-FILE.JSON", ArtefactError, "cannot be read"),
        ("rows.csv", DataError, "is a table.*order swapped"),
    ],
)
def test_invalid_prompts_are_refused(prompt: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_prompt(prompt)


def test_a_text_in_a_script_without_spaces_is_accepted() -> None:
    for text in ("把文本分类为退款或配送", "把文本分类:1.退款2.配送"):
        assert read_prompt(text) == text


@pytest.mark.parametrize(("content", "words"), [("\n", "is empty"), ("Classify\n", "holds one word")])
def test_a_file_that_is_empty_or_a_single_word_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "prompt.txt").write_text(content)
    with pytest.raises(DataError, match=rf"prompt\.txt {words}"):
        read_prompt(tmp_path / "prompt.txt")


def test_the_content_of_an_instruction_file_is_not_measured_as_a_text(tmp_path: Path) -> None:
    file = instruction_from_text("Do it.", ("a", "b")).save(tmp_path / "no-suffix")
    for prompt in (file, file.read_text()):
        with pytest.raises(DataError, match=r"holds an instruction.*ends in \.json"):
            read_prompt(prompt)


def test_a_text_precedes_the_naive_prompt() -> None:
    naive = Naive().induce(Support(("a", "b"), ()))
    assert instruction_from_text("Do it.", ("a", "b")).prompt("x").endswith(naive.prompt("x"))


def test_test_rows_that_are_dropped_are_noted() -> None:
    test = [{"text": f"new {i}", "label": "billing" if i < 3 else "refund"} for i in range(5)]
    loaded = with_test_rows(load_task(ROWS), test)
    assert len(loaded.task.test) == 2
    assert "a list: 3 rows dropped: a label that a list does not have ('billing')" in loaded.notes


def test_the_columns_of_the_instruction_may_be_within_objects() -> None:
    made = Naive().induce(Support(("delivery", "refund"), ()))
    made = made.with_provenance(text_columns=("message.body",), label_column="meta.label")
    rows = [{"title": "why", "message": {"body": row["text"]}, "meta": {"label": row["label"]}} for row in ROWS]
    loaded = load_task_for(made, rows, Columns())
    assert (loaded.columns.text, loaded.columns.label) == (("message.body",), "meta.label")
    assert {row.text for row in with_test_rows(loaded, rows[:2]).task.test} == {row["text"] for row in ROWS[:2]}
    suspect = review(made, rows[:1], ScriptedModel(score=keyword)).rows[0]
    assert (suspect.text, suspect.row["title"]) == (ROWS[0]["text"], "why")


def test_the_text_column_is_kept_if_only_the_label_column_has_another_name() -> None:
    made = Naive().induce(Support(("delivery", "refund"), ()))
    provenance = made.provenance.model_copy(update={"text_columns": ("body",), "label_column": "kind"})
    rows = [{"text": f"title {i}", "body": row["text"], "gold": row["label"]} for i, row in enumerate(ROWS)]
    loaded = load_task_for(made.model_copy(update={"provenance": provenance}), rows, Columns(label="gold"))
    assert (loaded.columns.text, loaded.columns.label) == (("body",), "gold")
