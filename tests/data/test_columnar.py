"""Tables with a schema (Parquet, Arrow, `datasets`), data frames, arrays and workbooks."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptmii import Example
from promptmii.data import load_task, read_table
from promptmii.errors import DataError

TEXTS = [f"text number {i}" for i in range(12)]
LABELS = list("ab") * 6
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def polars_frame(*, lazy: bool = False) -> Any:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"text": TEXTS, "label": LABELS})
    return frame.lazy() if lazy else frame


MEMORY: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas, nullable": lambda: pd.DataFrame(ROWS).convert_dtypes(),
    "pandas, categories": lambda: pd.DataFrame(ROWS).astype("category"),
    "pandas, to_dict": lambda: pd.DataFrame(ROWS).to_dict(),
    "pandas, named index": lambda: pd.DataFrame(ROWS).set_index("text"),
    "pandas, two indexes": lambda: pd.DataFrame(ROWS).set_index(["text", "label"]),
    "polars": polars_frame,
    "polars, lazy": lambda: polars_frame(lazy=True),
    "arrow": lambda: pa.Table.from_pylist(ROWS),
    "lists": lambda: {"text": TEXTS, "label": LABELS},
    "arrow columns": lambda: {"text": pa.chunked_array([TEXTS]), "label": pa.array(LABELS)},
    "polars, lazy splits": lambda: {"train": polars_frame(lazy=True)},
    "arrays": lambda: {"text": np.array(TEXTS), "label": np.array(LABELS, dtype=object)},
    "series": lambda: {"text": pd.Series(TEXTS), "label": pd.Series(LABELS).astype("category")},
    "an array of pairs": lambda: np.array([TEXTS, LABELS]).T,
    "pairs": lambda: zip(TEXTS, LABELS, strict=True),
    "examples": lambda: [Example(text, label) for text, label in zip(TEXTS, LABELS, strict=True)],
}


@pytest.mark.parametrize("kind", MEMORY)
def test_every_in_memory_source_gives_the_same_rows(kind: str) -> None:
    assert list(read_table(MEMORY[kind]()).rows) == ROWS


@pytest.mark.parametrize("split", ["test", "validation"])
def test_splits_in_memory_are_kept(split: str) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {"train": ROWS[:8], split: ROWS[8:]}
    frames = {name: pd.DataFrame(part) for name, part in parts.items()}
    sets = datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()})
    streams = datasets.IterableDatasetDict({name: part.to_iterable_dataset() for name, part in sets.items()})
    tables = {name: pa.Table.from_pylist(part) for name, part in parts.items()}
    for source in (parts, frames, sets, streams, tables, {**parts, "train": frames["train"]}):
        task = load_task(source).task
        assert [e.text for e in task.train] == TEXTS[:8]
        assert [e.text for e in task.test] == TEXTS[8:]


def test_an_empty_split_is_left_out_with_a_note() -> None:
    datasets = pytest.importorskip("datasets")
    empty: list[dict[str, str]] = []
    parts = {"train": ROWS, "test": empty}
    frames = {"train": pd.DataFrame(ROWS), "test": pd.DataFrame(empty, columns=["text", "label"])}
    sets = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS).select([])}
    )
    for source in (parts, frames, sets):
        loaded = load_task(source)
        assert len(loaded.task.train) + len(loaded.task.test) == len(ROWS)
        assert "the split 'test' is empty" in loaded.notes
    with pytest.raises(DataError, match="columns in memory holds no rows"):
        load_task({"train": empty, "test": empty})


def test_the_missing_value_of_databases_is_missing_in_every_string_type() -> None:
    cells = ["\\N", b"\\N", np.str_("\\N"), "", b"", np.str_("a")]
    assert [row["text"] for row in read_table([{"text": cell} for cell in cells]).rows] == [None] * 5 + ["a"]


def test_a_fraction_is_no_class_number() -> None:
    task = {
        "data": [{"text": f"text {i}", "label": label} for i, label in enumerate([0, 1.0, 1.7])],
        "labels": ["a", "b"],
    }
    assert [row["label"] for row in read_table(task).rows] == ["a", "b", 1.7]


def test_an_unused_split_is_noted() -> None:
    parts = {"train": ROWS[:6], "validation": ROWS[6:8], "test": ROWS[8:]}
    assert "the split 'validation' is not used (2 rows)" in load_task(parts).notes


def test_splits_in_a_column_are_noted() -> None:
    frame = pd.DataFrame(ROWS).assign(part=["train"] * 8 + ["test"] * (len(ROWS) - 8))
    assert "the splits in the column 'part' (test, train) are not used" in " ".join(load_task(frame).notes)


def test_class_numbers_in_lists_become_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kind = datasets.Sequence(datasets.ClassLabel(names=["b", "a"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [[1], [0]] * 5 + [[0, 1], [0]]}, features=features)
    datasets.disable_progress_bars()
    rows.to_parquet(str(tmp_path / "a.parquet"))
    for source in (tmp_path / "a.parquet", rows, rows.to_iterable_dataset(), pq.read_table(tmp_path / "a.parquet")):
        loaded = load_task(source)
        assert loaded.task.labels == ("b", "a")
        assert "1 row dropped: several labels for one text" in loaded.notes


def test_an_open_file_is_rejected(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file, pytest.raises(DataError, match="give its path"):
        read_table(file)


def test_parquet_class_numbers_become_schema_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0] * 5 + [-1, 0]}, features=features)
    datasets.disable_progress_bars()
    rows.to_parquet(str(tmp_path / "a.parquet"))
    for source in (tmp_path / "a.parquet", rows, rows.to_iterable_dataset(), pq.read_table(tmp_path / "a.parquet")):
        loaded = load_task(source)
        assert loaded.task.labels == ("b", "a")
        assert "1 row dropped: no label" in loaded.notes


NO_NAMES = b'{"info": {"features": {"label": {"names": null, "_type": "ClassLabel"}}}}'


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": {"label": 3}}}', NO_NAMES]
)
def test_unrelated_metadata_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    table = pa.Table.from_pylist(ROWS).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet").rows) == ROWS


def test_utf_8_binary_columns_are_text(tmp_path: Path) -> None:
    columns = {"text": [text.encode() for text in TEXTS], "label": [label.encode() for label in LABELS]}
    pq.write_table(pa.table({**columns, "image": [b"\xff\xd8\xff"] * 12}), tmp_path / "a.parquet")
    assert load_task(tmp_path / "a.parquet").task.key == load_task(ROWS).task.key
    pq.write_table(pa.table({"text": TEXTS, "label": pa.array([b"\xff", b"\xfe"] * 6)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="label column 'label' holds"):
        load_task(tmp_path / "a.parquet", label="label")


def test_duplicate_column_names_are_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(TEXTS), pa.array(TEXTS), pa.array(LABELS)], names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns 'text'"):
        read_table(tmp_path / "a.parquet")


class TestWorkbooks:
    def save(self, path: Path, *sheets: list[list[Any]]) -> Path:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.remove(book.active)
        for rows in sheets:
            sheet = book.create_sheet()
            for row in rows:
                sheet.append(row)
        book.save(path)
        return path

    @pytest.mark.slow
    def test_the_first_non_empty_sheet_is_read(self, tmp_path: Path) -> None:
        body = [[text, label] for text, label in zip(TEXTS, LABELS, strict=True)]
        rows = [["Tickets of May"], [], ["text", "label", None], *body]
        table = read_table(self.save(tmp_path / "a.xlsx", [], rows, [["other"], ["rows"]]))
        assert list(table.rows) == ROWS
        assert table.notes == ("sheet 'Sheet1' of 3", "1 line above the header skipped")

    def test_a_sheet_of_remarks_is_skipped(self, tmp_path: Path) -> None:
        rows = [["text", "label"], *([row["text"], row["label"]] for row in ROWS)]
        table = read_table(self.save(tmp_path / "a.xlsx", [["About this book"], ["See the next sheet"]], rows))
        assert (list(table.rows), table.notes) == (ROWS, ("sheet 'Sheet1' of 2",))
        for cover in ([["Version", "2.1"]], [["About this book"], ["Author", "Ann"]]):
            assert list(read_table(self.save(tmp_path / "b.xlsx", cover, rows)).rows) == ROWS

    def test_a_hidden_sheet_is_not_read_in_place_of_a_visible_one(self, tmp_path: Path) -> None:
        rows = [["text", "label"], *([row["text"], row["label"]] for row in ROWS)]
        path = self.save(tmp_path / "a.xlsx", [["label", "meaning"], ["a", "first"], ["b", "second"]], rows)
        book = pytest.importorskip("openpyxl").load_workbook(path)
        book["Sheet"].sheet_state = "hidden"
        book.active = 1
        book.save(path)
        table = read_table(path)
        assert (list(table.rows), table.notes) == (ROWS, ("sheet 'Sheet1' of 2",))

    def test_an_escaped_carriage_return_is_decoded(self, tmp_path: Path) -> None:
        rows = [["text", "label"], *([f"{row['text']}_x000D_\nmore", row["label"]] for row in ROWS)]
        assert read_table(self.save(tmp_path / "a.xlsx", rows)).rows[0]["text"] == "text number 0\r\nmore"

    @pytest.mark.parametrize("label_first", [True, False])
    def test_a_merged_label_belongs_to_each_of_its_rows(self, tmp_path: Path, label_first: bool) -> None:
        def cells(text: str, label: str | None) -> list[Any]:
            return [label, text] if label_first else [text, label]

        labels = ["good", None, None, "bad", None]
        body = [cells(f"text number {number}", label) for number, label in enumerate(labels)]
        path = self.save(tmp_path / "a.xlsx", [["Tickets of May"], cells("text", "label"), *body, []])
        column = "A" if label_first else "B"
        book = pytest.importorskip("openpyxl").load_workbook(path)
        for merged in ("A1:B1", f"{column}3:{column}5", f"{column}6:{column}9"):
            book.active.merge_cells(merged)
        book.save(path)
        assert [row["label"] for row in read_table(path).rows] == ["good", "good", "good", "bad", "bad"]

    def test_a_header_merged_over_two_rows_is_not_repeated(self, tmp_path: Path) -> None:
        rows = [["text", "label"], [None, "kind"], *([row["text"], row["label"]] for row in ROWS)]
        path = self.save(tmp_path / "a.xlsx", rows)
        book = pytest.importorskip("openpyxl").load_workbook(path)
        book.active.merge_cells("A1:A2")
        book.save(path)
        assert [row["text"] for row in read_table(path).rows] == [None, *TEXTS]

    def test_a_stored_range_that_is_too_small_loses_no_row(self, tmp_path: Path) -> None:
        rows = [["text", "label"], *([row["text"], row["label"]] for row in ROWS)]
        path = self.save(tmp_path / "a.xlsx", rows)
        with zipfile.ZipFile(path) as book, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as copy:
            for name in book.namelist():
                copy.writestr(name, re.sub(rb'(<dimension ref=)"[^"]*"', rb'\1"A1:A3"', book.read(name)))
        assert read_table(tmp_path / "b.xlsx").rows == read_table(path).rows

    def test_a_message_names_the_sheet_that_was_read(self, tmp_path: Path) -> None:
        rows = [["text", "label"], *([row["text"], row["label"]] for row in ROWS)]
        path = self.save(tmp_path / "a.xlsx", [["key", "value"], ["source", "shop"], ["date", "May"]], rows)
        with pytest.raises(DataError, match=r"Columns: key, value \(sheet 'Sheet' of 2\)"):
            load_task(path)

    @pytest.mark.parametrize("content", [b"PK\x03\x04", b"no workbook"])
    def test_a_broken_workbook_is_reported(self, tmp_path: Path, content: bytes) -> None:
        pytest.importorskip("openpyxl")
        (tmp_path / "a.xlsx").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.xlsx is not a readable workbook"):
            read_table(tmp_path / "a.xlsx")
        with pytest.raises(DataError, match="no sheet with a header and rows"):
            read_table(self.save(tmp_path / "b.xlsx", []))
