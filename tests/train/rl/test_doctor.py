"""Checks before a run: its memory, term by term, and the suitability of this machine."""

import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import psutil
import torch
from tests.command_line import promptmii
from tests.models.faulty_server import FaultyServer, serving
from tests.train.toys import settings as toy_settings
from transformers import GPT2Config, LlamaConfig

from promptmii.configs import recipes
from promptmii.train.rl.memory import memory_terms
from promptmii.train.rl.plan import grpo_plan
from promptmii.train.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
EIGHT_BILLION: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def terms(folder: Path, recipe: str, **trl: Any) -> dict[str, float]:
    LlamaConfig(**EIGHT_BILLION).save_pretrained(folder)
    settings = TrainSettings.read(recipes("train")[recipe], model=f"hf:{folder}", trl=trl)
    if any(name.startswith("hf:") for name in settings.reward.followers):
        reward = settings.reward.model_copy(update={"followers": (f"hf:{folder}",)})
        settings = settings.model_copy(update={"reward": reward})
    return {term.name: round(term.gib, 1) for term in memory_terms(grpo_plan(settings))}


def test_memory_of_the_papers_run_fits_80_gib_with_vllm(tmp_path: Path) -> None:
    gib = terms(tmp_path, "llama-3.1-8b")
    assert gib == {
        "weights in training": 29.9,  # 8.03e9 x 16 bytes on four processes
        "activations": 8.4,
        "layers of a pass": 1.9,
        "vLLM": 24.0,
        "runtime": 3.0,
    }
    without_vllm = terms(tmp_path, "llama-3.1-8b", use_vllm=False)
    assert without_vllm["all weights gathered"] == 15.0
    assert "vLLM" not in without_vllm
    without_zero = terms(tmp_path, "llama-3.1-8b", deepspeed="")
    assert without_zero["weights in training"] == pytest.approx(8.03e9 * 18 / 2**30, abs=0.1)


def test_memory_of_a_model_that_names_its_sizes_otherwise_is_unknown(tmp_path: Path) -> None:
    GPT2Config(n_embd=32, n_layer=1, n_head=2).save_pretrained(tmp_path)
    recipe = TrainSettings.read(recipes("train")["smol-cpu"], model=f"hf:{tmp_path}")
    assert memory_terms(grpo_plan(recipe)) == ()


@pytest.mark.slow
def test_memory_of_an_adapter_run(tmp_path: Path) -> None:
    gib = terms(tmp_path, "llama-3.1-8b-lora")
    assert gib["frozen weights"] == 15.0
    assert gib["adapter in training"] == pytest.approx(84e6 * 16 / 2**30, abs=0.1)
    assert gib[f"follower hf:{tmp_path}"] == 15.0
    assert "weights with the adapter merged" not in gib
    assert terms(tmp_path, "llama-3.1-8b-lora", use_vllm=False)["weights with the adapter merged"] == 15.0


def run_doctor(world: Path, *options: str) -> Any:
    config = world / "recipe.toml"
    config.write_text(f'model = "hf:{world}/tiny"\ntasks = ["{world}/tasks"]\n[trl]\nmax_steps = 2\nsave_steps = 2\n')
    return promptmii("train", config, "-o", world / "run", "--doctor", *options)


def test_doctor_accepts_a_suitable_machine_and_writes_nothing(world: Path) -> None:
    with serving(FaultyServer(default="say:good")) as server:
        reward = f'reward={{mode = "generate", followers = ["openai:m@{server.url}"]}}'
        result = run_doctor(world, "--set", reward)
    assert result.exit_code == 0, result.output
    assert "GPUs: " in result.stdout
    room = psutil.virtual_memory().total / 2**30
    expected = "memory, sum: 3 GiB of a GPU's" if torch.cuda.device_count() else f"3 of this machine's {room:.0f} GiB"
    assert expected in result.stdout
    assert f"follower: {server.url}: " in result.stdout
    assert not (world / "run").exists()


def test_doctor_names_each_problem_and_its_cure(world: Path) -> None:
    with socket.socket() as listening, socket.socket() as closed:
        for bound in (listening, closed):
            bound.bind(("localhost", 0))
        listening.listen()
        taken_port, dead_port = (bound.getsockname()[1] for bound in (listening, closed))
        vllm = "trl.use_vllm=true", "--set", 'trl.vllm_mode="server"', "--set", f"trl.vllm_group_port={taken_port}"
        followers = f'reward.followers=["openai:m@http://localhost:{dead_port}/v1"]'
        result = run_doctor(world, "--set", *vllm, "--set", followers, "--set", "endpoint.patience=0")
    assert result.exit_code == 3
    assert "no  packages: vllm<0.31,>=0.27" in result.stdout
    assert "pip install 'promptmii[gpu]'" in result.stdout
    assert f"no  follower: http://localhost:{dead_port}/v1: load" in result.stdout
    assert f"no  port: {taken_port} for weights to vLLM" in result.stdout
    assumed = "This machine has no GPU, so this is compared with an assumed one of 80 GiB" in result.stdout
    assert assumed == (torch.cuda.device_count() == 0), "vLLM needs a GPU, so the run is for another machine"


def test_a_run_on_the_cpu_needs_room_in_this_machine(world: Path) -> None:
    result = run_doctor(world, "--set", "longest_prompt=1000000000", "--set", 'reward.followers=["smol"]')
    assert result.exit_code == 3
    assert "no  memory, sum: " in result.stdout


def test_drafts_that_share_a_prompt_need_memory_for_it_once(tmp_path: Path) -> None:
    LlamaConfig(**EIGHT_BILLION).save_pretrained(tmp_path)
    settings = TrainSettings.read(recipes("train")["smol-cpu"], model=f"hf:{tmp_path}")
    on_gpu, on_cpu = (
        next(term for term in memory_terms(grpo_plan(settings), gpu) if term.name == "activations")
        for gpu in (80.0, None)
    )
    assert on_gpu.how.startswith("1,912 tokens")  # two prompts of 700, and 16 drafts of 32
    assert on_cpu.gib == 2 * on_gpu.gib
    two = {"plan": {"processes": 2}, "trl": {"per_device_train_batch_size": 8}}
    settings = TrainSettings.read(recipes("train")["smol-cpu"], model=f"hf:{tmp_path}", **two)
    assert any(term.how.startswith("5,856 tokens") for term in memory_terms(grpo_plan(settings)))  # 8 x 732, unshared


@pytest.mark.slow
def test_rendezvous_port_is_checked_only_for_several_processes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyServer(default="say:good")) as server, socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        reward = f'reward={{mode = "generate", followers = ["openai:m@{server.url}"]}}'
        assert run_doctor(world, "--set", reward).exit_code == 0
        two_processes = run_doctor(world, "--set", reward, "--set", "plan.processes=2")
    assert two_processes.exit_code == 3
    assert "for processes of several machines is taken" in two_processes.stdout


def test_missing_vllm_is_reported_before_anything_loads(world: Path) -> None:
    from promptmii.errors import MissingDependencyError
    from promptmii.train.rl.run import train

    with pytest.raises(MissingDependencyError, match=r"trl.use_vllm cannot work without .*vllm.*promptmii\[gpu\]"):
        train(toy_settings(world, trl={"use_vllm": True}), world / "run")
