"""GGUF files and adapters on llama.cpp score as in transformers on the same weights; bad input is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from tests.models import tiny

from promptmii import load_model
from promptmii.errors import ModelError, UnknownModelError
from promptmii.models.base import Chat, Choice, Completion, Contrast, Failure, FailureKind, Sampling
from promptmii.models.http.config import HttpConfig
from promptmii.models.llama.server import ServedModel, model_files
from promptmii.progress import each_token

OPTIONS = ["warm", "cold", "warm and cold", "abc", "or", "很 warm", "🙂"]
CLOSE = 0.05
"""Tolerance in nats, because llama.cpp stores keys and values in 16 bits."""


def chat(content: str) -> Chat:
    return [{"role": "system", "content": "Label the text."}, {"role": "user", "content": content}]


CHATS = [chat("warm sun"), chat("cold abc snow"), chat("neither 你 \n\n\n of them"), chat("")]


class Twins:
    """The same model as a transformers folder and as a GGUF file."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.hf = tiny.transformers_folder(folder / "hf", architecture)
        self.gguf = tiny.gguf_file(self.hf, folder / "tiny.gguf")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("only"), "llama")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMII_CACHE", str(tmp_path / "cache"))


def scores(reference: str, chats: Sequence[Chat] = CHATS, options: Sequence[str] = OPTIONS) -> list[float]:
    model = load_model(reference)
    try:
        return scores_of(model.choose(chats, options))
    finally:
        model.close()


def scores_of(answers: Sequence[Choice | Failure]) -> list[float]:
    return [score for answer in answers if isinstance(answer, Choice) for score in answer.scores or ()]


def test_a_gguf_file_scores_as_in_transformers(twins: Twins) -> None:
    assert scores(f"gguf:{twins.gguf}") == pytest.approx(scores(f"hf:{twins.hf}"), abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "r": 8}], ids=["plain", "rslora"])
def test_a_peft_adapter_changes_scores_as_in_transformers(
    twins: Twins, tmp_path: Path, options: dict[str, object]
) -> None:
    adapter = tiny.lora_folder(twins.hf, tmp_path / "adapter", **options)
    adapted, expected = scores(f"gguf:{twins.gguf}+{adapter}"), scores(f"hf:{twins.hf}+{adapter}")
    assert adapted == pytest.approx(expected, abs=CLOSE)
    plain = scores(f"gguf:{twins.gguf}")
    assert max(abs(score - plain_score) for score, plain_score in zip(adapted, plain, strict=True)) > 100 * CLOSE
    assert adapted == scores(f"gguf:{twins.gguf}+{adapter}")  # from the cache


