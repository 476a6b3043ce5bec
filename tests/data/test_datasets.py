"""Datasets from disk and from the hub, and rows that round-trip through every file format."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmii.data import load_task, read_table
from promptmii.errors import DataError

datasets = pytest.importorskip("datasets")

CLASSES = ["spam", "ham", "none of both"]


def test_a_dataset_with_a_script_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "old.py").write_text("import datasets\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"hub:old cannot be loaded: .*script"):
        read_table("hub:old")


@pytest.fixture(autouse=True)
def _no_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def dataset(name: str, classes: Sequence[int], **columns: list[object]):
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=CLASSES)}
    features |= dict.fromkeys(columns, datasets.Value("string"))
    rows = {"text": [f"{name} text {i}" for i in range(len(classes))], "label": list(classes), **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


class TestSavedDatasets:
    def test_class_numbers_become_names_in_schema_order(self, tmp_path: Path) -> None:
        dataset("a", [2, 1, 0] * 4).save_to_disk(tmp_path / "saved")
        task = load_task(tmp_path / "saved").task
        assert task.labels == tuple(CLASSES)
        assert {(e.text, e.label) for e in (*task.train, *task.test)} == {
            (f"a text {i}", CLASSES[2 - i % 3]) for i in range(12)
        }

    def test_a_dataset_in_memory_gives_the_same_task(self, tmp_path: Path) -> None:
        rows = dataset("a", [2, 1, 0] * 4)
        rows.save_to_disk(tmp_path / "saved")
        assert load_task(rows).task.key == load_task(tmp_path / "saved").task.key

    def test_rows_without_a_class_are_dropped_and_counted(self, tmp_path: Path) -> None:
        dataset("a", [0, 1, -1] * 5).save_to_disk(tmp_path / "saved")
        loaded = load_task(tmp_path / "saved")
        assert "5 rows dropped: no label" in loaded.notes
        assert len(loaded.task.train) + len(loaded.task.test) == 10
        assert loaded.task.labels == ("spam", "ham")

    def test_the_schema_identifies_the_label_column(self) -> None:
        loaded = load_task(dataset("a", [0, 1] * 8, type=["x", "y"] * 8))
        assert loaded.columns.label == "label"
        assert loaded.columns.text == ("text",)

    def test_the_splits_of_the_source_are_kept(self, tmp_path: Path) -> None:
        parts = {
            "train": dataset("train", [0, 1] * 6),
            "test": dataset("test", [0, 1] * 2),
            "unsupervised": dataset("more", [-1] * 3),
        }
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
        task = load_task(tmp_path / "saved").task
        assert [e.text for e in task.train] == [f"train text {i}" for i in range(12)]
        assert [e.text for e in task.test] == [f"test text {i}" for i in range(4)]

    def test_the_label_set_comes_from_the_training_part(self, tmp_path: Path) -> None:
        parts = {"train": dataset("train", [0, 1] * 6), "test": dataset("test", [0, 1, 2])}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
        loaded = load_task(tmp_path / "saved")
        assert loaded.task.labels == ("spam", "ham")
        assert any(note.startswith("1 test row dropped") for note in loaded.notes)

    def test_another_kind_of_folder_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"without dataset_info\.json"):
            load_task(tmp_path)

    @pytest.mark.parametrize("content", [None, b"damaged"], ids=["missing", "damaged"])
    @pytest.mark.parametrize("name", ["state.json", "data-00000-of-00001.arrow"])
    def test_an_incomplete_folder_is_reported(self, tmp_path: Path, name: str, content: bytes | None) -> None:
        dataset("a", [0, 1] * 6).save_to_disk(tmp_path / "saved")
        (tmp_path / "saved" / name).unlink()
        if content:
            (tmp_path / "saved" / name).write_bytes(content)
        with pytest.raises(DataError, match=r"saved is not a complete folder.*Save it again"):
            load_task(tmp_path / "saved")


LOAD = """
import sys
from promptmii.data import load_task
from promptmii.errors import DataError
for reference in sys.argv[1:]:
    try:
        load_task(reference)
    except DataError as error:
        print(error)
