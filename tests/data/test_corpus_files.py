"""Corpora round-trip and are read lazily, and the released layout is read as well."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptmii import Example, Task
from promptmii.data.corpus_files import read_corpus, write_split
from promptmii.data.sources import read_tasks
from promptmii.errors import ArtefactError, DataError
from promptmii.evaluation.plan import EvaluateSettings, grid_tasks

datasets = pytest.importorskip("datasets")


def task(number: int) -> Task:
    rows = tuple(Example(f"text {number} {i}\nsecond line", "ab"[i % 2]) for i in range(6))
    source = {"repository": f"owner/set{number}", "revision": "f" * 40, "licence": "mit", "group": f"owner/set{number}"}
    return Task(
        f"owner/set{number}",
        ("b", "a"),
        rows[:4],
        rows[4:],
        source=source | {"columns": "text -> label", "template": "{a} {b}"},
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_split(tmp_path, "train", map(task, range(20)))
    write_split(tmp_path, "validation", [task(20)])
    write_split(tmp_path, "heldout", [task(21), task(22)])
    return tmp_path


def test_tasks_round_trip(corpus: Path) -> None:
    tasks = read_corpus(corpus, "train")
    assert len(tasks) == 20
    assert list(tasks) == [task(i) for i in range(20)]
    assert tasks[19] == task(19)
    assert tasks[3:5] == [task(3), task(4)]
    assert read_corpus(corpus, "heldout")[-1].source["template"] == "{a} {b}"


def test_datasets_reads_a_corpus(corpus: Path, tmp_path_factory) -> None:
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(corpus), cache_dir=str(tmp_path_factory.mktemp("cache")))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 20, "validation": 1, "heldout": 2}
    assert loaded["heldout"][0]["train"][0] == {"text": "text 21 0\nsecond line", "label": "a"}


def test_an_evaluation_accepts_a_corpus(corpus: Path) -> None:
    assert list(grid_tasks(EvaluateSettings(tasks=(str(corpus),)))) == ["owner/set21", "owner/set22"]
    assert list(grid_tasks(EvaluateSettings(tasks=(f"{corpus}:validation",)))) == ["owner/set20"]


def test_a_saved_dataset_with_splits_is_the_same_task_everywhere(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(12)]
    parts = {name: datasets.Dataset.from_list(part) for name, part in (("train", rows[:8]), ("test", rows[8:]))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    (task,) = grid_tasks(EvaluateSettings(tasks=(str(tmp_path / "saved"),))).values()
    assert (len(task.train), len(task.test)) == (8, 4)
    assert [same.key for same in read_tasks([str(tmp_path / "saved")]).values()] == [task.key]


def test_a_missing_corpus_or_split_is_reported(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="not a corpus"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(DataError, match="Did you mean 'heldout'"):
        read_corpus(corpus, "held-out")
    (corpus / "data" / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="it has heldout, train"):
        read_corpus(corpus, "validation")


@pytest.mark.parametrize("rows_of_lists", [False, True])
def test_the_released_layout_is_read(tmp_path: Path, rows_of_lists: bool) -> None:
    def examples(*pairs: tuple[str, str]):
        if rows_of_lists:
            return {"text": [text for text, _ in pairs], "label": [label for _, label in pairs]}
        return [{"text": text, "label": label} for text, label in pairs]

    def row(name: str, config: str, train, test, labels):
        columns = {"input_column": "review", "label_column": "stars", "split_name": "train"}
        return {
            "dataset_name": name,
            "config_name": config,
            "train_examples": train,
            "test_examples": test,
            "label_names": labels,
            **columns,
        }

    good = row(
        "a/b",
        "default",
        examples(("t1", "5"), ("t2", "1"), ("", "1")),
        examples(("t3", "1"), ("t4", "3")),
        ["5", "3", "1"],
    )
    named = row("a/c", "french", examples(("u1", "no"), ("u2", "yes")), examples(("u3", "yes")), ["yes"])
    lonely = row("a/d", "default", examples(("v1", "x")), examples(("v2", "x")), ["x"])
    pq.write_table(pa.Table.from_pylist([good, lonely, named]), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist([good]), tmp_path / "test-00000-of-00001.parquet")
    tasks = read_corpus(tmp_path)
    assert [t.name for t in tasks] == ["a/b", "a/c:french"]
    assert tasks[0].labels == ("5", "1"), "a label without a training row is dropped"
    assert tasks[1].labels == ("no", "yes"), "an incomplete label list is ignored"
    assert tasks[0].test == (Example("t3", "1"),)
    assert tasks[0].source["columns"] == "review -> stars"
    assert len(tasks.dropped) == 1
    assert "a/d" in tasks.dropped[0]
    assert len(read_corpus(tmp_path, "heldout")) == 1
