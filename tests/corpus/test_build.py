"""Builds from local folders: resumed, killed, with harmful datasets."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.corpus.hub_server import HubServer, Repository, serving
from tests.corpus.repositories import as_csv, as_lines, card, rows
from tests.recorder import Recorder

from promptmii.configs import config_path
from promptmii.corpus.build import build_corpus
from promptmii.corpus.settings import CorpusSettings
from promptmii.data.corpus_files import JOURNALS, read_corpus
from promptmii.errors import ConfigError, DataError, EndpointError

pytest.importorskip("datasketch")
pytest.importorskip("matplotlib")


def folder_of_tasks(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    lines = ["task_id,source_repo,licence,domain"]
    for i in range(count):
        (folder / f"task{i}.jsonl").write_bytes(as_lines(rows(f"topic{i}", ["a", "b", "c"], 60)))
        lines.append(f"task{i},owner/repo{i // 2},MIT,shop|toys")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def settings(folder: Path, **changes) -> CorpusSettings:
    return CorpusSettings.of(list={"local": (str(folder),)}, **changes)


@pytest.mark.slow
def test_a_folder_of_files_becomes_a_corpus(tmp_path: Path) -> None:
    built = build_corpus(
        settings(folder_of_tasks(tmp_path / "data"), split={"heldout": 0.2, "validation": 0.2}), tmp_path / "corpus"
    )
    assert built.leakage is not None
    assert built.leakage.clean
    parts = {split: list(read_corpus(tmp_path / "corpus", split)) for split in ("train", "validation", "heldout")}
    assert sum(map(len, parts.values())) == 12
    assert [len(part) for part in parts.values()] == [8, 2, 2]
    repositories = [{task.source["repository"] for task in part} for part in parts.values()]
    assert sum(map(len, repositories)) == len(set.union(*repositories)) == 6
    task = parts["train"][0]
    assert (task.source["licence"], task.source["columns"], task.source["domain"]) == (
        "MIT",
        "text -> label",
        "shop|toys",
    )
    assert r"| shop\|toys | 12 |" in (tmp_path / "corpus" / "README.md").read_text("utf-8")
    (tmp_path / "data" / "task0.jsonl").write_bytes(as_lines(rows("another", ["x", "y"], 60)))
    journals = [tmp_path / "corpus" / JOURNALS / f"{stage}.jsonl" for stage in ("fetch", "columns", "clean")]
    before = [len(path.read_text().splitlines()) for path in journals]
    build_corpus(
        settings(tmp_path / "data", split={"heldout": 0.2, "validation": 0.2}),
        tmp_path / "corpus",
    )
    after = [len(path.read_text().splitlines()) for path in journals]
    assert after == [count + 1 for count in before], "only what changed is fetched, read and cleaned again"


def test_settings_and_sources_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing to list"):
        build_corpus(CorpusSettings(), tmp_path / "corpus")
    with pytest.raises(DataError, match="is not a folder"):
        build_corpus(settings(tmp_path / "nothing"), tmp_path / "corpus")
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        build_corpus(settings(tmp_path, split={"exclude_content": ("nowhere.csv",)}), tmp_path / "refused")
    assert not (tmp_path / "refused" / "list.csv").exists(), "refused before anything is fetched"
    with pytest.raises(ConfigError, match="Did you mean 'split'"):
        CorpusSettings.of(splits={})
    CorpusSettings.read(config_path("corpus", "hub"))


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "promptmii", "corpus", *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def names(path: Path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_a_corpus_without_a_task_is_an_error_that_names_the_reasons(tmp_path: Path) -> None:
    data = folder_of_tasks(tmp_path / "data", 2)
    recorder = Recorder()
    build_corpus(settings(data), tmp_path / "corpus", progress=recorder)
    for split in ("validation", "heldout"):
        assert f"The split {split} is empty: its share is 0.1 of 2 tasks" in "\n".join(recorder.notes)
    with pytest.raises(DataError, match=r"No task is left in any split: .*split\.csv"):
        build_corpus(settings(data, split={"exclude": ("owner/repo0",)}), tmp_path / "corpus")
    with (tmp_path / "corpus" / "split.csv").open(encoding="utf-8", newline="") as file:
        assert {row["reason"] for row in csv.DictReader(file)} == {"it is an evaluation set (by name)"}


@pytest.mark.slow
def test_a_dropped_dataset_is_advised_in_the_settings_of_a_build(tmp_path: Path) -> None:
    folder_of_tasks(tmp_path / "data", 1)
    (tmp_path / "data" / "ids.csv").write_bytes(as_csv([{"text": f"text {i}", "code": f"{i}"} for i in range(40)]))
    built = build_corpus(settings(tmp_path / "data"), tmp_path / "corpus", until="columns")
    (reason,) = [entry.reason for entry in built.stages["columns"] if not entry.kept]
    assert reason.endswith("Name it with columns.label.")


@pytest.mark.slow
@pytest.mark.parametrize("personal", ["keep", "mask"])
def test_columns_may_be_fields_of_objects(tmp_path: Path, personal: str) -> None:
    nested = [{"mail": {"body": row["text"]}, "meta": {"topic": row["label"]}} for row in rows("nested", ["a", "b"])]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mails.jsonl").write_bytes(as_lines(nested))
    columns = {"text": "mail.body", "label": "meta.topic"}
    clean = {"personal": personal}
    built = build_corpus(settings(tmp_path / "data", columns=columns, clean=clean), tmp_path / "corpus", until="clean")
    (entry,) = built.stages["clean"]
    assert (entry.kept, entry.detail["labels"]) == (True, 2)


@pytest.mark.slow
def test_a_killed_build_resumes_without_fetching_twice(tmp_path: Path) -> None:
    folder_of_tasks(tmp_path / "data", 60)
    fetched = tmp_path / "corpus" / "stages" / "fetch.jsonl"
    process = run("build", "--local", tmp_path / "data", "-o", tmp_path / "corpus")
    while len(names(fetched)) < 10:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = names(fetched)
    assert len(before) < 60
    again = run("build", "--local", tmp_path / "data", "-o", tmp_path / "corpus")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    after = names(fetched)
    assert after[: len(before)] == before
    assert sorted(after) == sorted(set(after))
    assert len(after) == 60
    assert not list((tmp_path / "corpus").rglob("*.tmp"))
    assert (tmp_path / "corpus").stat().st_mode & 0o077 == 0, "readable by its owner alone"


@pytest.mark.slow
def test_a_harmful_dataset_drops_only_itself(tmp_path: Path) -> None:
    data = folder_of_tasks(tmp_path / "data", 4)
    # One line without an end: reading it needs more memory than there is.
    with (data / "huge.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(600):
            file.write(b"x" * (1 << 20))
    built = build_corpus(settings(data, fetch={"memory_mib": 512, "scan_mib": 1024}), tmp_path / "corpus")
    verdict = {entry.name: entry for entry in built.stages["fetch"]}
    assert verdict["huge"].reason == "reading it took more than 512 MiB of memory"
    assert verdict["huge"].temporary
    assert sum(entry.kept for entry in built.stages["fetch"]) == 4


@pytest.mark.slow
def test_a_busy_hub_is_waited_for_and_a_hub_that_is_down_ends_the_run(tmp_path: Path) -> None:
    files = {
        f"owner/set{i}": Repository({"README.md": card(), "train.csv": as_csv(rows(f"busy{i}", ["a", "b"]))})
        for i in range(2)
    }
    said: set[str] = set()

    def busy(path: str, _number: int) -> str | None:
        if path in said:
            return None
        said.add(path)
        return '429:RateLimit:"api";r=0;t=3' if "set1" in path else "429:Retry-After:1"

    config = tmp_path / "corpus.toml"
    config.write_text("[list]\nhub = true\n[fetch]\nseconds = 8\npatience = 2\n")
    with serving(HubServer(files, faults=busy)) as hub:
        environment = hub.environment(tmp_path / "home")
        process = run("build", config, "-o", tmp_path / "corpus", "--json", env=environment)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert json.loads(output)["stages"]["fetch"] == {"kept": 2, "dropped": {}}
        hub.faults = lambda path, _: None if path == "/api/datasets" else "503"
        process = run("build", config, "-o", tmp_path / "other", env=environment)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == EndpointError.exit_code, errors
        assert "Run the same command again" in errors
        hub.faults = None
        process = run("build", config, "-o", tmp_path / "other", env=environment)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with (tmp_path / "other" / "fetch.csv").open(encoding="utf-8", newline="") as file:
        assert [row["kept"] for row in csv.DictReader(file)] == ["yes"] * 2


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cluster_builds_the_same_corpus(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    data = folder_of_tasks(tmp_path / "data", 6)
    build_corpus(settings(data), tmp_path / "here")
    try:
        build_corpus(settings(data, ray={"workers": 2, "cpus": 0.5}, fetch={"memory_mib": 512}), tmp_path / "there")
    finally:
        ray.shutdown()
    for split in ("train", "validation", "heldout"):
        assert list(read_corpus(tmp_path / "here", split)) == list(read_corpus(tmp_path / "there", split))
