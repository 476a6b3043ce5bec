"""The shipped recipes that name their datasets, against a hub on loopback that has these."""

from pathlib import Path

import pytest
from tests.corpus.hub_server import HubServer, Repository, serving
from tests.corpus.repositories import as_csv, as_parquet, card, rows, texts
from tests.corpus.test_hub import run, table, tasks

from promptmii.configs import recipes
from promptmii.corpus.settings import CorpusSettings

pytest.importorskip("datasets")
pytest.importorskip("datasketch")
pytestmark = pytest.mark.slow
NAMED = CorpusSettings.read(recipes("corpus")["btzsc"]).list.repositories
SETS = [name.partition(":")[2].partition("@")[0] for name in NAMED]


def pairs(topic: str, labels: list[str], count: int) -> bytes:
    """Rows in the format of BTZSC: every text with a sentence for each label, of which one is true."""
    examples = [
        {"text": text, "hypothesis": f"It is {label}.", "labels": int(label == gold), "label_text": gold}
        for i, text in enumerate(texts(topic, count))
        for gold in [labels[i % len(labels)]]
        for label in labels
    ]
    return as_parquet(examples, {"labels": ["not_entailment", "entailment"]})


def test_the_recipe_makes_a_task_of_each_data_set_of_btzsc(tmp_path: Path) -> None:
    assert len(set(SETS)) == 22
    labels = ["joy", "anger", "fear", "surprise", "shame"]  # more than the rows that a sample keeps of a text
    files = {f"{name}/test-00000-of-00001.parquet": pairs(name, labels, 60) for name in SETS}
    configs = [{"config_name": name, "data_files": [{"split": "test", "path": f"{name}/*.parquet"}]} for name in SETS]
    files["README.md"] = card(configs=configs, license="mit")
    hub = Repository(files, listed=False)
    # The recipe pins the commit of the real one.
    recipe = recipes("corpus")["btzsc"].read_text("utf-8").replace("fef2a2ac62b69c58670047dddf045c53d7c3cb5e", hub.sha)
    (tmp_path / "btzsc.toml").write_text(recipe)
    with serving(HubServer({"btzsc/btzsc": hub})) as server:
        run(server, tmp_path / "home", "corpus", "build", tmp_path / "btzsc.toml", "-o", tmp_path / "corpus")
    corpus_tasks = tasks(tmp_path / "corpus")
    assert set(corpus_tasks) == {f"btzsc/btzsc:{name}" for name in SETS}
    for split, task in corpus_tasks.values():
        assert split == "heldout"
        assert set(task.labels) == set(labels)
        assert len(task.train) + len(task.test) == 60
        assert task.source["revision"] == hub.sha
    _, task = corpus_tasks["btzsc/btzsc:agnews"]
    gold = {text: labels[i % 5] for i, text in enumerate(texts("agnews", 60))}
    assert all(gold[example.text] == example.label for example in (*task.train, *task.test))


def test_the_authors_five_datasets_are_held_out_and_missing_ones_are_reported(tmp_path: Path) -> None:
    names = CorpusSettings.read(recipes("corpus")["promptmii-heldout"]).list.repositories
    published = {
        name: Repository({"README.md": card(), "train.csv": as_csv(rows(name, ["a", "b"], 80))}, listed=False)
        for name in names[:-1]
    }
    with serving(HubServer({**published, "other/listed": published[names[0]]})) as server:
        done = run(server, tmp_path / "home", "corpus", "build", "promptmii-heldout", "-o", tmp_path / "corpus", code=2)
        assert names[-1] in done.stderr
        published[names[-1]] = Repository({"README.md": card(), "train.csv": as_csv(rows("last", ["a", "b"], 80))})
    with serving(HubServer(published)) as server:
        run(server, tmp_path / "home", "corpus", "build", "promptmii-heldout", "-o", tmp_path / "again")
    corpus_tasks = tasks(tmp_path / "again")
    assert {name: split for name, (split, _) in corpus_tasks.items()} == dict.fromkeys(names, "heldout")
    assert "not on the hub" in table(tmp_path / "corpus", "list")[names[-1]]["reason"]


def test_a_condition_on_a_missing_column_is_reported(tmp_path: Path) -> None:
    config = '[list]\nhub = true\nrepositories = ["me/data"]\n[fetch]\nwhere = { kind = "yes" }\n'
    (tmp_path / "c.toml").write_text(config)
    hub = HubServer({"me/data": Repository({"README.md": card(), "train.csv": as_csv(rows("x", ["a", "b"]))})})
    with serving(hub) as server:
        run(server, tmp_path / "home", "corpus", "build", tmp_path / "c.toml", "-o", tmp_path / "c", code=2)
    assert "no column 'kind' (fetch.where)" in table(tmp_path / "c", "fetch")["me/data"]["reason"]


def test_retry_lists_again_only_what_was_missing_or_refused(tmp_path: Path) -> None:
    data = Repository({"README.md": card(), "train.csv": as_csv(rows("x", ["a", "b"]))})
    config, corpus = tmp_path / "c.toml", tmp_path / "c"
    config.write_text('[list]\nhub = true\nrepositories = ["me/data", "me/later", "me/disabled"]\n')
    hub = HubServer(
        {"me/data": data, "me/disabled": data}, faults=lambda path, _: "403" if "disabled" in path else None
    )
    with serving(hub) as server:
        run(server, tmp_path / "home", "corpus", "build", config, "-o", corpus, "--stage", "list")
        listed = table(corpus, "list")
        assert {name: row["kept"] for name, row in listed.items()} == {
            "me/data": "yes",
            "me/later": "no",
            "me/disabled": "no",
        }
        assert "the hub refuses it: 403" in listed["me/disabled"]["reason"]
        hub.repositories["me/later"], hub.faults = data, None
        hub.requests.clear()
        run(server, tmp_path / "home", "corpus", "build", config, "-o", corpus, "--stage", "list", "--retry")
        assert hub.requests == ["GET /api/datasets/me/later", "GET /api/datasets/me/disabled"]
        assert {row["kept"] for row in table(corpus, "list").values()} == {"yes"}


def test_a_hub_that_refuses_to_list_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with serving(HubServer(faults=lambda *_: "401")) as server:
        done = run(server, tmp_path / "home", "corpus", "build", "hub", "-o", tmp_path / "c", code=3)
    assert "The hub refuses to list datasets" in done.stderr
