"""Reinforcement learning runs that start and end the server of their follower."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.serving.test_local import COMMAND, eventually, gone, pids, servers
from tests.train.toys import settings, write_model, write_tasks

from promptmii.train.rl.run import train

ROOT = Path(__file__).parents[2]
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
    config = settings(tmp_path, reward=reward, trl={"max_steps": 2})
    train(config, tmp_path / "run")
    assert len(servers(state)) == 2
    assert eventually(lambda: gone(pids(state)))
    assert "validation/reward" in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["followers"] == {"openai:tiny": f"{COMMAND} tiny"}
    # A resumed run starts new servers on other ports.
    train(config.model_copy(update={"trl": config.trl | {"max_steps": 4}}), tmp_path / "run", resume=True)
    assert len(servers(state)) == 4


CODE = """
import os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from tests.train.toys import settings
from promptmii.errors import PromptMIIError
from promptmii.train.rl.run import train
folder, engine = Path(sys.argv[1]), sys.argv[2]
reward = {"mode": "generate", "followers": ("openai:tiny",), "serve": {"engine": engine}}
config = settings(
    folder, reward=reward, endpoint={"concurrency": 6}, plan={"processes": 2}, trl={"max_steps": 1, "save_steps": 1,
    "per_device_train_batch_size": 4}, validation={"share": 0.0},
)
try:
    train(config, folder / "run")
except PromptMIIError as error:
    (folder / f"{os.environ['RANK']}.error").write_text(str(error))
"""


def torchrun(folder: Path, engine: str, code: str = CODE) -> subprocess.CompletedProcess[str]:
    """Run the code in two processes."""
    (folder / "process.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, str(folder / "process.py"), str(folder), engine],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


SLOTS = """
import os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from accelerate import PartialState
from tests.train.toys import settings
from promptmii.models.base import Sampling
from promptmii.progress import QUIET
from promptmii.train.rl.followers import open_followers
folder, engine = Path(sys.argv[1]), sys.argv[2]
reward = {"mode": "generate", "followers": ("openai:tiny",), "serve": {"engine": engine}}
config = settings(folder, reward=reward, endpoint={"concurrency": 6})
state = PartialState(cpu=True)
os.environ["LOCAL_WORLD_SIZE"] = "1"  # as on two machines
with open_followers(config, folder / "run", state, QUIET) as (follower,):
    if state.process_index == 1:
        chats = [[{"role": "user", "content": str(number)}] for number in range(60)]
        follower.model.generate(chats, Sampling(max_tokens=5))
    state.wait_for_everyone()
"""


@pytest.mark.distributed
def test_one_busy_process_may_use_the_whole_request_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tasks(tmp_path / "tasks")
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("STATE", str(state))
    result = torchrun(tmp_path, COMMAND, SLOTS)
    assert result.returncode == 0, result.stderr[-3000:]
    assert 3 < int((state / "peak").read_text()) <= 6  # more than half of the limit
    (arguments,) = [server["arguments"] for server in servers(state)]
    assert "127.0.0.1" not in arguments  # other machines cannot reach it


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_all_processes_share_the_servers_and_the_request_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("STATE", str(state))
    result = torchrun(tmp_path, COMMAND)
    assert result.returncode == 0, result.stderr[-3000:]
    assert not list(tmp_path.glob("*.error"))
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
    assert len(servers(state)) == 1
    assert 3 < int((state / "peak").read_text()) <= 6  # more than one process's share
    assert eventually(lambda: gone(pids(state)))
    (state / "broken").touch()
    shutil.rmtree(tmp_path / "run")
    result = torchrun(tmp_path, COMMAND)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(list(tmp_path.glob("*.error"))) == 2  # both processes fail instead of waiting for each other
    assert "the weights are broken" in (tmp_path / "1.error").read_text()