"""


class EmptyHub(BaseHTTPRequestHandler):
    """A hub without datasets."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the test output quiet."""


@pytest.fixture
def empty_hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyHub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestHub:
    """`huggingface_hub` reads its environment on import, so each hub gets its own process."""

    def errors(self, home: Path, *references: str, **environment: str) -> list[str]:
        command = [sys.executable, "-W", "error", "-c", LOAD, *references]
        proxies = {name: "" for name in os.environ if name.casefold().endswith("_proxy")}
        surroundings = os.environ | proxies | {"HF_HOME": str(home)} | environment
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings, cwd=home)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    @pytest.mark.slow
    def test_an_offline_error_names_the_reference_and_the_expected_format(self, tmp_path: Path) -> None:
        (message,) = self.errors(tmp_path, "hub:owner/name", HF_HUB_OFFLINE="1")
        assert message.startswith("hub:owner/name cannot be loaded: Couldn't reach 'owner/name'")
        assert message.endswith("Expected hub:owner/name[:config][@revision] and a network.")

    @pytest.mark.slow
    def test_a_missing_dataset_is_reported(self, tmp_path: Path, empty_hub: str) -> None:
        references = ["hub:owner/name:config@main", "hub:two words", "hub:", "hub:@main"]
        messages = self.errors(tmp_path, *references, HF_ENDPOINT=empty_hub)
        assert [reference in message for reference, message in zip(references, messages, strict=True)] == [True] * 4
        assert "doesn't exist on the Hub" in messages[0]
        assert all("hub:owner/name[:config][@revision]" in message for message in messages)


Rows = list[dict[str, str]]


def as_csv(rows: Rows, delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


FORMATS = {
    "csv": lambda rows: as_csv(rows, ","),
    "tsv": lambda rows: as_csv(rows, "\t"),
    "json": lambda rows: json.dumps(rows).encode(),
    "columns.json": lambda rows: json.dumps({name: [row[name] for row in rows] for name in rows[0]}).encode(),
    "data.json": lambda rows: json.dumps({"data": rows}, ensure_ascii=False).encode(),
    "jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
    "ndjson": lambda rows: "".join(json.dumps(row) + "\r\n" for row in rows).encode(),
    "parquet": as_parquet,
}
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
) | st.sampled_from(
    [
        "NA",
        "null",
        "nan",
        "007",
        "1e5",
        'a "quoted" b',
        "a,b;c\td|e",
        "line\r\nline\n",
        "\u2028",
        "\x85",
        " x ",
        "=1+1",
        "体 é ш",
    ]
)


@pytest.mark.parametrize("ending", FORMATS)
@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=5), zipped=st.booleans())
def test_rows_round_trip_through_every_format(
    tmp_path_factory: pytest.TempPathFactory, ending: str, pairs: list[tuple[str, str]], zipped: bool
) -> None:
    rows = [{"text": text, "label": label} for text, label in pairs]
    content = FORMATS[ending](rows)
    path = tmp_path_factory.getbasetemp() / f"rows.{ending}{'.gz' * zipped}"
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    table = read_table(path)
    assert table.columns == ("text", "label")
    assert list(table.rows) == rows


def test_parquet_numbers_and_missing_values_are_preserved(tmp_path: Path) -> None:
    columns = {"text": ["a", None, "c"], "stars": pa.array([1, 2, None], pa.int8()), "score": [0.5, float("nan"), 1.0]}
    kinds = pa.table({**columns, "kind": pa.array(["x", "y", "x"]).dictionary_encode()})
    pq.write_table(kinds, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows == (
        {"text": "a", "stars": 1, "score": 0.5, "kind": "x"},
        {"text": None, "stars": 2, "score": None, "kind": "y"},
        {"text": "c", "stars": None, "score": 1.0, "kind": "x"},
    )


def test_a_truncated_gzip_file_is_rejected(tmp_path: Path) -> None:
    whole = gzip.compress(as_csv([{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(500)], ","))
    for cut in (1, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.csv.gz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="not a complete gzip file"):
            read_table(tmp_path / "a.csv.gz")


def test_an_impossible_file_name_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_table(tmp_path / f"{'long ' * 100}.csv")
