"""Grids on a local Ray cluster with two nodes."""
# pyright: reportArgumentType=false

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.evaluation.labelling_server import LabellingServer
from tests.evaluation.test_evaluate import settings, write_task
from tests.models.faulty_server import serving
from tests.recorder import Recorder

from promptmii.errors import ConfigError
from promptmii.evaluation import evaluate

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [
    pytest.mark.cluster,
    # Of Ray's own making.
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one core each."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ray::RemoteRunner" in " ".join(process.info["cmdline"] or [])
    ]


def test_a_worker_that_is_killed_loses_nothing(nodes: Any, tmp_path: Path) -> None:
    tasks = [write_task(tmp_path, name) for name in ("shop", "bank", "post", "home")]
    killed: list[int] = []

    def kill_worker(recorder: Recorder) -> None:
        assert recorder.totals[-1] == 4 * (1 + 6 * 2)
        if recorder.counts[-1] in (3, 20):
            victim = workers()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    with serving(LabellingServer()) as server:
        assert isinstance(server, LabellingServer)
        here = evaluate(settings(server, tasks, methods=("naive", "icl", "zero"), n=(6, 9), seeds=3), tmp_path / "here")
        grid = settings(
            server, tasks, methods=("naive", "icl", "zero"), n=(6, 9), seeds=3, workers=2, ray={"workers": 2}
        )
        server.peak = 0
        there = evaluate(grid, tmp_path / "there", progress=Recorder(kill_worker))
        assert server.peak <= 8  # the limit of the endpoint, over both workers
    assert len(killed) == 2
    assert len(nodes.list_all_nodes()) == 2
    assert not there.failed
    assert {key: record.answers for key, record in there.records.items()} == {
        key: record.answers for key, record in here.records.items()
    }
    assert len((tmp_path / "there" / "records.jsonl").read_text().splitlines()) == len(there.records)


@pytest.mark.usefixtures("nodes")
def test_a_cluster_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with serving(LabellingServer()) as server:
        assert isinstance(server, LabellingServer)
        grid = settings(server, [write_task(tmp_path, "shop")], ray={"workers": 5})
        with pytest.raises(ConfigError, match="need more than the 2"):
            evaluate(grid, tmp_path / "run")
