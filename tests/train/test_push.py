"""Trained weights go to the hub, a real server on loopback, and load from there."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.corpus.hub_server import HubServer, serving
from tests.train.toys import write_model

from promptmii.config import LoraSettings
from promptmii.errors import ArtefactError
from promptmii.models.push import push_weights
from promptmii.tuning.lora import save_adapter
from promptmii.tuning.model import TrainableModel

CODE = """
import sys
from pathlib import Path
from promptmii import load_model
from promptmii.models.push import push_weights
reference = push_weights(Path(sys.argv[1]), "me/writer")
chat = [{"role": "user", "content": "red lovely"}]
for name in (reference, sys.argv[2]):
    print(load_model(name).choose([chat], ["good", "bad"])[0].scores)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_are_pushed_without_the_rest_of_the_run_and_load_from_the_hub(tmp_path: Path) -> None:
    tiny = write_model(tmp_path / "tiny")
    policy = TrainableModel.load(f"hf:{tiny}", LoraSettings(rank=2), 0)
    save_adapter(policy.trained, tmp_path / "best", policy.below.named)
    (tmp_path / "best" / "README.md").write_text("# A writer\n")
    (tmp_path / "best" / "optimizer.pt").write_text("not for others")
    with serving(HubServer()) as hub:
        local = f"hf:{tiny}+{tmp_path / 'best'}"
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(tmp_path / "best"), local],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            check=False,
        )
        pushed, kept = done.stdout.splitlines() or ("", done.stderr)
        assert pushed == kept
        assert hub.repositories["me/writer"].private
        assert set(hub.repositories["me/writer"].files) == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        }


def test_a_folder_without_weights_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no weights"):
        push_weights(tmp_path, "me/nothing")
