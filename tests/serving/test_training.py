"""A run of reinforcement learning that starts the server of its follower, and ends it."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.serving.test_local import COMMAND, eventually, gone, known, pids
from tests.train.toys import settings, write_model, write_tasks

from promptmii.train.rl.run import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(os.name != "posix", reason="servers are started on Linux and macOS"),
]


def test_a_run_starts_the_server_of_its_follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("STATE", str(state))
    reward = {"mode": "generate", "followers": ("openai:tiny",), "serve": {"engine": COMMAND, "copies": 2}}
    given = settings(tmp_path, reward=reward, trl={"max_steps": 2})
    train(given, tmp_path / "run")
    assert len(known(state)) == 2
    assert eventually(lambda: gone(pids(state)))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines
    assert "validation/reward" in json.dumps(lines)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["followers"] == {"openai:tiny": f"{COMMAND} tiny"}
    # A resumed run starts its servers anew, at other ports.
    train(given.model_copy(update={"trl": given.trl | {"max_steps": 4}}), tmp_path / "run", resume=True)
    assert len(known(state)) == 4
