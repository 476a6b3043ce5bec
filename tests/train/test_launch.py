"""The commands that start a run, and the Slurm job, with programs that log their arguments."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.command_line import promptmii

from promptmii.configs import recipes
from promptmii.errors import ConfigError, ModelError
from promptmii.train.launch import SCRIPT, Machines, check_processes, command, run, slurm
from promptmii.train.settings import TrainSettings, stage_of

RECIPES = {name: path for name, path in recipes("train").items() if stage_of(path) == "rl"}
PROGRAMS = {
    "scontrol": 'printf "n1\\nn2\\nn3\\n"',
    "curl": 'port=${*: -1} port=${port##*:} && sleep 0.1 && grep -q "port ${port%/health}" "$LOG"',
    "vllm": 'echo "vllm gpu $CUDA_VISIBLE_DEVICES $*" >> "$LOG"',
    "promptmii": 'echo "promptmii $*; followers $OPENAI_BASE_URL" >> "$LOG"',
    "srun": """
for word in "$@"; do
    case $word in --ntasks=*) tasks=${word#*=} ;; --nodelist=*) echo "on ${word#*=}" >> "$LOG" ;; esac
done
while [[ $1 == --* ]]; do shift; done
for i in $(seq 0 $((tasks - 1))); do SLURM_PROCID=$i "$@"; done""",
}


def test_command_starts_one_process_per_gpu() -> None:
    assert command(1, Machines(), ["smoke"]) == ["promptmii", "train", "smoke"]
    single = "torchrun --standalone --nproc-per-node 4 -m promptmii train x -o y"
    assert command(4, Machines(), ["x", "-o", "y"]) == single.split()
    rendezvous = "--nnodes 2 --node-rank 1 --master-addr n1 --master-port 29501"
    several = f"torchrun {rendezvous} --nproc-per-node 8 -m promptmii train x"
    assert command(16, Machines(2, 1, "n1", 29501), ["x"]) == several.split()
    with pytest.raises(ConfigError, match=r"16 process.* cannot be divided among 3 machines"):
        command(16, Machines(3), ["x"])
    with pytest.raises(ConfigError, match=r"1 process.* cannot be divided among 2 machines"):
        command(1, Machines(2), ["x"])
    with pytest.raises(ConfigError, match=r"--machine is 2; expected 0 to 1"):
        command(16, Machines(2, 2), ["x"])


def test_wrong_number_of_processes_is_refused() -> None:
    check_processes(4, 4)
    with pytest.raises(ConfigError, match=r"is for 4 process.*, but 1 are running. Start it with promptmii launch"):
        check_processes(4, 1)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals")
def test_a_killed_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"SIGKILL ended process 0.*memory"):
        run(["killed"])


@pytest.mark.parametrize("name", RECIPES)
def test_dry_run_prints_the_command_of_every_recipe(name: str) -> None:
    result = promptmii("launch", name, "--tasks", "suite", "-o", "r", "--set", "query=8", "--dry-run")
    assert result.exit_code == 0, result.output
    processes = TrainSettings.read(RECIPES[name]).plan.processes
    program = (
        "promptmii train"
        if processes == 1
        else f"torchrun --standalone --nproc-per-node {processes} -m promptmii train"
    )
    assert result.stdout.strip() == f"{program} {name} -o r --tasks suite --set query=8"


def test_launch_refuses_stages_that_run_in_one_process() -> None:
    result = promptmii("launch", "warm-start", "--dry-run")
    assert result.exit_code == 2
    assert "promptmii train warm-start" in result.stderr


def test_slurm_requests_training_nodes_and_one_follower_node() -> None:
    settings = TrainSettings.read(RECIPES["llama-3.1-8b-16gpu"])
    follower = "FOLLOWER=meta-llama/Llama-3.1-8B-Instruct"
    assert slurm(settings, 8, Path("runs/x"), ["a", "b"]) == [
        *("sbatch", "--nodes=3", "--gpus-per-node=8", "--output=runs/x-%j.log", f"--export=ALL,{follower}"),
        *(str(SCRIPT), "a", "b"),
    ]
    with pytest.raises(ConfigError, match=r"16 processes .* is not a multiple of 3 GPUs"):
        slurm(settings, 3, Path("x"), [])
    with_address = settings.model_copy(
        update={"endpoint": settings.endpoint.model_copy(update={"base_url": "http://a:1/v1"})}
    )
    assert {"--nodes=2", "--export=ALL,FOLLOWER="} <= set(slurm(with_address, 8, Path("x"), []))
    two_unserved = settings.reward.model_copy(
        update={"followers": ("openai:one", "openai:two", "openai:three@http://a:1/v1")}
    )
    with pytest.raises(ConfigError, match="one, two have no address"):
        slurm(settings.model_copy(update={"reward": two_unserved}), 8, Path("x"), [])
    with_option = settings.reward.model_copy(update={"followers": ("openai:one+top_logprobs",)})
    assert "--export=ALL,FOLLOWER=one" in slurm(settings.model_copy(update={"reward": with_option}), 8, Path("x"), [])


def test_slurm_log_folder_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text('#!/bin/bash\nlog=${3#--output=}\necho "$@" > "${log//%j/1}"\n')
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run = tmp_path / "runs" / "new"
    result = promptmii("launch", "llama-3.1-8b-16gpu", "--tasks", "suite", "-o", run, "--slurm")
    assert result.exit_code == 0, result.output
    assert "llama-3.1-8b-16gpu" in (tmp_path / "runs" / "new-1.log").read_text()


@pytest.mark.parametrize(("follower", "restarts"), [("m", "0"), ("", "1")])
def test_slurm_job_serves_the_follower_and_launches_on_the_other_nodes(
    tmp_path: Path, follower: str, restarts: str
) -> None:
    log = tmp_path / "log"
    for name, lines in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_GPUS_PER_NODE": "h100:2", "SLURM_RESTART_COUNT": restarts}
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(log),
        "FOLLOWER": follower,
        "OPENAI_BASE_URL": "",
    }
    subprocess.run(["bash", str(SCRIPT), "recipe", "-o", "my run"], env=os.environ | job | environment, check=True)
    logged = log.read_text().splitlines()
    if follower:
        assert "on n3" in logged
        served = "serve m --port {} --enable-prefix-caching --generation-config vllm"
        assert {f"vllm gpu {i} {served.format(8000 + i)}" for i in (0, 1)} <= set(logged)
        assert "on n1,n2" in logged
        options, tail = "--machines 2 --first n1", "; followers http://n3:8000/v1,http://n3:8001/v1"
        launch = "promptmii launch recipe -o my run"
    else:
        assert logged[0] == "on n1,n2,n3"
        options, tail = "--machines 3 --first n1", "; followers "
        launch = "promptmii launch recipe -o my run --resume"
    count = 2 if follower else 3
    assert [line for line in logged if line.startswith("promptmii")] == [
        f"{launch} {options} --machine {i}{tail}" for i in range(count)
    ]
