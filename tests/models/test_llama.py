"""llama.cpp with the smallest embedded model: its scores agree with transformers and do not depend on other chats."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from promptmii import load_model
from promptmii.models.base import Chat, Choice, Completion, Contrast, LanguageModel, Sampling
from promptmii.models.embedded import SMOL

pytestmark = [pytest.mark.smol, pytest.mark.skipif(not SMOL.installed, reason="needs: promptmii models install smol")]
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
CHATS: list[Chat] = [
    [{"role": "user", "content": f"Is a {noun} an animal or a fruit? Answer with one word."}]
    for noun in ("dog", "ripe apple", "horse", "very old and slightly rotten pear that fell from the tree")
]
OPTIONS = ["animal", "fruit", "animal or fruit"]


@pytest.fixture(scope="module")
def smol() -> Iterator[Any]:
    model = load_model("smol")
    yield model
    model.close()


@pytest.fixture(scope="module")
def plain() -> Any:
    """The same weights, dequantised, in float32."""
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptmii.models.hf.convert import converted

    folder = str(converted("smol"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def scores(answers: Sequence[object]) -> list[tuple[float, ...] | None]:
    return [answer.scores for answer in answers if isinstance(answer, Choice)]


def test_loading_twice_gives_the_same_model(smol: LanguageModel) -> None:
    again = load_model("smol")
    assert again.card == smol.card
    assert smol.card.context_length == 8192
    again.close()


def test_template_and_tokens_agree_with_transformers(smol: Any, plain: Any) -> None:
    _, tokenizer = plain
    prompt = smol.prompts([[{"role": "user", "content": "hi\n\n12  3 <|im_end|>"}]])[0]
    text = SYSTEM + "<|im_start|>user\nhi\n\n12  3 < |im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert prompt == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_likelihoods_are_close_to_those_of_transformers(smol: Any, plain: Any) -> None:
    import torch

    model, tokenizer = plain
    for prompt, choice in zip(smol.prompts(CHATS), smol.choose(CHATS, OPTIONS), strict=True):
        for option, score in zip(OPTIONS, choice.scores, strict=True):
            answer = [*tokenizer(option)["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            # llama.cpp rounds activations to eight bits, which affects the smallest model most.
            assert score == pytest.approx(float(logs.gather(1, torch.tensor(answer)[:, None]).sum()), abs=0.8)


def test_an_answer_does_not_depend_on_other_chats_in_the_batch(smol: LanguageModel) -> None:
    together = scores(smol.choose(CHATS, OPTIONS))
    assert together == scores([smol.choose([chat], OPTIONS)[0] for chat in reversed(CHATS)])[::-1]
    greedy = Sampling(12)
    texts = smol.generate(CHATS, greedy)
    assert [smol.generate([chat], greedy)[0].text for chat in CHATS] == [text.text for text in texts]  # type: ignore[union-attr]


@pytest.mark.parametrize("contrast", [None, Contrast(tuple(CHATS[3]), 0.5)])
@pytest.mark.parametrize("shared_words", [1, 3, -2, -1])
def test_an_answer_does_not_depend_on_earlier_calls(
    smol: LanguageModel, shared_words: int, contrast: Contrast | None
) -> None:
    words = ["Is it an animal or a fruit? " * 9, "This", "is", "a", "rather", "old", "dog."]
    chat: Chat = [{"role": "user", "content": " ".join(words)}]
    other: Chat = [{"role": "user", "content": " ".join([*words[:shared_words], "pear"])}]
    smol.choose(CHATS, OPTIONS)
    before = scores(smol.choose([chat], OPTIONS))
    smol.generate([other], Sampling(12, contrast=contrast))
    assert scores(smol.choose([chat], OPTIONS)) == before


def test_more_options_than_fit_a_batch(smol: LanguageModel) -> None:
    options = [f"label {number}" for number in range(150)]
    whole, part = (smol.choose(CHATS[:1], subset)[0] for subset in (options, options[40:60]))
    assert isinstance(whole, Choice)
    assert isinstance(part, Choice)
    assert whole.scores is not None
    assert whole.scores[40:60] == pytest.approx(part.scores, abs=0.8)


def test_a_label_longer_than_a_batch_scores_as_in_transformers(smol: Any, plain: Any) -> None:
    import torch

    model, tokenizer = plain
    options = ["fruit", " ".join(["animal"] * 300)]
    prompt, (choice,) = smol.prompts(CHATS[:1])[0], smol.choose(CHATS[:1], options)
    for option, score in zip(options, choice.scores, strict=True):
        answer = [*tokenizer(option)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        assert score == pytest.approx(float(logs.gather(1, torch.tensor(answer)[:, None]).sum()), rel=0.05, abs=0.8)


def test_it_writes_sensible_text(smol: LanguageModel) -> None:
    (result,) = smol.generate([[{"role": "user", "content": "What is 2+2?"}]], Sampling(30))
    assert isinstance(result, Completion)
    assert "4" in result.text


READS = 'model.choose([[{"role": "user", "content": "word and " * 1500}]], ["a", "b"])'
WRITES = 'model.generate([[{"role": "user", "content": "Tell a long story."}]], Sampling(4000))'
INTERRUPTED = """
from promptmii import load_model
from promptmii.models.base import Sampling

model = load_model("smol")
print("ready", flush=True)
try:
    {}
except KeyboardInterrupt:
    print(len(model.choose([[{{"role": "user", "content": "still there?"}}]], ["yes", "no"])))
"""


@pytest.mark.parametrize("work", [READS, WRITES], ids=["reads", "writes"])
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_interrupts_a_long_computation_and_leaves_the_model_usable(work: str) -> None:
    program = [sys.executable, "-c", INTERRUPTED.format(work)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("1\n", "", 0)
    assert time.monotonic() - started < 2


def test_close_frees_the_memory() -> None:
    code = """
from promptmii import load_model
import psutil
used = lambda: psutil.Process().memory_full_info().uss / 1e6
for _ in range(3):
    model = load_model("smol")
    model.choose([[{"role": "user", "content": "Is a dog an animal?"}]], ["yes", "no"])
    during = used()
    model.close()
    print(during, used())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sizes = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert all(during - after > 100 for during, after in sizes)
    assert sizes[-1][1] - sizes[0][1] < 40