LOADS = """
import os, signal, sys, threading, time
from promptmii import load_model

def load():
    load_model(sys.argv[1]).close()

load()
started = time.perf_counter()
load()
spent = time.perf_counter() - started
raised = 0
for part in range(40):
    timer = threading.Timer(spent * part / 40, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        load()
        timer.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        raised += 1
print(raised)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_while_a_model_loads_is_neither_lost_nor_printed_as_a_traceback(llama: Twins) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, f"gguf:{llama.gguf}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("40\n", "", 0)


@pytest.mark.parametrize("contrast", [None, Contrast(tuple(chat("another")), 0.5)], ids=["alone", "contrast"])
def test_an_interrupted_text_does_not_affect_later_answers(llama: Twins, contrast: Contrast | None) -> None:
    model = load_model(f"gguf:{llama.gguf}")
    tokens = iter(range(3))

    def ctrl_c() -> None:
        if next(tokens) == 2:
            raise KeyboardInterrupt

    with each_token(ctrl_c), pytest.raises(KeyboardInterrupt):
        model.generate([chat("a long story")], Sampling(64, contrast=contrast))
    after = scores_of(model.choose(CHATS, OPTIONS))
    model.close()
    assert after == scores(f"gguf:{llama.gguf}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_in_sixteen_bits_is_read_exactly(llama: Twins, tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    adapter = tiny.lora_folder(llama.hf, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    rounded = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(rounded, file)
    in_sixteen_bits = scores(f"gguf:{llama.gguf}+{adapter}")
    save_file({name: tensor.float() for name, tensor in rounded.items()}, file)
    assert in_sixteen_bits == scores(f"gguf:{llama.gguf}+{adapter}")


@pytest.mark.slow
def test_the_server_scores_as_the_library_does(twins: Twins, tmp_path: Path) -> None:
    adapter = tiny.lora_folder(twins.hf, tmp_path / "adapter")
    for adapters in ((), (str(adapter),)):
        served = ServedModel("gguf:tiny", twins.gguf, adapters, 8192)
        assert served.card.gives_scores
        assert served.card.context_length == tiny.CONTEXT
        expected = scores("+".join((f"gguf:{twins.gguf}", *adapters)))
        assert scores_of(served.choose(CHATS, OPTIONS)) == pytest.approx(expected, abs=0.01)
        served.close()


def test_the_server_serves_a_model_with_its_adapters(llama: Twins, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    first.touch()
    second.touch()
    assert model_files(f"gguf:{llama.gguf}+{first}+{second}") == (llama.gguf, [first, second])
    assert model_files(str(llama.gguf)) == (llama.gguf, [])


def test_two_adapters_add_up(llama: Twins, tmp_path: Path) -> None:
    first = tiny.lora_folder(llama.hf, tmp_path / "first")
    second = tiny.lora_folder(llama.hf, tmp_path / "second", r=2, target_modules=["q_proj", "v_proj"])
    both = scores(f"gguf:{llama.gguf}+{first}+{second}")
    assert both == pytest.approx(scores(f"hf:{llama.hf}+{first}+{second}"), abs=CLOSE)


def refusal(reference: str) -> str:
    with pytest.raises(UnknownModelError) as error:
        load_model(reference)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.slow
def test_an_invalid_or_foreign_adapter_is_refused(llama: Twins, tmp_path: Path) -> None:
    def refused(adapter: Path) -> str:
        return refusal(f"gguf:{llama.gguf}+{adapter}")

    assert "is not an adapter" in refused(tmp_path)
    assert "use_dora" in refused(tiny.lora_folder(llama.hf, tmp_path / "dora", use_dora=True))
    deeper = tiny.transformers_folder(tmp_path / "deeper", layers=3)
    other = tiny.lora_folder(deeper, tmp_path / "other")
    assert "no place for base_model.model.model.layers.2" in refused(other)
    assert "does not fit this model" in refusal(f"hf:{llama.hf}+{other}")
    assert "does not fit this model" in refusal(f"hf:{deeper}+{tiny.lora_folder(llama.hf, tmp_path / 'shallow')}")
    for missing in ("warm-start", "runs/warm-start", "runs/warm-start/best"):
        assert f"{missing} is not a folder" in refusal(f"hf:{llama.hf}+{missing}")
    broken = tiny.lora_folder(llama.hf, tmp_path / "broken")
    whole = (broken / "adapter_model.safetensors").read_bytes()
    (broken / "adapter_model.safetensors").write_bytes(whole[:1000])
    assert "cannot be converted" in refused(broken)
    (broken / "adapter_model.safetensors").write_bytes(whole)
    config = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    assert "IA3" in refused(broken)
    (broken / "adapter_config.json").write_text(json.dumps(config | {"r": None}))
    assert "cannot be converted" in refused(broken)
    (broken / "adapter_config.json").write_text("5")
    assert "is not an adapter" in refused(broken)
    assert "no file ~nobody-here/x.gguf" in refusal("gguf:~nobody-here/x.gguf")
    assert "does not fit" in refused(llama.gguf)


def test_an_adapter_of_a_wider_model_does_not_fit(llama: Twins, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = tiny.lora_folder(llama.hf, tmp_path / "adapter", target_modules=["down_proj"])
    weights = load_file(adapter / "adapter_model.safetensors")
    wider = {name: torch.cat([tensor] * 2, int("lora_A" in name)) for name, tensor in weights.items()}
    save_file(wider, adapter / "adapter_model.safetensors")
    assert "does not fit this model" in refusal(f"gguf:{llama.gguf}+{adapter}")
    assert "does not fit this model" in refusal(f"hf:{llama.hf}+{adapter}")


def test_a_file_that_llama_cpp_cannot_load_is_refused_with_the_reason(llama: Twins, tmp_path: Path) -> None:
    unknown = tiny.gguf_file(llama.hf, tmp_path / "unknown.gguf", name="perceptron")
    assert "unknown model architecture: 'perceptron'" in refusal(f"gguf:{unknown}")
    whole = llama.gguf.read_bytes()
    for size, reason in ((len(whole) - 1000, "not within the file bounds"), (200, ""), (4, "")):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:size])
        assert reason in refusal(f"gguf:{cut}")
    for content in (b"", b"{}"):
        cut.write_bytes(content)
        assert "not a GGUF file" in refusal(f"gguf:{cut}")
    assert "There is no file" in refusal(f"gguf:{tmp_path}/missing.gguf")


@pytest.mark.parametrize("path", ["runs/x/model.gguf", "./x/model.gguf", "/x/model.gguf", "~/x/model.gguf"])
def test_a_missing_path_is_not_looked_up_on_the_hub(path: str) -> None:
    assert f"There is no file {path}" in refusal(f"gguf:{path}")


def test_a_file_without_a_template_reads_the_bare_messages(llama: Twins, tmp_path: Path) -> None:
    plain = tiny.gguf_file(llama.hf, tmp_path / "plain.gguf", template=None)
    assert len(scores(f"gguf:{plain}")) == len(CHATS) * len(OPTIONS)


DATED = (
    "{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}{{ m['content'] }}{% generation %}abc{% endgeneration %}"
    "<|im_end|>{% endfor %}"
)


def test_a_training_template_renders_with_a_fixed_date(llama: Twins, tmp_path: Path) -> None:
    dated = tiny.gguf_file(llama.hf, tmp_path / "dated.gguf", template=DATED)
    folder = Path(shutil.copytree(llama.hf, tmp_path / "dated"))
    (folder / "chat_template.jinja").write_text(DATED)
    prompt = "2024-07-26warm sunabc<|im_end|>"
    expected = tiny.tokenizer()(prompt, add_special_tokens=False)["input_ids"]
    for reference in (f"gguf:{dated}", f"hf:{folder}"):
        model = load_model(reference)
        chats: list[Chat] = [[{"role": "user", "content": "warm sun"}]]
        assert model.prompts(chats) == [expected]  # type: ignore[attr-defined]
        assert model.generate(chats, Sampling(3))[0].usage.completion_tokens, "a prompt may end in an end of turn"
        model.close()


def test_a_broken_template_is_refused(llama: Twins, tmp_path: Path) -> None:
    broken = tiny.gguf_file(llama.hf, tmp_path / "broken.gguf", template="{% if %}")
    assert "template" in refusal(f"gguf:{broken}")


def test_the_context_length_is_set_by_the_user_and_limited_by_the_model(llama: Twins) -> None:
    for requested, expected in ((None, tiny.CONTEXT), (100, 100), (10_000, tiny.CONTEXT)):
        model = load_model(f"gguf:{llama.gguf}", HttpConfig(context_length=requested))
        assert model.card.context_length == expected
        long, short = model.choose([chat("x" * expected), [{"role": "user", "content": "x"}]], OPTIONS)
        assert isinstance(long, Failure)
        assert long.kind is FailureKind.CONTEXT
        assert isinstance(short, Choice)
        model.close()


def test_a_text_too_long_fails_without_affecting_others(llama: Twins) -> None:
    model = load_model(f"gguf:{llama.gguf}")
    for text in ("a" * 100_000, "你" * 100_000, "\n" * 100_000, "word and " * 11_000):
        long, short = model.choose([chat(text), chat("short")], OPTIONS)
        assert isinstance(long, Failure)
        assert long.kind is FailureKind.CONTEXT
        assert isinstance(short, Choice)
        assert model.count_tokens([text])[0] > 256
    room = tiny.CONTEXT - len(model.prompts([chat("")])[0])  # type: ignore[attr-defined]
    fits = [chat("x" * length) for length in range(room - 12, room + 1)]
    answers = model.generate(fits, Sampling(8))
    assert [isinstance(answer, Completion) for answer in answers] == [
        length <= room - 8 for length in range(room - 12, room + 1)
    ]
    model.close()


def test_a_short_prompt_and_odd_options_are_scored(llama: Twins, tmp_path: Path) -> None:
    plain = tiny.gguf_file(llama.hf, tmp_path / "plain.gguf", template="{{ messages[0]['content'][:1] }}")
    model = load_model(f"gguf:{plain}")
    options = ["\x00", " ", "\n", "<|im_end|>", "\ud800", "x" * 120]
    short: Chat = [{"role": "user", "content": "a"}]
    empty: Chat = [{"role": "user", "content": ""}]
    choice, failure = model.choose([short, empty], options)
    assert isinstance(choice, Choice)
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.REQUEST
    completion, failure = model.generate([short, empty], Sampling(4))
    assert isinstance(completion, Completion)
    assert isinstance(failure, Failure)
    model.close()


def test_hundreds_of_options_score_as_a_few_do(llama: Twins) -> None:
    options = [f"label {number} abc" for number in range(300)]
    all_scores = scores(f"gguf:{llama.gguf}", CHATS[:1], options)
    assert len(all_scores) == 300
    assert all_scores[140:150] == pytest.approx(scores(f"gguf:{llama.gguf}", CHATS[:1], options[140:150]), abs=1e-3)


def test_a_closed_model_refuses_calls_and_its_file_loads_again(llama: Twins, tmp_path: Path) -> None:
    copy = shutil.copy(llama.gguf, tmp_path / "copy.gguf")
    model, second = load_model(f"gguf:{copy}"), load_model(f"gguf:{copy}")
    model.close()
    for call in (lambda: model.choose(CHATS, OPTIONS), lambda: model.count_tokens(["x"])):
        with pytest.raises(ModelError, match="closed"):
            call()
    assert second.count_tokens(["abc"]) == [1]
    second.close()
    assert scores(f"gguf:{copy}") == scores(f"gguf:{llama.gguf}")
