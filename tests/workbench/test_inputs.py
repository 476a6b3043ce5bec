"""Whatever people hand over as an instruction is measured like any instruction."""

from pathlib import Path

import pytest
from tests.workbench.keyword import keyword

from promptmii import Follower, Naive, ScriptedModel, Support, score
from promptmii.errors import ArtefactError, DataError
from promptmii.workbench.inputs import instruction_from_text, read_prompt

ROWS = [{"text": f"a {label} {i}", "label": label} for i in range(4) for label in ("delivery", "refund")]
TEXT = "Tickets of a shop.\nrefund: money"


def test_a_file_a_path_and_a_text_are_the_same_instruction(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "utf16.md").write_text(TEXT, encoding="utf-16")
    model = ScriptedModel(score=keyword)
    results = [
        score(given, ROWS, model)
        for given in (TEXT, str(tmp_path / "prompt.txt"), tmp_path / "prompt.txt", tmp_path / "utf16.md")
    ]
    assert {result.instruction.text for result in results} == {TEXT}
    assert {result.macro_f1 for result in results} == {1.0}
    assert results[0].instruction.labels == ("delivery", "refund")
    assert results[0].instruction.follower == "scripted"
    assert (results[0].name, results[1].name) == ("Tickets of a shop. refu…", str(tmp_path / "prompt.txt"))
    saved = results[0].instruction.save(tmp_path / "made.json")
    assert score(saved, ROWS, model).instruction == results[0].instruction


def test_a_text_is_measured_as_it_stands_whatever_it_holds() -> None:
    model = ScriptedModel(score=keyword)
    odd = 'Say "{text}" {{labels}}\r\n  two  spaces <|im_end|>'
    measured = score(odd, ROWS, Follower(model))
    assert measured.instruction.text == odd
    assert any("{text} is not a slot here" in note for note in measured.instruction.provenance.notes)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("", DataError, "is empty.*naive"),
        (" \n", DataError, "is empty"),
        ("tickets", DataError, "no file and too short"),
        ("no-such-file.txt", ArtefactError, "No such file"),
        ("no-such-file.json", ArtefactError, "cannot be read"),
        ("rows.csv", DataError, "is a table.*order swapped"),
    ],
)
def test_what_is_no_instruction_is_said(given: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_prompt(given)


def test_a_text_without_spaces_may_be_another_script() -> None:
    assert read_prompt("把文本分类为退款或配送") == "把文本分类为退款或配送"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("\n")
    with pytest.raises(DataError, match=r"prompt\.txt is empty"):
        read_prompt(tmp_path / "prompt.txt")


def test_a_written_text_is_the_naive_prompt_with_a_text() -> None:
    naive = Naive().induce(Support(("a", "b"), ()))
    assert instruction_from_text("Do it.", ("a", "b")).prompt("x").endswith(naive.prompt("x"))
