"""Texts to label are streamed, complete, and checked before the first one is returned."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorder import Recorder

from promptmii.data import read_table, read_texts
from promptmii.data.delimited import STREAMED_LINES
from promptmii.errors import DataError

ROWS = [{"id": "7", "text": "a refund, now"}, {"id": "8", "text": None}, {"id": "9", "text": 'two\n"lines"'}]


def write(rows: list[dict], path: Path) -> Path:
    frame = pd.DataFrame(rows)
    if path.name.endswith(".parquet"):
        frame.to_parquet(path)
    elif "json" in path.name:
        frame.to_json(path, orient="records", lines=path.suffix != ".json")
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.ndjson.gz", "a.json", "a.parquet", "a.CSV"]
)
def test_streamed_rows_match_the_table_and_can_be_read_again(tmp_path: Path, name: str) -> None:
    path = write(ROWS, tmp_path / name)
    texts = read_texts(path)
    rows = list(read_table(path).rows)
    assert [row for row, _ in texts] == [row for row, _ in texts] == rows
    assert [text for _, text in texts] == ["a refund, now", "", 'two\n"lines"']
    assert (texts.n, texts.columns) == (3, ("id", "text"))


def test_the_key_depends_on_the_content_and_the_chosen_columns(tmp_path: Path) -> None:
    first, same = (write(ROWS, tmp_path / name) for name in ("a.csv", "b.csv"))
    other = write([*ROWS[:2], {"id": "9", "text": "another"}], tmp_path / "c.csv")
    assert read_texts(first).key == read_texts(same).key
    assert len({read_texts(path).key for path in (first, other)} | {read_texts(first, "id").key}) == 3


def test_every_row_has_the_columns_of_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two", "note": 1}\n')
    assert [row for row, _ in read_texts(path)] == [{"text": "one", "note": None}, {"text": "two", "note": 1}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,id\n" + b"a,1\n" * 3000 + b"b\n", "line 3002: 1 field, expected 2"),
        ("a.jsonl", b'{"text": "a"}\n' * 3000 + b"{", "line 3001: not valid JSON"),
        ("a.csv", b"text,id\n" + b"a,1\n" * 90000 + b"caf\xe9,1\n", r"not UTF-8.*line 90002.*'café,1'"),
        ("a.txt.gz", gzip.compress(b"one\n" * 99999)[:-20], "not a complete gzip file"),
        ("a.csv", b" \n", "is empty"),
        ("a.csv", b"text,id\n", "holds no rows"),
        ("a.parquet", b"PAR1", "not a readable .parquet file"),
        ("a.zip", b"PK", "has the ending '.zip'"),
    ],
)
def test_a_fault_is_found_before_any_row_is_returned(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("name", ["long.txt", "long.jsonl"])
def test_the_first_line_may_be_long(tmp_path: Path, name: str) -> None:
    texts = ["long " * 20_000 + "end", "short", "shorter"]
    lines = texts if name.endswith(".txt") else [json.dumps({"text": text}) for text in texts]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert [text for _, text in read_texts(tmp_path / name)] == texts


def test_a_cell_of_several_lines_may_cross_the_end_of_the_streamed_lines(tmp_path: Path) -> None:
    rows = [f"text {i}" for i in range(STREAMED_LINES - 2)] + ['a "b"\n\nc\n, d', "more"]
    path = write([{"text": row} for row in rows], tmp_path / "lines.csv")
    assert [text for _, text in read_texts(path)] == rows


def test_a_json_list_in_a_jsonl_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    assert [text for _, text in read_texts(tmp_path / "a.jsonl")] == ["one", "two"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1))
def test_lines_of_a_text_file_are_texts(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    lines = ["first", *lines]
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path_factory.mktemp("lines") / "a.txt"
        path.write_bytes("".join(line + end for line in lines).encode())
        assert [text for _, text in read_texts(path)] == [line if line.strip() else "" for line in lines]


def test_a_detected_column_is_noted(tmp_path: Path) -> None:
    listener = Recorder()
    path = write([{"status": "done", "fields": {"text": "the parcel has not come"}}], tmp_path / "a.jsonl")
    read_texts(path, progress=listener)
    assert listener.notes == ["Text column: 'status' (detected)."]
    read_texts(path, "fields.text", listener)
    read_texts(["one", "two"], progress=listener)
    assert len(listener.notes) == 1


@pytest.mark.slow
def test_a_long_table_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n" + "".join(f"{i},the parcel number {i} has not come\n" for i in range(30_000)))
    listener = Recorder()
    tracemalloc.start()
    texts = read_texts(path, progress=listener)
    assert sum(1 for _ in texts) == texts.n == 30_000 == listener.counts[-1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, ""])
def test_a_missing_text_in_a_list_is_an_empty_one(missing: object) -> None:
    assert [text for _, text in read_texts(["a", missing])] == ["a", ""]
    assert [text for _, text in read_texts(pd.Series([missing, "a"], dtype=object))] == ["", "a"]


@pytest.mark.parametrize("text", ["Where is my parcel?", "text,label\na,x\n", "x" * 5_000])
@pytest.mark.parametrize("read", [read_texts, read_table])
def test_a_text_in_place_of_a_path_is_named_in_short(text: str, read: Callable[[str], object]) -> None:
    with pytest.raises(DataError, match="texts in a list") as error:
        read(text)
    assert len(str(error.value)) < 160
