"""Two processes train, validate, resume, sync vLLM and stop together, with copied weights and under ZeRO-3."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import psutil
from tests.train import vllm_stand_in
from tests.train.rl.test_run import curves
from tests.train.toys import write_model, write_tasks

from promptmii import load_model
from promptmii.models.base import Chat, Choice
from promptmii.train.loop import checkpoints

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[3]
DEEPSPEED = Path(sys.prefix) / "deepspeed"
"""Where `make` installs DeepSpeed, apart from the other packages, because every import of it warns."""
REASON = "DeepSpeed is not installed, and `make` could not build it" if not DEEPSPEED.is_dir() else ""
DISTRIBUTIONS = [
    pytest.param(None, id="copies"),
    pytest.param(
        "zero3", id="zero3", marks=pytest.mark.skipif(not (DEEPSPEED.is_dir() or find_spec("deepspeed")), reason=REASON)
    ),
]
SHORT = {"max_steps": 2, "save_steps": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
SYNCED = {**SHORT, "max_steps": 3, "save_steps": 3, "use_vllm": True, "vllm_max_model_length": 512} | {
    "vllm_importance_sampling_correction": True,
    "vllm_mode": "colocate",
}
LONG = {**SHORT, "max_steps": 4, "learning_rate": 1e-3}
VALIDATION = {"tasks": ("songs",), "every": 2, "rows": 12}
RUNS: list[dict[str, Any]] = [
    {"name": "whole", "changes": {"trl": LONG}},
    {"name": "parts", "changes": {"trl": LONG | {"max_steps": 2}}},
    {"name": "parts", "changes": {"trl": LONG}, "resume": True},
    {"name": "no case", "changes": {"trl": SHORT, "validation": {"share": 0.0}}},
    {"name": "two cases", "changes": {"trl": SHORT, "validation": VALIDATION | {"n": (4, 8)}}},
    {"name": "adapter", "changes": {"trl": SHORT, "lora": {"rank": 4}, "validation": VALIDATION | {"n": (3, 4, 8)}}},
    {"name": "vllm", "changes": {"trl": SYNCED, "validation": VALIDATION | {"n": (4,)}}},
    {
        "name": "vllm adapter",
        "changes": {"trl": SYNCED, "lora": {"rank": 4}, "validation": VALIDATION | {"n": (3, 4, 8)}},
    },
    {
        "name": "dead",
        "changes": {"trl": LONG | {"max_steps": 90, "save_steps": 90}, "reward": {"mode": "choose", "wait": 0.1}},
        "dies_after": 600,
    },
]


def environment(world: Path) -> dict[str, str]:
    """The processes' environment: this code, the stand-in as vLLM 0.30.0, and DeepSpeed on the CPU."""
    packages = world / "packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text(Path(vllm_stand_in.__file__).read_text())
    metadata = packages / "vllm-0.30.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0\n")
    (metadata / "top_level.txt").write_text("vllm\n")
    (world / "calls").mkdir()
    path = [str(ROOT / "src"), str(ROOT), str(packages), str(DEEPSPEED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "VLLM_CALLS": str(world / "calls"),
        "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
    }


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all runs. The two processes start only once, because starting takes most of the time."""
    world = tmp_path_factory.mktemp("world")
    write_tasks(world / "tasks")
    write_model(world / "tiny")
    deepspeed = deepspeed_options(request.param)
    runs = [run | {"changes": run["changes"] | {"trl": run["changes"]["trl"] | deepspeed}} for run in RUNS]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, str(ROOT / "tests" / "train" / "rl" / "process.py"), str(world), json.dumps(runs)],
        env=environment(world),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-6000:]
    (world / "distribution").write_text(str(request.param))
    return world


def deepspeed_options(deepspeed: str | None) -> dict[str, Any]:
    return {"deepspeed": deepspeed} if deepspeed else {}


def same_scores(first: Path, second: Path) -> bool:
    """True if the two models score labels alike."""
    return bool(label_scores(f"hf:{first}") == pytest.approx(label_scores(f"hf:{second}"), abs=1e-5))


def label_scores(reference: str) -> Any:
    chat: Chat = [{"role": "user", "content": "red lovely"}]
    (answer,) = load_model(reference).choose([chat], ["good", "bad"])
    assert isinstance(answer, Choice)
    return answer.scores


def test_two_processes_train_and_save_the_best_weights(world: Path) -> None:
    metrics = curves(world / "whole")
    assert set(metrics["train/reward"]) == {1, 2, 3, 4}
    assert set(metrics["validation/reward"]) == {0, 2, 4}
    assert [path.name for path in checkpoints(world / "whole")] == ["checkpoint-2", "checkpoint-4"]
    best = max(metrics["validation/reward"], key=lambda step: (metrics["validation/reward"][step], -step))
    expected = world / "tiny" if best == 0 else world / "whole" / f"checkpoint-{best}"
    assert same_scores(world / "whole" / "best", expected)
    assert not same_scores(world / "whole" / "checkpoint-4", world / "tiny")


def test_resumed_distributed_run_continues(world: Path) -> None:
    whole, parts = curves(world / "whole"), curves(world / "parts")
    assert set(parts["train/reward"]) == {1, 2, 3, 4}
    if (world / "distribution").read_text() == "None":  # under ZeRO-3 TRL samples, and its random state is not resumed
        for name in ("train/reward", "train/loss", "train/gradient", "validation/reward"):
            assert whole[name] == parts[name], name
        weights = [(world / name / "checkpoint-4" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
        assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "count"),
    [("no case", 0), ("whole", 1), ("vllm", 1), ("two cases", 2), ("adapter", 3), ("vllm adapter", 3)],
)
def test_any_number_of_validation_cases_works(world: Path, name: str, count: int) -> None:
    rows = [json.loads(line) for line in (world / name / "samples.jsonl").read_text("utf-8").splitlines()]
    for step in {row["step"] for row in rows if "validation" in row}:
        numbers = [row["n"] for row in rows if row["step"] == step and "validation" in row]
        assert len(numbers) == len(set(numbers)) == count
    assert ("validation/reward" in curves(world / name)) == (count > 0)


def test_only_adapter_weights_are_saved(world: Path) -> None:
    assert (world / "adapter" / "best" / "adapter_model.safetensors").exists()
    assert not same_scores(world / "adapter" / "checkpoint-2", world / "tiny")


@pytest.mark.parametrize("name", ["vllm", "vllm adapter"])
def test_vllm_writes_with_the_current_weights(world: Path, name: str) -> None:
    metrics = curves(world / name)
    differences = metrics["sampling/sampling_logp_difference/max"]
    assert set(differences) == {1, 2, 3}
    assert all(value < 1e-4 for value in differences.values())


def test_vllm_writes_validation_instructions_greedily_in_equal_batches(world: Path) -> None:
    """Runs with one case and with three validate at steps 0, 2 and 3. Two processes share a rollout's 8 drafts."""
    calls = [[json.loads(line) for line in (world / "calls" / rank).read_text().splitlines()] for rank in "01"]
    assert calls[0] == calls[1]
    assert [call["rows"] for call in calls[0] if call["greedy"]] == [1, 1, 1, 2, 2, 2]
    assert {(call["rows"], call["longest"]) for call in calls[0] if not call["greedy"]} == {(4, 8)}
    assert {call["longest"] for call in calls[0] if call["greedy"]} == {64}  # 32 tokens for each of two labels


def test_all_processes_stop_if_the_follower_of_one_dies(world: Path) -> None:
    errors = [(world / f"dead.{rank}.error").read_text() for rank in (0, 1)]
    assert all("of the instructions of a step could not be scored" in line for line in errors)
    last = checkpoints(world / "dead")[-1]
    assert int(last.name.split("-")[1]) == max(curves(world / "dead")["train/reward"])


CONFIG = """
model = "hf:{world}/tiny"
tasks = ["{world}/tasks"]
schedule = {{ 4 = 1.0 }}
query = 12
prompts = 2
longest_prompt = 400
reward = {{ mode = "choose", followers = ["hf:{world}/tiny"] }}
validation = {{ tasks = ["songs"], every = 2, n = [4], rows = 12 }}
plan = {{ processes = 2 }}
[trl]
per_device_train_batch_size = 4
num_generations = 4
max_completion_length = 8
max_steps = 4000
save_steps = 2
activation_checkpointing = false
"""


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_killed_process_stops_the_run_and_is_named(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    config = tmp_path / "recipe.toml"
    config.write_text(CONFIG.format(world=tmp_path))
    launch = [sys.executable, "-m", "promptmii", "launch", str(config), "-o", str(tmp_path / "run")]
    with subprocess.Popen(launch, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as launcher:
        wait_for(lambda: bool(checkpoints(tmp_path / "run")))
        ranks = {child.environ().get("RANK"): child for child in psutil.Process(launcher.pid).children(recursive=True)}
        ranks["1"].send_signal(signal.SIGKILL)
        _, stderr = launcher.communicate(timeout=120)
    assert launcher.returncode == 3, stderr
    assert "Error: SIGKILL ended process 1" in stderr
    assert "Traceback" not in stderr
    last = int(checkpoints(tmp_path / "run")[-1].name.split("-")[1])
    resume = [*launch, "--resume", "--set", f"trl.max_steps={last + 2}"]
    result = subprocess.run(resume, env=environment(tmp_path / "again"), capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Made ") == 1
    assert last + 2 in curves(tmp_path / "run")["train/reward"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_launcher_leaves_no_process_behind(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    write_model(tmp_path / "tiny")
    config = tmp_path / "recipe.toml"
    config.write_text(CONFIG.format(world=tmp_path))
    launch = [sys.executable, "-m", "promptmii", "launch", str(config), "-o", str(tmp_path / "run")]
    with subprocess.Popen(launch, env=environment(tmp_path), stderr=subprocess.DEVNULL) as launcher:
        wait_for(lambda: bool(checkpoints(tmp_path / "run")))
        ranks = [child for child in psutil.Process(launcher.pid).children(recursive=True) if "RANK" in child.environ()]
        launcher.kill()
    assert len(ranks) == 2
    assert not psutil.wait_procs(ranks, timeout=20)[1]
