"""The training row against the follower's own `choose`, on a tiny random model and on the real one."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.models.test_local import SIZES, trained  # noqa: E402, F401  the fixture
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from promptmii import Example, Follower, Support, load_model  # noqa: E402
from promptmii.inducers import InContext, Naive  # noqa: E402
from promptmii.instruction import Instruction  # noqa: E402
from promptmii.models.local import LocalModel  # noqa: E402
from promptmii.models.rendering import ChatFormat  # noqa: E402
from promptmii.prompts import defuse  # noqa: E402
from promptmii.train.config import LoraSettings  # noqa: E402
from promptmii.train.lora import add_adapter, save_adapter  # noqa: E402
from promptmii.train.packing import label_scores, lay_out  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers about itself
LABELS = ("good", "good enough", "bad")
TEXTS = ("lovely", "a waste of time", "well played, and warm", "a waste of time", "that one")
SUPPORT = Support(LABELS, (Example("lovely film", "good"), Example("a waste", "bad")))


def tiny(tokenizer: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES
        | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "initializer_range": 0.1}
        | changes
    )
    return AutoModelForCausalLM.from_config(config)


def packed(local: LocalModel, instruction: Instruction) -> Any:
    form = ChatFormat(local.tokenizer, local.model.generation_config.eos_token_id)
    prompts = form.prompts([instruction.messages(text) for text in TEXTS])
    row = lay_out(prompts, form.options([defuse(label) for label in LABELS]), form.ends[0], local.model.device)
    return label_scores(local.model, row)


def compare(local: LocalModel) -> None:
    for instruction in (
        Naive().induce(SUPPORT),
        InContext(local).induce(SUPPORT),
        Instruction(text="Say it.", labels=LABELS, method="guide"),
    ):
        scores = packed(local, instruction)
        assert scores.requires_grad
        predictions = Follower(local).predict(instruction, TEXTS)
        expected = torch.tensor([p.probabilities for p in predictions]).log()
        torch.testing.assert_close(scores.detach().log_softmax(1), expected.float(), atol=1e-3, rtol=0)
        choices: Any = local.choose([instruction.messages(text) for text in TEXTS], LABELS)
        torch.testing.assert_close(
            scores.detach(), torch.tensor([choice.scores for choice in choices]), atol=1e-3, rtol=1e-4
        )


def test_a_row_scores_as_the_follower_chooses(trained: Any) -> None:  # noqa: F811
    compare(LocalModel("tiny", tiny(trained), trained, "r"))


@pytest.mark.smol
def test_a_row_scores_as_the_real_follower_chooses() -> None:
    model = load_model("smol")
    assert isinstance(model, LocalModel)
    compare(model)


def test_the_lean_adapter_is_pefts(trained: Any, tmp_path: Path) -> None:  # noqa: F811
    local = LocalModel("tiny", tiny(trained), trained, "r")
    instruction = Naive().induce(SUPPORT)
    before = packed(local, instruction).detach()
    tuned = add_adapter(local.model, LoraSettings(rank=4))
    parameters = [p for p in local.model.parameters() if p.requires_grad]
    torch.testing.assert_close(packed(local, instruction).detach(), before)
    for p in parameters:
        torch.nn.init.normal_(p, std=0.05)
    lean = packed(local, instruction)
    lean.logsumexp(0).sum().backward()
    gradients = [p.grad.clone() for p in parameters]
    for module in local.model.modules():
        if type(module).__name__ == "LeanLinear":
            module.__class__ = module.__class__.__bases__[0]
    for p in parameters:
        p.grad = None
    plain = packed(local, instruction)
    torch.testing.assert_close(lean, plain, atol=1e-5, rtol=1e-5)
    plain.logsumexp(0).sum().backward()
    for one, p in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(one, p.grad, atol=1e-5, rtol=1e-3)
    tiny(trained).save_pretrained(tmp_path / "tiny")
    trained.save_pretrained(tmp_path / "tiny")
    save_adapter(tuned, tmp_path / "adapter", "tiny")
    loaded = load_model(f"hf:{tmp_path / 'tiny'}+{tmp_path / 'adapter'}")
    assert isinstance(loaded, LocalModel)
    torch.testing.assert_close(packed(loaded, instruction).detach(), plain.detach(), atol=0.05, rtol=0.01)


def test_layers_with_a_bias_are_adapted_too(trained: Any) -> None:  # noqa: F811
    local = LocalModel("tiny", tiny(trained, mlp_bias=True), trained, "r")
    add_adapter(local.model, LoraSettings(rank=2))
    compare(local)
