"""Likelihoods from a real llama.cpp server, beside those that the same weights have in this process."""

import socket
from collections.abc import Iterator

import pytest

from promptmii import load_model
from promptmii.config import Endpoint
from promptmii.doctor import examine
from promptmii.models.base import Chat, Choice, Failure, FailureKind, LanguageModel
from promptmii.models.embedded import SMOL
from promptmii.models.http.config import HttpConfig
from promptmii.progress import QUIET

pytestmark = [pytest.mark.smol, pytest.mark.skipif(not SMOL.installed, reason="needs: promptmii models install smol")]
OPTIONS = ["animal", "fruit", "animal or fruit"]
CHATS: list[Chat] = [
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": f"Is a {noun} an animal or a fruit?"},
    ]
    for noun in ("dog", "ripe apple", "horse", "very old pear", "dog")
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    xllamacpp = pytest.importorskip("xllamacpp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(SMOL.path), {"smollm"}
    params.hostnames, params.port, params.n_ctx, params.n_parallel = ["127.0.0.1"], port, 1024, 2
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture(scope="module")
def model(address: str) -> Iterator[LanguageModel]:
    served = load_model("openai:smollm", HttpConfig(address, "", patience=5))
    yield served
    served.close()


def test_likelihoods_are_those_of_this_process(model: LanguageModel) -> None:
    assert model.card.gives_scores
    local = load_model("smol")
    for served, own in zip(model.choose(CHATS, OPTIONS), local.choose(CHATS, OPTIONS), strict=True):
        assert isinstance(served, Choice)
        assert isinstance(own, Choice)
        # llama.cpp rounds activations to eight bits, and a server batches otherwise.
        assert served.scores == pytest.approx(own.scores, abs=0.8)
        assert served.usage.prompt_tokens == own.usage.prompt_tokens
    local.close()


def test_equal_questions_have_close_scores_and_the_beginning_is_kept(model: LanguageModel) -> None:
    first, *_, last = model.choose(CHATS, OPTIONS)
    assert isinstance(first, Choice)
    assert isinstance(last, Choice)
    assert first.scores == pytest.approx(last.scores, abs=0.8)
    again = model.choose(CHATS, OPTIONS)[-1]
    assert isinstance(again, Choice)
    assert again.usage.cached_tokens > 0


def test_a_chat_too_long_fails_alone(model: LanguageModel) -> None:
    long, short = model.choose([[{"role": "user", "content": "word and " * 1000}], CHATS[0]], OPTIONS)
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.CONTEXT
    assert isinstance(short, Choice)


def test_doctor_says_so(address: str) -> None:
    report = examine("openai:smollm", Endpoint(base_url=address), QUIET)
    assert report.healthy
    assert "likelihoods available" in next(check.finding for check in report.checks if check.name == "choose")
