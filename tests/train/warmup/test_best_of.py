"""Rejection sampling over a real server whose drafts differ in worth: the better one is kept, once, across a stop."""
# pyright: reportReturnType=false

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.labelling_server import WORDS, LabellingServer
from tests.models.faulty_server import serving
from tests.recorder import Recorder
from tests.serving.test_local import COMMAND

pytest.importorskip("torch")

from promptmii.errors import ConfigError
from promptmii.train.settings import BestOfSettings
from promptmii.train.warmup.best_of import best_of
from promptmii.train.warmup.pairs import read_pairs


class Choosy(LabellingServer):
    """Follows instructions of an even version only; under the others it says one label to everything."""

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._completion(step, body)
        message = answer["choices"][0]["message"]
        given = "".join(part["content"] for part in body["messages"])
        if not message["content"].startswith("Tickets") and not re.search(r"version \d*[02468]\.", given):
            message["content"] = "refund"
        return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabellingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(Choosy()) as running:
        yield running


def given(folder: Path, server: LabellingServer, **changes: Any) -> BestOfSettings:
    rows = [
        {"text": f"case {i}: the {words[i % 3]}", "label": label} for i in range(12) for label, words in WORDS.items()
    ]
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual: dict[str, Any] = {
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
    return BestOfSettings.of(**usual | changes)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_drafts_become_pairs(tmp_path: Path, server: LabellingServer) -> None:
    path = best_of(given(tmp_path, server), tmp_path / "run", progress=(heard := Recorder()))
    told = rows(tmp_path / "run" / "metrics.jsonl")
    assert heard.counts[-1] == 4
    kept = rows(path)
    assert kept
    assert len(told) == 4
    assert all(line["best"] >= line["train/reward"] for line in told)
    assert [row["reward"] for row in kept] == [round(line["best"], 6) for line in told if line["kept"]]
    assert all(
        int(row["instruction"].rstrip(".").split()[-1]) % 2 == 0 for row in kept
    )  # those that the follower obeys
    assert read_pairs(path)[0].support.labels == ("delivery", "login", "refund")


def test_where_all_drafts_are_alike_none_is_kept(tmp_path: Path, server: LabellingServer) -> None:
    path = best_of(given(tmp_path, server, margin=0.99), tmp_path / "run")
    assert not path.exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_after_the_last_visit(tmp_path: Path, server: LabellingServer) -> None:
    whole = best_of(given(tmp_path, server), tmp_path / "whole")
    best_of(given(tmp_path, server, visits=2), tmp_path / "torn")
    torn = best_of(given(tmp_path, server), tmp_path / "torn", resume=True)
    assert rows(torn) == rows(whole)


@pytest.mark.slow
def test_after_a_kill_in_the_middle_of_a_batch_the_drafts_are_the_same(tmp_path: Path, server: LabellingServer) -> None:
    whole = best_of(given(tmp_path, server), tmp_path / "whole")
    torn = best_of(given(tmp_path, server), tmp_path / "torn")
    for name, key in (
        ("metrics.jsonl", "step"),
        ("pairs.jsonl", "visit"),
    ):  # as if it had ended after the first visit of the second batch
        path = tmp_path / "torn" / name
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in rows(path) if row[key] <= (3 if key == "step" else 2))
        )
    best_of(given(tmp_path, server), tmp_path / "torn", resume=True, progress=(told := Recorder()))
    assert rows(torn) == rows(whole)
    assert rows(tmp_path / "torn" / "metrics.jsonl") == rows(tmp_path / "whole" / "metrics.jsonl")
    assert [line.partition(":")[0] for line in told.done] == ["visit 4"]
    best_of(given(tmp_path, server, visits=3), tmp_path / "torn", resume=True, progress=told)
    assert len(told.done) == 1  # nothing is left to do


def test_a_stopped_run_may_reach_its_server_otherwise_but_not_read_other_data(
    tmp_path: Path, server: LabellingServer
) -> None:
    best_of(given(tmp_path, server, visits=2), tmp_path / "run")
    moved = {"base_url": server.url, "concurrency": 3}
    best_of(given(tmp_path, server, visits=3, endpoint=moved), tmp_path / "run", resume=True)
    settings = given(tmp_path, server)
    with (tmp_path / "tasks" / "tickets.jsonl").open("a") as file:
        file.write('{"text": "case 99: another parcel", "label": "delivery"}\n')
    with pytest.raises(ConfigError, match=r"The data of .* changed since the run began"):
        best_of(settings, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="servers are started on Linux and macOS")
def test_a_writer_that_follows_too_is_asked_on_the_server_that_the_run_starts(
    tmp_path: Path, server: LabellingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("STATE", str(tmp_path / "state"))
    reward = {"followers": ("openai:tiny",), "mode": "generate", "serve": {"engine": COMMAND}}
    best_of(given(tmp_path, server, model="openai:tiny", endpoint={}, reward=reward, visits=1), tmp_path / "run")
    assert len(rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_a_task_that_no_prompt_holds_is_skipped_and_said(tmp_path: Path, server: LabellingServer) -> None:
    settings = given(tmp_path, server, longest_prompt=1000)
    long = [{"text": f"{'word ' * 4000}{i}", "label": "ab"[i % 2]} for i in range(60)]
    (tmp_path / "tasks" / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    said = Recorder()
    best_of(settings, tmp_path / "run", progress=said)
    assert [line.partition(":")[0] for line in said.notes] == ["Skipped long"]
    assert {row["task"] for row in rows(tmp_path / "run" / "pairs.jsonl")} == {"tickets"}


def test_settings_of_reinforcement_that_do_not_fit_are_refused(tmp_path: Path, server: LabellingServer) -> None:
    with pytest.raises(ConfigError, match="drafts"):
        given(tmp_path, server, drafts=1)
