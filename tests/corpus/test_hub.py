"""The whole build as a user runs it, against a hub on loopback with realistic repositories."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.corpus.hub_server import HubServer, Repository, serving
from tests.corpus.repositories import as_csv, as_lines, as_parquet, card, rows, texts

from promptmii.data.corpus_files import read_corpus
from promptmii.task import Task

pytest.importorskip("datasets")
pytest.importorskip("datasketch")


def run(
    server: HubServer, home: Path, *arguments: str | Path, code: int = 0, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "promptmii", *map(str, arguments)],
        env=server.environment(home),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def published() -> dict[str, Repository]:
    mirror = rows("mirrored", [0, 1], 80)
    pairs = [
        {"premise": a, "hypothesis": b, "label": i % 3 - (i % 10 == 9)}
        for i, (a, b) in enumerate(zip(texts("premise", 70), texts("hypothesis", 70), strict=True))
    ]
    sorted_rows = [row | {"label": f"part {i // 500}"} for i, row in enumerate(rows("sorted", ["x"], 2000))]
    two = card(
        configs=[{"config_name": c, "data_files": f"{c}/*.csv"} for c in ("en", "de")],
        license="mit",
        language=["en", "de"],
    )
    train, test = rows("halves", ["yes", "no"], 60), rows("halves-test", ["yes", "no", "perhaps"], 30)
    tags = [row | {"tags": ["a", "b"]} for row in rows("tags", ["x"], 40)]
    for row in tags:
        del row["label"]
    return {
        "good/classes": Repository(
            {
                "README.md": card(license="mit"),
                "data/train-00000-of-00001.parquet": as_parquet(
                    rows("classes", [0, 1, 2, -1], 80), {"label": ["neg", "neu", "pos"]}
                ),
            }
        ),
        "good/pairs": Repository(
            {"README.md": card(), "train.parquet": as_parquet(pairs, {"label": ["no", "maybe", "yes"]})}
        ),
        "good/stars": Repository(
            {
                "README.md": card(license="apache-2.0"),
                "train.csv": as_csv(rows("stars", [1, 2, 3, 4, 5], text="review", label="stars")),
            }
        ),
        "good/two": Repository(
            {
                "README.md": two,
                "en/a.csv": as_csv(rows("english", ["in", "out"])),
                "de/a.csv": as_csv(rows("german", ["rein", "raus"])),
            }
        ),
        "good/sorted": Repository({"README.md": card(), "data.jsonl": as_lines(sorted_rows)}),
        "good/halves": Repository({"README.md": card(), "train.jsonl": as_lines(train), "test.jsonl": as_lines(test)}),
        "first/mirrored": Repository({"README.md": card(), "train.csv": as_csv(mirror)}),
        "second/copy": Repository(
            {
                "README.md": card(),
                "all.jsonl": as_lines([{"sentence": r["text"].upper(), "class": 1 - r["label"]} for r in mirror]),
            }
        ),
        "eval/bench": Repository({"README.md": card(), "train.csv": as_csv(rows("bench", ["a", "b"]))}),
        "third/bench-mirror": Repository(
            {"README.md": card(), "x.jsonl": as_lines(rows("bench", ["A", "B"], 60, "content", "category"))}
        ),
        "bad/latin": Repository(
            {"README.md": card(), "train.csv": b"text,label\n" + "schön,ja\n".encode("latin-1") * 50}
        ),
        "bad/lists": Repository({"README.md": card(), "train.jsonl": as_lines(tags)}),
        "bad/scores": Repository(
            {"README.md": card(), "train.csv": as_csv(rows("scores", [0.25, 0.5, 0.75], label="label"))}
        ),
        "bad/one": Repository({"README.md": card(), "train.csv": as_csv(rows("one", ["only"]))}),
        "bad/unique": Repository(
            {
                "README.md": card(),
                "train.csv": as_csv([r | {"label": f"l{i}"} for i, r in enumerate(rows("unique", ["x"]))]),
            }
        ),
        "bad/broken": Repository({"README.md": card(), "train.parquet": b"PAR1 no parquet at all PAR1"}),
        "bad/script": Repository({"README.md": card(), "script.py": b"raise SystemExit('remote code ran')"}),
        "bad/gated": Repository({"README.md": card(), "train.csv": as_csv(rows("gated", ["a", "b"]))}, gated=True),
        "bad/gone": Repository({"README.md": card(), "train.csv": as_csv(rows("gone", ["a", "b"]))}, gone=True),
        "bad/endless": Repository(
            {"README.md": card(), "train.csv": as_csv(rows("endless", ["a", "b"]))}, endless=True
        ),
        "other/images": Repository({"README.md": card(task_categories=["image-classification"])}),
    }


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with serving(HubServer(published())) as server:
        yield server


CONFIG = """
[list]
hub = true
[fetch]
rows = 400
seconds = 10
[split]
exclude = ["eval/bench"]
validation = 0.2
heldout = 0.2
"""


@pytest.fixture(scope="module")
def built(hub: HubServer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "corpus.toml").write_text(CONFIG)
    run(hub, folder / "home", "corpus", "build", folder / "corpus.toml", "-o", folder / "corpus")
    return folder / "corpus"


def table(corpus: Path, stage: str) -> dict[str, dict[str, str]]:
    with (corpus / f"{stage}.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def tasks(corpus: Path) -> dict[str, tuple[str, Task]]:
    return {
        task.name: (split, task) for split in ("train", "validation", "heldout") for task in read_corpus(corpus, split)
    }


pytestmark = pytest.mark.slow


def test_listed_datasets_are_pinned(built: Path, hub: HubServer) -> None:
    listed = table(built, "list")
    assert len(listed) == 21
    assert "other/images" not in listed
    assert listed["good/two:de"]["revision"] == hub.repositories["good/two"].sha
    assert listed["good/two:de"]["licence"] == "mit"


def test_good_datasets_become_tasks(built: Path) -> None:
    corpus_tasks = tasks(built)
    good = {"good/classes", "good/pairs", "good/stars", "good/two:en", "good/two:de", "good/sorted", "good/halves"}
    assert set(corpus_tasks) == good | {"first/mirrored", "second/copy"}
    assert corpus_tasks["good/classes"][1].labels == ("neg", "neu", "pos")
    assert corpus_tasks["good/stars"][1].labels == ("1", "2", "3", "4", "5")
    by_text = {row["review"]: str(row["stars"]) for row in rows("stars", [1, 2, 3, 4, 5], text="review", label="stars")}
    stars = corpus_tasks["good/stars"][1]
    assert all(by_text[example.text] == example.label for example in (*stars.train, *stars.test))
    pairs = corpus_tasks["good/pairs"][1]
    assert pairs.source["columns"] == "premise, hypothesis -> label"
    assert pairs.train[0].text.startswith("premise: premise ")
    assert "\nhypothesis: hypothesis " in pairs.train[0].text
    assert len(pairs.train) + len(pairs.test) == 70 - 3, "rows of class -1 have no label"
    assert pairs.source["licence"] == "unstated"
    assert len(pairs.source["revision"]) == 40


def test_a_file_sorted_by_label_gives_every_label_its_share(built: Path) -> None:
    task = tasks(built)["good/sorted"][1]
    counts = [sum(example.label == label for example in (*task.train, *task.test)) for label in task.labels]
    assert task.labels == ("part 0", "part 1", "part 2", "part 3")
    assert min(counts) > 70


def test_labels_come_only_from_the_training_rows(built: Path) -> None:
    task = tasks(built)["good/halves"][1]
    assert task.labels == ("no", "yes")
    assert all(example.text.startswith("halves-test ") for example in task.test)
    assert "10 rows: test rows whose label no training row has" in table(built, "clean")["good/halves"]["dropped"]


def test_mirrors_are_in_one_split_and_keep_their_own_sizes(built: Path) -> None:
    corpus_tasks = tasks(built)
    (split, first), (other, second) = corpus_tasks["first/mirrored"], corpus_tasks["second/copy"]
    assert split == other
    assert first.source["group"] == second.source["group"]
    labels = {example.text.upper(): example.label for example in (*first.train, *first.test)}
    assert all({labels[example.text], example.label} == {"0", "1"} for example in (*second.train, *second.test))
    assert "first/mirrored" in table(built, "split")["second/copy"]["reason"]


def test_evaluation_sets_and_their_mirrors_stay_out(built: Path) -> None:
    split = table(built, "split")
    assert split["eval/bench"]["reason"] == "it is an evaluation set (by name)"
    assert "shares 60 texts with the evaluation set eval/bench" in split["third/bench-mirror"]["reason"]


@pytest.mark.parametrize(
    ("name", "stage", "words"),
    [
        ("bad/latin", "fetch", "not UTF-8"),
        ("bad/lists", "columns", "looks like a label"),
        ("bad/scores", "columns", "fractions"),
        ("bad/one", "columns", "one value ('only')"),
        ("bad/unique", "columns", "60 different values in 60 rows"),
        ("bad/broken", "fetch", "Parquet"),
        ("bad/script", "fetch", ""),
        ("bad/gated", "fetch", "gated"),
        ("bad/gone", "fetch", "not on the hub"),
        ("bad/endless", "fetch", "more than 10 s"),
    ],
)
def test_other_datasets_are_dropped_with_a_reason(built: Path, name: str, stage: str, words: str) -> None:
    line = table(built, stage)[name]
    assert line["kept"] == "no"
    assert words in line["reason"]
    assert line["reason"]


def test_every_kept_dataset_appears_in_the_next_table(built: Path) -> None:
    names = [set(table(built, stage)) for stage in ("list", "fetch", "columns", "clean", "split")]
    kept = [
        {name for name, row in table(built, stage).items() if row["kept"] == "yes"}
        for stage in ("list", "fetch", "columns", "clean")
    ]
    assert names[1:] == kept
    assert set(tasks(built)) == {name for name, row in table(built, "split").items() if row["kept"] == "yes"}


def test_check_and_card(built: Path, hub: HubServer, tmp_path: Path) -> None:
    report = json.loads(run(hub, tmp_path, "corpus", "check", built, "--json").stdout)
    assert report["clean"] is True
    text = (built / "README.md").read_text()
    assert "9 text-classification tasks" in text
    assert (built / "figures" / "labels.png").stat().st_size > 1000


def test_a_second_build_does_nothing_and_retry_repeats_temporary_failures(
    built: Path, hub: HubServer, tmp_path: Path
) -> None:
    before = len(hub.requests)
    run(hub, tmp_path, "corpus", "build", built.parent / "corpus.toml", "-o", built)
    assert len(hub.requests) == before
    hub.repositories["bad/gated"].gated = hub.repositories["bad/gone"].gone = False
    hub.repositories["bad/endless"].endless = False
    run(hub, tmp_path, "corpus", "build", built.parent / "corpus.toml", "-o", built, "--retry")
    assert {"bad/gated", "bad/gone", "bad/endless"} <= set(tasks(built))
    assert not [line for line in hub.requests[before:] if "good/" in line]


def test_push_and_read_back(built: Path, hub: HubServer, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "corpus", "build", built.parent / "corpus.toml", "-o", built, "--push", "me/corpus")
    assert "/datasets/me/corpus" in done.stderr
    assert hub.repositories["me/corpus"].private
    assert "data/train-00000-of-00001.parquet" in hub.repositories["me/corpus"].files
    assert not [name for name in hub.repositories["me/corpus"].files if name.startswith(("raw", "stages", "tasks"))]
    code = "import datasets; print({k: len(v) for k, v in datasets.load_dataset('me/corpus').items()})"
    read = subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert f"'train': {len(read_corpus(built))}" in read.stdout, read.stderr


def test_a_hub_reference_loads_a_dataset(hub: HubServer, tmp_path: Path) -> None:
    sha = hub.repositories["good/two"].sha
    code = (
        "import sys; from promptmii.data import load_task\n"
        f"task = load_task('hub:good/two:de@{sha}').task; print(task.labels)\n"
        "print(load_task('hub:good/classes').task.labels)\n"
        "print(load_task('hub:good/pairs', text='{premise} // {hypothesis}').task.train[0].text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[:2] == ["('raus', 'rein')", "('neg', 'neu', 'pos')"], done.stderr
    assert " // hypothesis " in done.stdout
