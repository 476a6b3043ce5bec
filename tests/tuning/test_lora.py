"""The leaner passes of an adapted layer compute the same as peft's own, forward and backward."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.train.toys import write_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from promptmii.config import LoraSettings  # noqa: E402
from promptmii.errors import ConfigError  # noqa: E402
from promptmii.tuning import TrainableModel  # noqa: E402
from promptmii.tuning.lora import add_adapter, continue_adapter, merged, save_adapter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from within transformers
TOKENS = torch.tensor([[3, 7, 5, 9, 4], [8, 3, 3, 6, 10]])


def scores(model: Any) -> Any:
    return model(input_ids=TOKENS).logits.log_softmax(-1)


def gradients(model: Any, parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        parameter.grad = None
    scores(model)[..., 3].sum().backward()
    return [parameter.grad.clone() for parameter in parameters]


def use_peft_passes(model: Any) -> None:
    """Give every adapted layer peft's own passes."""
    for module in model.modules():
        if type(module).__name__ == "LeanLinear":
            module.__class__ = module.__class__.__bases__[0]


@pytest.mark.parametrize("bias", [False, True])
def test_the_lean_adapter_equals_that_of_peft(tmp_path: Path, bias: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "tiny"), mlp_bias=bias)
    if bias:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.zeros_(parameter)
    before = scores(model).detach()
    tuned = add_adapter(model, LoraSettings(rank=4))
    torch.testing.assert_close(scores(model).detach(), before)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.05)
    lean, lean_gradients = scores(model).detach(), gradients(model, parameters)
    save_adapter(tuned, tmp_path / "adapter", "tiny")
    use_peft_passes(model)
    torch.testing.assert_close(lean, scores(model).detach(), atol=1e-5, rtol=1e-5)
    for lean_gradient, gradient in zip(lean_gradients, gradients(model, parameters), strict=True):
        torch.testing.assert_close(lean_gradient, gradient, atol=1e-5, rtol=1e-3)
    if not bias:
        from promptmii import load_model

        loaded: Any = load_model(f"hf:{tmp_path / 'tiny'}+{tmp_path / 'adapter'}")
        torch.testing.assert_close(scores(loaded.model).detach(), lean, atol=0.05, rtol=0.01)


def test_a_model_whose_end_only_the_generation_settings_name_can_be_trained(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "tiny")
    policy = TrainableModel.load(f"hf:{tmp_path / 'tiny'}", LoraSettings(rank=2), 0)
    rows = [policy.row([{"role": "user", "content": "red"}], answer) for answer in ("lovely", "lovely waste")]
    assert policy.collator()(rows)["input_ids"].shape[0] == 2


def test_an_adapter_of_another_rank_is_refused_in_one_sentence(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "tiny"))
    tuned = add_adapter(model, LoraSettings(rank=4))
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    with pytest.raises(ConfigError, match=r"^The adapter \S+ has r = 8; .* or merge it into the model first\.$"):
        continue_adapter(tuned, tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "modules_to_save": ["embed_tokens"]}')
    with pytest.raises(ConfigError, match="modules_to_save"):  # these weights would be trained on, and not be saved
        continue_adapter(tuned, tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"cannot be trained on"):
        continue_adapter(tuned, tmp_path)


def test_merging_an_adapter_changes_no_results_and_is_undone(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "tiny"))
    add_adapter(model, LoraSettings(rank=4, first_layer=1))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    original = {name: value.clone() for name, value in model.state_dict().items()}
    before = scores(model).detach()
    with merged(model):
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, original[name])}
        assert changed
        assert not any("layers.0." in name for name in changed)
        torch.testing.assert_close(scores(model).detach(), before, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert torch.equal(scores(model).detach(), before)
