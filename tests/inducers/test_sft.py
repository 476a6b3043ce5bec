"""Fine-tuning, run on a tiny random model."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_transformers import SIZES, trained  # noqa: E402, F401  the fixture
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from promptmii import Example, Follower, Support, load_model  # noqa: E402
from promptmii.errors import UnsupportedError  # noqa: E402
from promptmii.inducers.sft import FineTuning, SFTMethod  # noqa: E402
from promptmii.scoring import score  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers uses its own deprecated API
WORDS = {"negative": "waste", "positive": "lovely"}
EXAMPLES = tuple(Example(f"{i} {word} {i % 3}", label) for i in range(6) for label, word in WORDS.items())
SUPPORT = Support(tuple(WORDS), EXAMPLES)
UNSEEN = [Example(f"{i} {word} 1", label) for i in (7, 8, 9) for label, word in WORDS.items()]


@pytest.mark.slow
def test_an_adapter_learns_the_examples_and_is_trained_once(trained: Any, tmp_path: Path) -> None:  # noqa: F811
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES | {"vocab_size": len(trained), "eos_token_id": trained.eos_token_id, "initializer_range": 0.1}
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "tiny")
    trained.save_pretrained(tmp_path / "tiny")
    reference = f"hf:{tmp_path / 'tiny'}"
    tuning = FineTuning(reference, tmp_path / "adapters", SFTMethod(epochs=40, learning_rate=1e-2, rank=8))
    instruction = tuning.induce(SUPPORT)
    assert instruction.text == ""
    assert instruction.follower is not None
    assert instruction.follower.startswith(f"{reference}+")
    assert score(Follower(load_model(instruction.follower)), instruction, UNSEEN).accuracy == 1.0
    (adapter,) = (tmp_path / "adapters").iterdir()
    written = (adapter / "adapter_model.safetensors").stat().st_mtime_ns
    (tmp_path / "tiny" / "model.safetensors").unlink()  # no weights are loaded for an adapter that exists
    again = tuning.induce(SUPPORT)
    assert again.key == instruction.key
    assert again.cost.prompt_tokens == instruction.cost.prompt_tokens
    assert (adapter / "adapter_model.safetensors").stat().st_mtime_ns == written


def test_a_remote_model_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="model on this machine"):
        FineTuning("openai:m", tmp_path).induce(SUPPORT)
