"""Pushing trained weights to a hub server on loopback, and loading them from there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
import yaml
from huggingface_hub import parse_eval_result_entries
from tests.corpus.hub_server import HubServer, Repository, serving
from tests.corpus.repositories import card
from tests.report.synthetic import write_run
from tests.train.toys import write_model

from promptmii.config import LoraSettings
from promptmii.errors import ArtefactError, EndpointError
from promptmii.publish import measured, push_weights
from promptmii.records import Run
from promptmii.train.card import generator_card
from promptmii.train.settings import TrainSettings
from promptmii.tuning import TrainableModel
from promptmii.tuning.lora import save_adapter

CODE = """
import sys
from pathlib import Path
from promptmii import load_model
from promptmii.publish import push_weights
reference = push_weights(Path(sys.argv[1]), "me/writer", licence="mit", evaluation=Path(sys.argv[3]))
push_weights(Path(sys.argv[1]), "me/writer", evaluation=Path(sys.argv[3]))  # a second push keeps the card
chat = [{"role": "user", "content": "red lovely"}]
for name in (reference, sys.argv[2]):
    print(load_model(name).choose([chat], ["good", "bad"])[0].scores)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_only_weights_and_results_are_pushed_and_they_load_from_the_hub(tmp_path: Path) -> None:
    tiny = write_model(tmp_path / "tiny")
    policy = TrainableModel.load(f"hf:{tiny}", LoraSettings(rank=2), 0)
    save_adapter(policy.trained, tmp_path / "best", policy.below.stored_name)
    (tmp_path / "best" / "README.md").write_text("# A writer\n")
    for name in ("optimizer.pt", "trainer_state.json", "checkpoint-1/trainer_state.json", "checkpoint-1/m.safetensors"):
        (tmp_path / "best" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "best" / name).write_text("not to be pushed")
    local = f"hf:{tiny}+{tmp_path / 'best'}"
    run = write_run(tmp_path / "eval", 2, ["naive", "mii"], [5, 20], 3, generators=("qwen", local))
    records = run / "records.jsonl"
    records.write_text(records.read_text().replace('"task":"banking_000"', '"task":"owner/data:part"'))
    with serving(HubServer()) as hub:
        process = subprocess.run(
            [sys.executable, "-c", CODE, str(tmp_path / "best"), local, str(run)],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
        pushed, original = process.stdout.splitlines() or ("", process.stderr)
        assert pushed == original
        assert hub.repositories["me/writer"].private
        files = hub.repositories["me/writer"].files
        results = {f".eval_results/promptmii-mii-n{n}-smol-choose.yaml" for n in (5, 20)}
        assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", *results}
    assert hub.repositories["me/writer"].card["license"] == "mit"
    text = files["README.md"].decode()
    assert text.count("## Evaluation") == 1
    assert len(re.findall(r"^\| (?:owner/data:part|health_001) \| mii \| (?:5|20) \| smol ", text, re.MULTILINE)) == 4
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[min(results)]))
    assert (entry.dataset_id, entry.task_id) == ("owner/data", "part")
    scores = [
        record.instruction.measured.macro_f1
        for record in Run.read(run).records.values()
        if record.cell.task == "owner/data:part" and record.cell.n == 20 and record.cell.generator == local
        if record.instruction and record.instruction.measured
    ]
    assert entry.value == pytest.approx(sum(scores) / 3, abs=1e-4)
    assert "follower smol" in str(entry.notes)


def test_a_folder_without_weights_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no weights"):
        push_weights(tmp_path, "me/nothing")


def test_evaluation_of_other_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").write_bytes(b"")
    run = write_run(tmp_path / "eval", 1, ["naive", "mii"], [5], 1, generators=("qwen",))
    with pytest.raises(ArtefactError, match=r"measured nothing that .*best wrote\. Its generators: qwen\."):
        push_weights(tmp_path / "best", "me/nothing", evaluation=run)


def test_scores_name_no_address_and_no_folder_and_keep_styles_apart(tmp_path: Path) -> None:
    best = tmp_path / "best"
    writers = (f"hf:{best}@cpu#contrast", f"smol+{best}")
    run = write_run(tmp_path / "eval", 1, ["mii"], [5], 1, generators=writers)
    records = run / "records.jsonl"
    for follower, public in (
        ("openai:m@http://10.0.0.7:8000/v1", "openai:m"),
        ("gguf:/home/me/m.gguf+/home/me/lora", "gguf:m.gguf+lora"),
        ("qwen+/home/me/lora", "qwen+lora"),
        ("hf:owner/name+runs/best", "hf:owner/name+runs/best"),
    ):
        records.write_text(records.read_text().replace('"follower":"smol"', f'"follower":"{follower}"'))
        results = measured(best, run)
        assert {result.setting.follower for result in results} == {public}
        assert {result.setting.method for result in results} == {"mii#contrast", "mii"}
        records.write_text(records.read_text().replace(f'"follower":"{follower}"', '"follower":"smol"'))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_licence_is_taken_from_the_base_model_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    with serving(HubServer({"org/base": Repository({"README.md": card(license="llama3.1")})})) as hub:
        code = "import sys; from pathlib import Path; from promptmii.publish import push_weights\n"
        code += "print(push_weights(Path(sys.argv[1]), 'me/writer'))"
        process = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.stdout == "hf:org/base+me/writer\n", process.stderr
    head = hub.repositories["me/writer"].card
    assert (head["license"], head["base_model"]) == ("llama3.1", "org/base")


@pytest.mark.slow
def test_a_hub_out_of_reach_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    process = subprocess.run(
        [sys.executable, "-m", "promptmii", "models", "push", str(tmp_path), "me/writer"],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 3
    assert f"Error: {tmp_path} cannot be uploaded to me/writer: " in process.stderr
    assert process.stderr.endswith("a token in HF_TOKEN, and a network.\n")


def test_the_card_of_a_generator_names_no_address_and_no_path() -> None:
    settings = TrainSettings.of(
        tasks=("/home/me/tasks",),
        template="/home/me/template.txt",
        reward={"followers": ("openai:qwen@http://10.0.0.7:8000/v1", "smol"), "serve": {"engine": "vllm"}},
        trl={"vllm_server_base_url": "http://10.0.0.8:8000", "learning_rate": 1e-5},
    )
    text = generator_card(settings, "hf:smol", {}, 3, {})
    assert "`hf:smol` (SmolLM2-135M-Instruct, Q4_1, Apache-2.0)" in text
    assert "base_model" not in text, "the hub has no repository of the embedded weights"
    qwen = generator_card(settings, "hf:qwen", {}, 3, {})
    assert "base_model: Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF\n" in qwen
    assert "10.0.0" not in text
    assert "/home/me" not in text
    assert "(`openai:qwen`, `smol`, mode `generate`)" in text
    assert "1e-05" in text


def test_the_card_names_no_base_model_that_is_a_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EndpointError, match="Expected owner/name"):
        push_weights(tmp_path, "not//a name")
    assert "/home/me" not in (tmp_path / "README.md").read_text()


def test_a_push_without_an_evaluation_keeps_the_table_of_the_card(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    table = "# Mine\n\n## Evaluation\n\n| task | macro-F1 |\n"
    (tmp_path / "README.md").write_text(table)
    with pytest.raises(EndpointError, match="Expected owner/name"):
        push_weights(tmp_path, "not//a name")
    assert table in (tmp_path / "README.md").read_text()
