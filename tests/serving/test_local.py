"""Server processes on this machine: a tiny real server, started by the code that starts vLLM."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.recorder import Recorder

from promptmii.config import Endpoint, ServeSettings
from promptmii.errors import ConfigError, ModelError
from promptmii.models.base import Chat, Completion, LanguageModel, Sampling
from promptmii.serving import served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="servers are started on Linux and macOS"),
]
TINY = Path(__file__).with_name("tiny_server.py")
COMMAND = f"{sys.executable} {TINY} {{model}} --host {{host}} --port {{port}}"
CHAT: Chat = ({"role": "user", "content": "Input: a waste of time"},)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to which servers write their state, and in which they look for faults to simulate."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("STATE", str(folder))
    return folder


def servers(state: Path) -> list[dict[str, Any]]:
    """The state of each server that was started, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(state.glob("*.json"), key=lambda p: p.stat().st_mtime_ns)]


def pids(state: Path) -> set[int]:
    return {server[name] for server in servers(state) for name in ("pid", "child")}


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def gone(pids: set[int]) -> bool:
    def is_alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(is_alive, pids))


def answer_of(model: LanguageModel) -> str:
    (answer,) = model.generate([CHAT], Sampling(max_tokens=5))
    assert isinstance(answer, Completion), answer
    return answer.text


def ask(endpoint: Endpoint) -> str:
    with closing(endpoint.load("openai:tiny")) as model:
        return answer_of(model)


def settings(**changes: Any) -> ServeSettings:
    return ServeSettings.of(**{"engine": COMMAND, "silence": 1.0, **changes})


def test_servers_and_their_children_end_with_the_context(state: Path, tmp_path: Path) -> None:
    with served(["openai:tiny", "smol"], settings(copies=2), Endpoint(), tmp_path / "logs") as endpoint:
        assert ask(endpoint) == "bad"
        assert len(servers(state)) == 2
        assert len(endpoint.servers["openai:tiny"].split(",")) == 2
        with closing(endpoint.load("openai:tiny")) as model:
            assert "127.0.0.1" not in model.card.revision  # ports are random
        assert not gone(pids(state))
    assert eventually(lambda: gone(pids(state)))


@pytest.mark.parametrize("supervisor", [False, True], ids=["server", "supervisor"])
def test_a_killed_server_restarts_at_its_address(state: Path, tmp_path: Path, supervisor: bool) -> None:
    progress = Recorder()
    with (
        served(["openai:tiny"], settings(), Endpoint(), tmp_path / "logs", progress) as endpoint,
        closing(endpoint.load("openai:tiny")) as model,
    ):
        assert answer_of(model) == "bad"
        pid = servers(state)[0]["pid"]
        os.kill(psutil.Process(pid).ppid() if supervisor else pid, signal.SIGKILL)
        assert answer_of(model) == "bad"  # the call waits for the restart
        assert eventually(lambda: len(servers(state)) == 2)
        assert eventually(lambda: gone({servers(state)[0][name] for name in ("pid", "child")}))
    assert [note for note in progress.notes if "ended; starting it again" in note]
    assert eventually(lambda: gone(pids(state)))


def test_a_server_that_hangs_is_restarted(state: Path, tmp_path: Path) -> None:
    with served(["openai:tiny"], settings(), Endpoint(), tmp_path / "logs") as endpoint:
        (state / "stuck").touch()
        threading.Timer(4.0, (state / "stuck").unlink).start()
        assert eventually(lambda: len(servers(state)) == 2)
        assert ask(endpoint) == "bad"


