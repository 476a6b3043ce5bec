"""Finding tasks in every kind of source, and errors for sources without tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from promptmii import Example, Task
from promptmii.data.corpus_files import JOURNALS, write_split
from promptmii.data.sources import bundled_folder, find_tasks, read_tasks, task_name
from promptmii.errors import DataError

ROWS = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(12))


def task(name: str) -> Task:
    rows = tuple(Example(f"{name} {i}", "ab"[i % 2]) for i in range(6))
    return Task(name, ("a", "b"), rows[:4], rows[4:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tasks"
    path.mkdir()
    (path / "one.csv").write_text(ROWS)
    (path / "two.v2.CSV").write_text(ROWS)
    return path


def test_a_source_may_be_a_folder_or_a_file(folder: Path) -> None:
    assert list(read_tasks([str(folder)])) == ["one", "two.v2"]
    assert list(read_tasks([str(folder / "one.csv")])) == ["one"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["suite", "written"])
def test_bundled_tasks_are_a_source(name: str) -> None:
    files = [path for path in bundled_folder(name).iterdir() if path.suffix in (".json", ".jsonl")]
    assert read_tasks([name]).keys() == {path.stem for path in files}


@pytest.mark.parametrize(
    "name", ["._one.csv", ".hidden.csv", ".one.csv.swp", "~$one.xlsx", "README.txt", "notes.md", "index.csv"]
)
def test_hidden_files_notes_and_the_index_are_ignored(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"task_id,source_repo\none,a/b\n" if name == "index.csv" else b"\0\5\x16\7\0\2\0\0")
    assert list(read_tasks([str(folder)])) == ["one", "two.v2"]


def test_the_ending_of_a_name_may_be_in_capitals(tmp_path: Path) -> None:
    assert task_name(tmp_path / "Shop.CSV.GZ") == task_name(tmp_path / "Shop.csv.gz") == "Shop"


def test_an_index_gives_the_origin_of_tasks(folder: Path) -> None:
    (folder / "index.csv").write_text("task_id,source_repo,licence\none,a/b,MIT\n")
    tasks = read_tasks([str(folder)])
    assert (tasks["one"].source["group"], tasks["one"].source["licence"]) == ("a/b", "MIT")
    assert "group" not in tasks["two.v2"].source
    (folder / "index.csv").write_text("text,label\nno index at all,a\n")
    assert list(read_tasks([str(folder)]))
    (folder / "index.csv").write_text("name,source_repo\none,a/b\n")
    with pytest.raises(DataError, match=r"index\.csv has no column task_id"):
        read_tasks([str(folder)])


def test_paths_may_contain_parent_and_hidden_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".cache" / "deep").mkdir(parents=True)
    (folder / ".cache" / "deep" / "three.csv").write_text(ROWS)
    monkeypatch.chdir(folder / ".cache" / "deep")
    assert list(read_tasks(["../.."])) == ["one", "two.v2"]
    assert list(read_tasks(["."])) == ["three"]
    assert list(read_tasks(["../../one.csv"])) == ["one"]


def test_a_corpus_gives_the_requested_splits(tmp_path: Path) -> None:
    for split in ("train", "validation", "heldout"):
        write_split(tmp_path, split, [task(split)])
    (tmp_path / "data" / "._train-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7")
    assert list(read_tasks([str(tmp_path)])) == ["heldout"]
    assert list(read_tasks([str(tmp_path)], splits=("train", "validation"))) == ["train", "validation"]
    assert list(read_tasks([f"{tmp_path}:validation"], splits=("train",))) == ["validation"]
    assert read_tasks([str(tmp_path)])["heldout"].source["split"] == "heldout"


def test_a_broken_file_fails_only_when_it_is_read(folder: Path) -> None:
    (folder / "one.csv").write_text("text,label\n")
    sources = {source.name: source for source in find_tasks([str(folder)])}
    assert len(sources["two.v2"].read().labels) == 2
    with pytest.raises(DataError, match=r"one\.csv"):
        sources["one"].read()


def missing_file(folder: Path) -> list[str]:
    return [str(folder / "nowhere.csv")]


def empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return [str(folder / "empty")]


def unfinished_corpus(folder: Path) -> list[str]:
    (folder / JOURNALS).mkdir()
    (folder / JOURNALS / "list.jsonl").touch()
    return [str(folder)]


def duplicate_names(folder: Path) -> list[str]:
    (folder / "one.json").write_text(json.dumps([{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(9)]))
    return [str(folder)]


def small_corpus(folder: Path) -> list[str]:
    write_split(folder, "train", [task("a"), task("b")])
    write_split(folder, "heldout", [])
    return [str(folder)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing_file, "does not exist"),
        (unfinished_corpus, "is an unfinished corpus"),
        (empty_folder, "holds no task file"),
        (duplicate_names, r"Two tasks have the name 'one'.*one\.json"),
        (small_corpus, r"has no task in heldout. Its splits: .*:train \(2\), .*:heldout \(0\)"),
    ],
)
def test_sources_without_tasks_are_reported(folder: Path, make: Callable[[Path], list[str]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_tasks(make(folder))
