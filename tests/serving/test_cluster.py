"""Servers on a real Ray cluster of two nodes on this machine, with fake GPUs."""
# pyright: reportArgumentType=false

import csv
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.command_line import promptmii
from tests.recorder import Recorder
from tests.serving.test_local import COMMAND, eventually, gone, pids, servers
from tests.train.toys import write_tasks

from promptmii import Instruction
from promptmii.errors import ConfigError
from promptmii.evaluation import evaluate
from promptmii.evaluation.plan import EvaluateSettings

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [
    pytest.mark.cluster,
    # Ray causes these warnings.
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
LARGE, SMALL = "openai:large", "openai:small"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder to which servers write their state, on a cluster of two one-core nodes with one and two GPUs."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE", str(folder))
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1, num_gpus=2)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield folder
        ray.shutdown()
        cluster.shutdown()


def grid(tasks: Path, **changes) -> EvaluateSettings:
    defaults = {
        "tasks": (str(tasks),),
        "methods": ("naive", "icl"),
        "n": (4,),
        "seeds": 2,
        "evaluate": 12,
        "mode": "generate",
        "followers": (LARGE, SMALL),
        "serve": {"engine": COMMAND, "gpus": {LARGE: 2, "*": 1}},
        "ray": {"workers": 2},
        "workers": 2,
    }
    return EvaluateSettings.of(**defaults | changes)


def test_each_model_is_served_on_its_gpus_and_a_killed_server_loses_no_result(state: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_server(progress: Recorder) -> None:
        if progress.counts[-1] == 4:
            killed.append(servers(state)[0]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    run = evaluate(grid(write_tasks(tmp_path / "tasks", 60)), tmp_path / "run", progress=Recorder(kill_server))
    assert not run.failed
    assert len(run.records) == 2 * 3 * (1 + 2)
    assert killed
    gpus = {server["model"]: server["gpus"].split(",") for server in servers(state)}
    assert {model: len(devices) for model, devices in gpus.items()} == {"large": 2, "small": 1}
    assert eventually(lambda: gone(pids(state)))
    # A rerun, on other ports and nodes, finds every cell finished.
    progress = Recorder()
    rerun = evaluate(grid(tmp_path / "tasks"), tmp_path / "run", progress=progress)
    assert progress.totals[-1] == 0
    assert rerun.records.keys() == run.records.keys()


def test_a_model_that_fits_no_node_is_refused(state: Path, tmp_path: Path) -> None:
    before = len(servers(state))
    tasks = write_tasks(tmp_path / "tasks", 60)
    with pytest.raises(ConfigError, match="needs 4 GPUs on one machine; the largest of the Ray cluster has 2"):
        evaluate(grid(tasks, serve={"engine": COMMAND, "gpus": 4}), tmp_path / "run")
    with pytest.raises(ConfigError, match="4 workers of 1 GPUs need more than the 3"):
        evaluate(grid(tasks, serve={"engine": COMMAND, "gpus": 1, "copies": 4}), tmp_path / "run")
    assert len(servers(state)) == before


def test_rows_are_labelled_by_servers_on_both_nodes(state: Path, tmp_path: Path) -> None:
    before = servers(state)
    instruction = Instruction(text="Label.", labels=("good", "bad"), method="mii", mode="generate", follower=SMALL)
    instruction.save(tmp_path / "i.json")
    rows = [f"{word} {i}" for i in range(40) for word in ("lovely", "waste")]
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(rows) + "\n")
    command = ["predict", str(tmp_path / "i.json"), str(tmp_path / "rows.csv"), "-o", str(tmp_path / "out.csv")]
    result = promptmii(*command, "--serve", COMMAND, "--copies", "3", "--gpus", "1", "--ray")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["predicted_label"] for row in csv.DictReader(file)] == ["good", "bad"] * 40
    started = servers(state)[len(before) :]
    assert len(started) == 3
    assert sorted(server["gpus"] for server in started) == ["0", "0", "1"]  # two servers on the node with two GPUs
    assert eventually(lambda: gone(pids(state)))
