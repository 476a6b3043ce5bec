"""Every JSON shape in which programs save tables gives the same rows."""
# pyright: reportArgumentType=false

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from promptmii.data import load_task, read_table, read_texts
from promptmii.errors import DataError

ROWS = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(12)]
FRAME = pd.DataFrame(ROWS)
SHAPES: dict[str, Callable[[], Any]] = {
    "objects": lambda: ROWS,
    "pairs": lambda: [[row["text"], row["label"]] for row in ROWS],
    "columns": lambda: {name: [row[name] for row in ROWS] for name in ("text", "label")},
    "task file": lambda: {"data": ROWS},
    "pandas": lambda: json.loads(FRAME.to_json()),
    "pandas, named index": lambda: json.loads(FRAME.set_index(pd.Index([f"row {i}" for i in range(12)])).to_json()),
    "pandas, records": lambda: json.loads(FRAME.to_json(orient="records")),
    "pandas, split": lambda: json.loads(FRAME.to_json(orient="split")),
    "pandas, index": lambda: json.loads(FRAME.to_json(orient="index")),
    "a task file that numbers its labels": lambda: {
        "data": [row | {"label": "ab".index(row["label"])} for row in ROWS],
        "labels": ["a", "b"],
    },
    "rows": lambda: {"count": 12, "rows": ROWS},
    "examples": lambda: {"version": "1", "examples": ROWS},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("indent", [None, 1])
def test_every_shape_gives_the_same_rows(tmp_path: Path, shape: str, indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SHAPES[shape](), indent=indent))
    assert list(read_table(tmp_path / "a.json").rows) == ROWS


def test_objects_one_after_another_are_rows(tmp_path: Path) -> None:  # as jq prints them
    (tmp_path / "a.json").write_text("".join(json.dumps(row, indent=2) + "\n" for row in ROWS))
    assert list(read_table(tmp_path / "a.json").rows) == ROWS
    (tmp_path / "a.json").write_text("{} {")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_table(tmp_path / "a.json")


@pytest.mark.parametrize(
    "parts",
    [
        {"train": ROWS[:8], "test": ROWS[8:]},
        {"train": ROWS[:8], "validation": ROWS[8:]},
        {"Train": ROWS[:8], "dev": ROWS[8:]},
        {"train": [[row["text"], row["label"]] for row in ROWS[:8]], "val": ROWS[8:]},
        {"train": ROWS[:8], "test": ROWS[8:], "oos_train": [["no text of the task", "oos"]]},
        {"train": {name: [row[name] for row in ROWS[:8]] for name in ROWS[0]}, "test": ROWS[8:]},
    ],
)
def test_splits_are_kept(tmp_path: Path, parts: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(parts))
    task = load_task(tmp_path / "a.json").task
    assert [e.text for e in task.train] == [row["text"] for row in ROWS[:8]]
    assert [e.text for e in task.test] == [row["text"] for row in ROWS[8:]]


def test_json_lines_and_lists_are_read_despite_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS, indent=1))
    assert list(read_table(tmp_path / "a.json").rows) == list(read_table(tmp_path / "a.jsonl").rows) == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_every_line_ending_is_accepted(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.jsonl").write_bytes("".join(json.dumps(row) + end for row in ROWS).encode("utf-8-sig"))
    assert list(read_table(tmp_path / "a.jsonl").rows) == ROWS
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(list(row.values())) + end for row in ROWS))
    with pytest.raises(DataError, match="line 1: expected an object, found list"):
        read_table(tmp_path / "a.jsonl")


def test_rows_rejected_in_prodigy_are_left_out(tmp_path: Path) -> None:
    answers = ["reject", "ignore", *["accept"] * 10]
    rows = [row | {"_task_hash": i, "answer": answers[i]} for i, row in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_task(tmp_path / "a.jsonl")
    assert {e.text for e in (*loaded.task.train, *loaded.task.test)} == {row["text"] for row in ROWS[2:]}
    assert "2 rows left out: the answer is not 'accept'" in loaded.notes


def test_columns_of_objects_are_reported_if_nothing_else_fits() -> None:
    rows = [{"row": row, "marks": [row], "id": i} for i, row in enumerate(ROWS)]
    with pytest.raises(
        DataError, match=r"within objects is not searched \('row', 'marks'\): save each field as a column"
    ):
        load_task(rows)


def test_a_dotted_name_reaches_into_objects(tmp_path: Path) -> None:
    rows = [{"message": {"body": row["text"], "to": "us"}, "meta": {"label": row["label"]}, "id": 0} for row in ROWS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"id": 1}, *rows]))
    loaded = load_task(tmp_path / "a.jsonl", text="{message.to}: {message.body}", label="meta.label")
    examples = {(e.text, e.label) for e in (*loaded.task.train, *loaded.task.test)}
    assert examples == {(f"us: {row['text']}", row["label"]) for row in ROWS}
    texts = read_texts(tmp_path / "a.jsonl", "message.body")
    assert [text for _, text in texts] == ["", *(row["text"] for row in ROWS)]
    assert texts.columns == ("id", "message", "meta")
    with pytest.raises(DataError, match=r"no column 'message\.subject'"):
        load_task(rows, text="message.subject", label="meta.label")


def test_a_split_may_be_a_task_file() -> None:
    parts = {"train": {"data": ROWS[:8], "instruction": "Tell a from b."}, "test": {"data": ROWS[8:]}}
    assert load_task(parts).task.instruction == "Tell a from b."


def test_a_label_may_be_a_list_of_one(tmp_path: Path) -> None:
    rows = [{"id": i, "data": row["text"], "label": [row["label"]]} for i, row in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_task(tmp_path / "a.jsonl").task.labels == ("a", "b")


def test_labels_that_rows_number_from_1_are_refused() -> None:
    with pytest.raises(DataError, match="number labels from 1"):
        read_table({"data": [["good", 1], ["bad", 2]], "labels": ["pos", "neg"]})


def test_a_list_of_labels_that_no_column_takes_is_noted() -> None:
    table = read_table({"data": [{"text": "good", "intent": 0}], "labels": ["pos", "neg"]})
    assert table.notes == ("the list of labels is not used, because no column is called 'label'",)


def test_a_few_rows_with_several_labels_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": [row["label"]]} for row in ROWS]
    rows[0]["label"], rows[1]["label"], rows[2]["label"], rows[3]["label"] = ["a", "b"], [], [None], [""]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = load_task(tmp_path / "a.jsonl").notes
    assert "1 row dropped: several labels for one text" in notes
    assert "3 rows dropped: no label" in notes
    with pytest.raises(DataError, match="expected one name or whole number per row"):
        load_task([{"text": row["text"], "label": ["a", "b"]} for row in ROWS], label="label")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("17", "found int"),
        ("null", "found NoneType"),
        ("[1, 2]", "other than objects"),
        ('{"a": 1}', "'a' is not a list; expected a list of objects"),
        ('{"text": ["a"], "label": []}', "unequal lengths"),
        ("[]", "holds no rows"),
        ("{}", "holds no rows"),
        ('{"data": []}', "holds no rows"),
        ('{"data": [1]}', "other than objects"),
        ('{"columns": ["a", "b"], "data": [[1]]}', "2 cells"),
        ("[" * 100_000 + "]" * 100_000, "not a readable .json"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "not a readable .json"),
        ('[{"text": "a", "label": ' + "9" * 6000 + "}]", "valid JSON"),
    ],
)
def test_json_that_is_not_a_table_is_rejected(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        read_table(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(caught.value)
    assert "\n" not in str(caught.value)
