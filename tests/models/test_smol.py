"""The embedded model: found or refused, and, where its weights are installed, right."""

import json
from pathlib import Path
from typing import Any

import pytest

from promptmii.errors import UnknownModelError
from promptmii.models.base import Chat, Choice, Completion, Sampling
from promptmii.models.references import Weights
from promptmii.models.smol import complete, smol_folder

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


@pytest.fixture(scope="session")
def smol() -> Any:
    pytest.importorskip("torch")
    from promptmii.models.local import LocalModel

    try:
        return LocalModel.load("smol", Weights("smol", str(smol_folder())))
    except UnknownModelError as error:
        pytest.skip(str(error))


def test_a_folder_counts_only_whole(tmp_path: Path) -> None:
    assert not complete(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"bytes": {"config.json": 2}}), "utf-8")
    assert not complete(tmp_path)
    (tmp_path / "config.json").write_text("{", "utf-8")
    assert not complete(tmp_path)
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert complete(tmp_path)


@pytest.mark.smol
def test_it_loads_the_same_twice(smol: Any) -> None:
    again = type(smol).load("smol", Weights("smol", str(smol_folder())))
    assert again.card == smol.card
    assert smol.card.context_length == 8192


@pytest.mark.smol
def test_template_and_tokens_are_the_originals(smol: Any) -> None:
    chat: Chat = [{"role": "user", "content": "hi"}]
    assert (
        smol.tokenizer.decode(smol.prompts([chat])[0])
        == SYSTEM + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smol.tokenizer.eos_token == "<|im_end|>"
    pieces = [smol.tokenizer.decode([token]) for token in smol.tokenizer("x\n\n12  3")["input_ids"]]
    assert pieces == ["x", "\n\n", "1", "2", "  ", "3"]


@pytest.mark.smol
def test_choose_agrees_with_the_plain_way(smol: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_pretrained(str(smol_folder()), dtype=torch.float32)
    chats: list[Chat] = [
        [{"role": "user", "content": f"Is a {noun} an animal or a fruit?"}] for noun in ("dog", "ripe apple")
    ]
    options = ["animal", "fruit", "animal or fruit"]
    for prompt, choice in zip(smol.prompts(chats), smol.choose(chats, options), strict=True):
        assert isinstance(choice, Choice)
        for option, score in zip(options, choice.scores or (), strict=True):
            answer = [*smol.tokenizer(option)["input_ids"], smol.tokenizer.eos_token_id]
            with torch.no_grad():
                logs = plain(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            close = 1e-3 if smol.model.dtype is torch.float32 else 0.6  # bfloat16 has three digits
            assert score == pytest.approx(float(logs.gather(1, torch.tensor(answer)[:, None]).sum()), abs=close)


@pytest.mark.smol
def test_it_writes_sense(smol: Any) -> None:
    (result,) = smol.generate([[{"role": "user", "content": "What is the capital of France?"}]], Sampling(30))
    assert isinstance(result, Completion)
    assert "Paris" in result.text