CODE = """
import sys, time
from pathlib import Path
from promptmii.__main__ import end_on_signals, leave_if_interrupted
from promptmii.config import Endpoint, ServeSettings
from promptmii.serving import served
end_on_signals()
try:
    with served(["openai:tiny"], ServeSettings(engine=sys.argv[1]), Endpoint(), Path(sys.argv[2])):
        print("ready", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    pass
finally:
    leave_if_interrupted()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_servers_end_with_the_process_that_started_them(state: Path, tmp_path: Path, sent: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, COMMAND, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    assert not gone(pids(state))
    process.send_signal(sent)
    assert process.wait(10) == (-sent if sent is signal.SIGKILL else 128 + sent)
    process.stdout.close()
    assert eventually(lambda: gone(pids(state)))


def test_the_error_of_a_server_that_does_not_start_quotes_its_log(state: Path, tmp_path: Path) -> None:
    (state / "broken").touch()
    with (
        pytest.raises(ModelError, match=r"tiny ended before it was ready\. Last output: the weights are broken"),
        served(["openai:tiny"], settings(), Endpoint(), tmp_path / "logs"),
    ):
        pass
    (state / "broken").unlink()
    (state / "stuck").touch()
    with (
        pytest.raises(ModelError, match="has not answered for"),
        served(["openai:tiny"], settings(startup=0.5), Endpoint(), tmp_path / "logs"),
    ):
        pass
    assert eventually(lambda: gone(pids(state)))


def test_a_server_that_keeps_ending_is_not_restarted_forever(state: Path, tmp_path: Path) -> None:
    progress = Recorder()
    with served(["openai:tiny"], settings(), Endpoint(), tmp_path / "logs", progress):
        (state / "broken").touch()
        os.kill(servers(state)[0]["pid"], signal.SIGKILL)
        assert eventually(lambda: any("is not started again" in note for note in progress.notes), 30)
    assert sum("starting it again" in note for note in progress.notes) == 8


def test_settings_that_cannot_work_are_refused_with_the_fix(state: Path, tmp_path: Path) -> None:
    def start(references: list[str], endpoint: Endpoint | None = None, **changes: Any) -> None:
        with served(references, settings(**changes), endpoint or Endpoint(), tmp_path / "logs"):
            pass

    with pytest.raises(ConfigError, match="program 'no-such-server' was not found"):
        start(["openai:tiny"], engine="no-such-server --port {port}")
    with pytest.raises(ConfigError, match="there are none"):
        start(["smol", "openai:m@http://localhost:1/v1"])
    with pytest.raises(ConfigError, match="serve starts its own servers"):
        start(["openai:tiny"], Endpoint(base_url="http://localhost:1/v1"))
    with pytest.raises(ConfigError, match=r"needs 8 GPUs for 4 servers, but only 2 are available \(4, 5\)"):
        start(["openai:a", "openai:b"], copies=2, gpus=2, devices=(4, 5))
    with pytest.raises(ConfigError, match=r"needs 1 GPU for 1 server, but only 0 are available \(the others train\)"):
        start(["openai:a"], gpus=1, devices=())  # training uses every GPU
    assert not (tmp_path / "logs").exists()
    assert servers(state) == []


def test_vllm_is_started_by_its_command_and_each_server_sees_only_its_gpus(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {TINY} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")
    serve = ServeSettings.of(engine="vllm", gpus={"openai:org/large": 2}, options=("--seed", "1"))
    with served(["openai:org/large", "openai:org/small"], serve, Endpoint(), tmp_path / "logs") as endpoint:
        assert set(endpoint.servers) == {"openai:org/large", "openai:org/small"}
        large, small = sorted(servers(state), key=lambda server: len(server["arguments"]), reverse=True)
    assert (large["gpus"], small["gpus"]) == ("3,4", "5")
    assert large["arguments"][:2] == ["serve", "org/large"]
    assert large["arguments"][-4:] == ["--tensor-parallel-size", "2", "--seed", "1"]
    assert "--tensor-parallel-size" not in small["arguments"]


@pytest.mark.usefixtures("state")
def test_without_a_health_check_the_model_list_is_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_HEALTH", "1")
    with served(["openai:tiny"], settings(), Endpoint(), tmp_path / "logs") as endpoint:
        assert ask(endpoint) == "bad"
