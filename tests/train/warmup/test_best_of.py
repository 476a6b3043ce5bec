"""Rejection sampling with a server whose drafts differ in quality: the better ones are kept, also in a resumed run."""
# pyright: reportReturnType=false

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.command_line import promptmii
from tests.evaluation.labelling_server import WORDS, LabellingServer
from tests.models.faulty_server import serving
from tests.recorder import Recorder
from tests.serving.test_local import COMMAND

pytest.importorskip("torch")

from promptmii.errors import ConfigError
from promptmii.train import run_stage
from promptmii.train.settings import BestOfSettings
from promptmii.train.warmup.best_of import best_of
from promptmii.train.warmup.pairs import read_pairs


class Choosy(LabellingServer):
    """Follows only instructions with an even version; with any other, it answers every text with the same label."""

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._completion(step, body)
        message = answer["choices"][0]["message"]
        prompt = "".join(part["content"] for part in body["messages"])
        if not message["content"].startswith("Tickets") and not re.search(r"version \d*[02468]\.", prompt):
            message["content"] = "refund"
        return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabellingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(Choosy()) as running:
        yield running


def make_settings(folder: Path, server: LabellingServer, **changes: Any) -> BestOfSettings:
    rows = [
        {"text": f"case {i}:\u2028the {words[i % 3]}", "label": label}
        for i in range(12)
        for label, words in WORDS.items()
    ]
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    defaults: dict[str, Any] = {
        "model": "openai:m",
        "tasks": (str(folder / "tasks"),),
        "schedule": {3: 1.0},
        "query": 6,
        "validation": {"share": 0.0},
        "drafts": 4,
        "visits": 4,
        "together": 2,
        "reward": {"followers": ("openai:m",), "mode": "generate"},
        "endpoint": {"base_url": server.url},
    }
    return BestOfSettings.of(**defaults | changes)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


@pytest.mark.slow
def test_best_drafts_become_pairs(tmp_path: Path, server: LabellingServer) -> None:
    path = best_of(make_settings(tmp_path, server), tmp_path / "run", progress=(recorder := Recorder()))
    metrics = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert recorder.counts[-1] == recorder.totals[-1] == 4 * 4, "visits times drafts"
    pairs = read_rows(path)
    assert pairs
    assert len(metrics) == 4
    assert all(line["best"] >= line["train/reward"] for line in metrics)
    assert [pair["reward"] for pair in pairs] == [round(line["best"], 6) for line in metrics if line["kept"]]
    versions = [int(pair["instruction"].rstrip(".").split()[-1]) for pair in pairs]
    assert all(version % 2 == 0 for version in versions)  # the follower follows only these
    assert read_pairs(path)[0].support.labels == ("delivery", "login", "refund")


@pytest.mark.slow
def test_no_draft_is_kept_below_the_margin(tmp_path: Path, server: LabellingServer) -> None:
    make_settings(tmp_path, server)
    config = tmp_path / "recipe.toml"
    config.write_text(
        f"""
        stage = "best-of"
        model = "openai:m"
        tasks = ["{tmp_path / "tasks"}"]
        schedule = {{ 3 = 1.0 }}
        query = 6
        validation = {{ share = 0.0 }}
        drafts = 4
        visits = 2
        margin = 0.99
        reward = {{ followers = ["openai:m"], mode = "generate" }}
        endpoint = {{ base_url = "{server.url}" }}
        """
    )
    path = run_stage("best-of", config, tmp_path / "run", progress=(recorder := Recorder()))
    assert not path.exists()
    assert any("no pairs file. Lower margin" in note for note in recorder.notes)
    done = promptmii("train", config, "-o", tmp_path / "other", "--json")
    assert json.loads(done.stdout) == {"made": None}


@pytest.mark.slow
def test_resumed_run_continues_after_the_last_visit(tmp_path: Path, server: LabellingServer) -> None:
    whole = best_of(make_settings(tmp_path, server), tmp_path / "whole")
    best_of(make_settings(tmp_path, server, visits=2), tmp_path / "resumed")
    saved = tmp_path / "resumed" / "config.json"
    older = json.loads(saved.read_text())  # with settings that best-of has no more
    saved.write_text(json.dumps(older | {"prompts": 64, "validation": older["validation"] | {"every": 15}}))
    resumed = best_of(make_settings(tmp_path, server), tmp_path / "resumed", resume=True)
    assert read_rows(resumed) == read_rows(whole)


@pytest.mark.slow
def test_resume_after_a_kill_within_a_batch_writes_the_same_pairs(tmp_path: Path, server: LabellingServer) -> None:
    whole = best_of(make_settings(tmp_path, server), tmp_path / "whole")
    resumed = best_of(make_settings(tmp_path, server), tmp_path / "resumed")
    # Truncate the files as if the run had ended after the first visit of the second batch.
    for name, key, last in (("metrics.jsonl", "step", 3), ("pairs.jsonl", "visit", 2)):
        path = tmp_path / "resumed" / name
        path.write_text("".join(json.dumps(row) + "\n" for row in read_rows(path) if row[key] <= last))
    best_of(make_settings(tmp_path, server), tmp_path / "resumed", resume=True, progress=(recorder := Recorder()))
    assert read_rows(resumed) == read_rows(whole)
    assert read_rows(tmp_path / "resumed" / "metrics.jsonl") == read_rows(tmp_path / "whole" / "metrics.jsonl")
    assert [line.partition(":")[0] for line in recorder.done] == ["visit 4"]
    best_of(make_settings(tmp_path, server, visits=3), tmp_path / "resumed", resume=True, progress=recorder)
    assert len(recorder.done) == 1  # no visit is left


@pytest.mark.slow
def test_resume_allows_a_changed_endpoint_but_not_changed_data(tmp_path: Path, server: LabellingServer) -> None:
    best_of(make_settings(tmp_path, server, visits=2), tmp_path / "run")
    moved = {"base_url": server.url, "concurrency": 3}
    best_of(make_settings(tmp_path, server, visits=3, endpoint=moved), tmp_path / "run", resume=True)
    settings = make_settings(tmp_path, server)
    with (tmp_path / "tasks" / "tickets.jsonl").open("a") as file:
        file.write('{"text": "case 99: another parcel", "label": "delivery"}\n')
    with pytest.raises(ConfigError, match=r"The data of .* changed since the run began"):
        best_of(settings, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="servers are started on Linux and macOS")
def test_generator_that_is_also_a_follower_uses_the_started_server(
    tmp_path: Path, server: LabellingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("STATE", str(tmp_path / "state"))
    reward = {"followers": ("openai:tiny",), "mode": "generate", "serve": {"engine": COMMAND}}
    best_of(
        make_settings(tmp_path, server, model="openai:tiny", endpoint={}, reward=reward, visits=1), tmp_path / "run"
    )
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 1


@pytest.mark.slow
def test_task_that_fits_no_prompt_is_skipped_and_reported(tmp_path: Path, server: LabellingServer) -> None:
    settings = make_settings(tmp_path, server, longest_prompt=1000)
    long = [{"text": f"{'word ' * 4000}{i}", "label": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "tasks" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    recorder = Recorder()
    best_of(settings, tmp_path / "run", progress=recorder)
    assert [line.partition(":")[0] for line in recorder.notes] == ["Skipped long"]
    assert {row["task"] for row in read_rows(tmp_path / "run" / "pairs.jsonl")} == {"tickets"}


def test_too_few_drafts_are_refused(tmp_path: Path, server: LabellingServer) -> None:
    with pytest.raises(ConfigError, match="drafts"):
        make_settings(tmp_path, server, drafts=1)
