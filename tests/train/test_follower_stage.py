"""Meta-tuning a tiny random model: it learns, it resumes exactly, and it says what is wrong with its input."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_local import SIZES, trained  # noqa: E402, F401  the fixture
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from promptmii.errors import ConfigError, DataError, ModelError, OutputError  # noqa: E402
from promptmii.train.follower import train_follower  # noqa: E402
from promptmii.train.follower_settings import FollowerSettings  # noqa: E402

WORDS = {"films": {"good": "lovely", "bad": "waste"}, "plays": {"warm": "warm", "well": "well"}}


@pytest.fixture
def world(tmp_path: Path, trained: Any) -> Path:  # noqa: F811
    """A folder with a tiny model, two tasks and a bank."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES
        | {
            "vocab_size": len(trained),
            "eos_token_id": trained.eos_token_id,
            "initializer_range": 0.1,
            "max_position_embeddings": 2048,
        }
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tiny")
    trained.save_pretrained(tmp_path / "tiny")
    for name, words in WORDS.items():
        rows = [{"text": f"{i} {word} {i % 3}", "label": label} for i in range(12) for label, word in words.items()]
        lines(tmp_path / "tasks" / f"{name}.jsonl", rows)
        guide = [{"task": name, "description": "Say which."}]
        guide += [{"label": label, "descriptions": [f"says {word}", f"has {word}"]} for label, word in words.items()]
        lines(tmp_path / "bank" / f"{name}.jsonl", guide)
    return tmp_path


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def given(world: Path, **changes: Any) -> FollowerSettings:
    usual: dict[str, Any] = {
        "model": f"hf:{world / 'tiny'}",
        "tasks": str(world / "tasks"),
        "bank": str(world / "bank"),
        "train": ("films",),
        "validate_on": ("plays",),
        "rank": 4,
        "steps": 4,
        "episodes": 2,
        "queries": 4,
        "warmup": 2,
        "check_every": 4,
        "save_every": 2,
        "check_examples": 2,
        "check_rows": 4,
    }
    return FollowerSettings.of(**usual | changes)


def curves(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line]


@pytest.mark.slow
def test_it_learns_to_tell_the_labels_apart(world: Path) -> None:
    train_follower(
        given(world, steps=60, learning_rate=2e-2, mix={"icl": 0, "lookup": 0, "hidden": 0}, validate_on=()),
        world / "run",
    )
    lines = curves(world / "run")
    assert sum(line["train/accuracy"] for line in lines[-10:]) / 10 > 0.9
    assert (world / "run" / "best" / "adapter_model.safetensors").stat().st_size > 0


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(world: Path) -> None:
    train_follower(given(world), world / "whole")
    seen = curves(world / "whole")
    assert [line["step"] for line in seen] == [0, 1, 2, 3, 4]
    assert {"validation/naive", "validation/icl", "validation/icl-hidden", "validation/instruction-hidden"} <= set(
        seen[-1]
    )
    code = (
        "import json, sys, time; from pathlib import Path; from promptmii.train.follower import train_follower;"
        "from promptmii.train.follower_settings import FollowerSettings;"
        "s = FollowerSettings.of(**json.loads(sys.argv[1]));"
        "from tests.recorder import Recorder;"
        "train_follower(s, Path(sys.argv[2]), progress=Recorder(lambda told: time.sleep(0 if told.counts[-1] < 3 else 600)))"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, given(world).model_dump_json(), str(world / "torn")])
    deadline = time.monotonic() + 120
    while (
        not ((world / "torn" / "metrics.jsonl").exists() and len(curves(world / "torn")) > 3)
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    train_follower(given(world), world / "torn", resume=True)
    last = [
        {name: value for name, value in curves(world / run)[-1].items() if "second" not in name}
        for run in ("whole", "torn")
    ]
    assert last[0] == last[1]
    weights = [(world / run / "best" / "adapter_model.safetensors").read_bytes() for run in ("whole", "torn")]
    assert weights[0] == weights[1]


def test_what_is_wrong_is_said_before_the_first_step(world: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'films'"):
        train_follower(given(world, train=("film",)), world / "run")
    with pytest.raises(ConfigError, match="in train and in validate_on"):
        train_follower(given(world, validate_on=("films",)), world / "run")
    with pytest.raises(ConfigError, match="on this machine"):
        train_follower(given(world, model="openai:m"), world / "run")
    with pytest.raises(ConfigError, match="rising"):
        given(world, labels=(1, 3))


def test_a_run_folder_belongs_to_one_run(world: Path) -> None:
    train_follower(given(world, steps=2), world / "run")
    with pytest.raises(OutputError, match="--resume"):
        train_follower(given(world, steps=2), world / "run")
    with pytest.raises(ConfigError, match="rank"):
        train_follower(given(world, rank=8), world / "run", resume=True)
    train_follower(given(world, steps=3), world / "run", resume=True)
    assert curves(world / "run")[-1]["step"] == 3


def test_a_loss_that_is_no_number_stops_the_run(world: Path) -> None:
    with pytest.raises(ModelError, match="lower learning_rate"):
        train_follower(given(world, steps=50, learning_rate=1e30, warmup=0), world / "run")
    assert not (world / "run" / "checkpoint-50").exists()
