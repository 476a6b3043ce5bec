"""Reading tables, rejecting bad input, and invariants of splitting and sampling."""

import gzip
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.data import draw_notes, load_task, read_table, read_texts, sample
from promptmii.errors import DataError

ROWS = [{"id": i, "text": f"text number {i} NA", "label": "yes" if i % 3 else "NA"} for i in range(30)]


def write(folder, name: str, frame: pd.DataFrame):
    path = folder / name
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "json": lambda: frame.to_json(path, orient="records"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }
    writers[name.removesuffix(".gz").rsplit(".", 1)[1]]()
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_every_format_gives_the_same_task(tmp_path, name: str) -> None:
    loaded = load_task(write(tmp_path, name, pd.DataFrame(ROWS)))
    assert loaded.task.labels == ("NA", "yes")
    assert len(loaded.task.train) + len(loaded.task.test) == 30
    assert load_task(ROWS).task.key == loaded.task.key


def test_data_in_memory_gives_the_same_task() -> None:
    pairs = [(row["text"], row["label"]) for row in ROWS]
    assert load_task(pairs).task.key == load_task(pd.DataFrame(ROWS)).task.key == load_task(ROWS).task.key


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label\na,b,c\n", "line 2: 3 fields, expected 2"),
        ("a.csv", b"text,label\na,b\nc\n", "line 3: 1 field, expected 2"),
        ("a.csv", "text,label\ncafé,b\n".encode("latin-1"), "not UTF-8: byte 14 .line 2."),
        ("a.jsonl", b'{"text": 1}\n{"text', "line 2: not valid JSON"),
        ("a.json", b"{", "not valid JSON"),
        ("a.csv.gz", b"no gzip", "not a complete gzip file"),
        ("a.parquet", b"no parquet", r"not a readable \.parquet file"),
        ("a.docx", b"x", "ending '.docx'"),
    ],
)
def test_broken_files_are_reported(tmp_path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_task(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (ROWS, {"label": "lable"}, "Did you mean 'label'"),
        (ROWS, {"text": "txt"}, "Did you mean 'text'"),
        (ROWS, {"label": "id"}, "30 different values in 30 rows"),
        ([(f"t{i}", "same") for i in range(9)], {"label": "label"}, "one value"),
        ([(f"t{i}", 0.5 + i % 2) for i in range(9)], {"label": "label"}, "0.5"),
        ([("", "a"), ("x", "")], {"label": "label"}, "no usable row"),
    ],
)
def test_unusable_columns_are_rejected(rows, options, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_task(rows, **options)


def test_every_dropped_row_is_counted() -> None:
    rows = [
        *ROWS,
        {"text": "", "label": "yes"},
        {"text": "x", "label": None},
        ROWS[0],
        {"text": "TEXT number 4 na", "label": "NA"},
    ]
    notes = " | ".join(load_task(rows).notes)
    assert "1 row dropped: no text" in notes
    assert "1 row dropped: no label" in notes
    assert "2 rows dropped: the same text as an earlier row" in notes
    assert "1 row dropped: the same text with different labels" in notes


def test_several_columns_and_templates_make_a_text() -> None:
    rows = [{"premise": f"p{i} {{x}}", "hypothesis": f"h{i}", "gold": "ab"[i % 2]} for i in range(12)]
    task = load_task(rows, text="{premise} || {hypothesis}", label="gold").task
    assert {e.text for e in (*task.train, *task.test)} == {f"p{i} {{x}} || h{i}" for i in range(12)}
    assert load_task(rows, text=("premise", "hypothesis")).task.train[0].text.startswith("premise: p")


def test_texts_to_label_keep_every_row() -> None:
    assert [text for _, text in read_texts(["a", "", "b"])] == ["a", "", "b"]
    assert read_table([{"text": "a", "n": float("nan")}]).rows == ({"text": "a", "n": None},)


def test_lines_are_texts_whatever_the_column_name(tmp_path) -> None:
    (tmp_path / "new.txt").write_text("one\ntwo\n")
    (tmp_path / "new.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    texts = ["one", "two"]
    in_memory = (texts, tuple(texts), iter(texts), np.array(texts), pd.Series(texts, name="other"))
    for source in (tmp_path / "new.txt", str(tmp_path / "new.txt.gz"), *in_memory):
        assert [text for _, text in read_texts(source, "message")] == texts
    with pytest.raises(DataError, match="message"):
        read_texts(pd.DataFrame({"text": ["one"]}), "message")


def test_numeric_labels_are_sorted_by_value() -> None:
    assert load_task([(f"t{i}", 1 + i % 12) for i in range(60)]).task.labels == tuple(str(i) for i in range(1, 13))


tables = st.lists(
    st.tuples(st.text(alphabet="abc AB", min_size=1, max_size=4), st.sampled_from("xyz")), min_size=12, max_size=60
)


@pytest.mark.slow
@given(tables, st.randoms(), st.integers(0, 5))
def test_the_split_depends_on_content_alone_and_accounts_for_every_row(rows, random, seed: int) -> None:
    try:
        loaded = load_task(rows, label="label", seed=seed)
    except DataError:
        return
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = load_task(shuffled, label="label", seed=seed).task
    first = loaded.task
    norm = lambda part: {" ".join(e.text.casefold().split()) for e in part}  # noqa: E731
    assert norm(first.test) == norm(again.test)
    assert not norm(first.train) & norm(first.test)
    dropped = sum(int(note.split()[0]) for note in loaded.notes if "dropped" in note)
    assert len(first.train) + len(first.test) + dropped == len(rows)


def test_a_smaller_support_is_a_prefix_of_a_larger_one() -> None:
    task = load_task([(f"text {i}", "abcde"[i % 5]) for i in range(100)]).task
    five, twenty = sample(task, 5, 3), sample(task, 20, 3)
    assert twenty.support.examples[:5] == five.support.examples
    assert {e.label for e in five.support.examples} == set("abcde")
    assert five.query == twenty.query
    assert not set(five.query) & set(twenty.support.examples)
    with pytest.raises(DataError, match="training part"):
        sample(task, 1000)


def test_a_gzipped_json_task_file_is_read(tmp_path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps({"data": ROWS}).encode()))
    assert load_task(tmp_path / "a.json.gz").task.labels == ("NA", "yes")


def test_a_data_frame_may_have_missing_values_and_numbered_columns() -> None:
    frame = pd.DataFrame([["a b c", "x"], [None, "y"], ["d e f", "y"]]).convert_dtypes()
    table = read_table(frame)
    assert table.columns == ("0", "1")
    assert [row["0"] for row in table.rows] == ["a b c", None, "d e f"]


def test_equal_column_names_of_different_kinds_stay_different() -> None:
    assert [read_table([{"text": "a", name: "b"}]).columns[1] for name in (1, True, 1.0)] == ["1", "True", "1.0"]


def test_decimals_may_number_labels() -> None:
    rows = [{"text": f"a {i}", "label": Decimal(f"{i % 2}.00")} for i in range(12)]
    assert load_task([*rows, {"text": "b", "label": Decimal("sNaN")}]).task.labels == ("0", "1")
    with pytest.raises(DataError, match="no scores"):
        load_task([{"text": f"a {i}", "label": Decimal(f"{i % 2}.5")} for i in range(12)], label="label")


def test_a_column_named_twice_is_used_once() -> None:
    assert load_task(ROWS, text=["text", "text"]).columns.text == ("text",)


def test_a_data_frame_with_duplicate_column_names_is_rejected() -> None:
    with pytest.raises(DataError, match="two columns 'text'"):
        read_table(pd.DataFrame([["a", "b"]], columns=["text", "text"]))


def test_cells_may_contain_arrays_and_lone_surrogates(tmp_path) -> None:
    table = read_table([{"text": "half \ud83d", "vector": np.zeros(3)}])
    table.rows[0]["text"].encode()
    missing = read_table([{"text": "a", "label": np.array([None])}, {"text": "b", "label": np.array(["x"])}])
    assert [row["label"] for row in missing.rows] == [None, ["x"]]
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert [row["text"] for row in read_table(tmp_path / "lines.txt").rows] == ["one", None, "two"]


def test_labels_without_an_example_are_noted_with_a_remedy() -> None:
    task = load_task([(f"text {i}", "abc"[i % 3]) for i in range(30)]).task
    (shown, drawn) = draw_notes(task, sample(task, 2, query=2))
    assert shown.startswith("no example of 1 of 3 labels: ")
    assert shown.endswith("; -n 3 or more shows one of each")
    assert drawn.startswith("no drawn held-back row of 1 of 3 labels: ")
    assert draw_notes(task, sample(task, 3, query=9)) == ()
