"""Likelihoods from llama.cpp's server: a toy with faults, and the real server compared with the in-process model."""

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web
from tests.models.faulty_server import FaultyServer, connect, serving

from promptmii import load_model
from promptmii.config import Endpoint
from promptmii.doctor import examine
from promptmii.models.base import Chat, Choice, Failure, FailureKind, LanguageModel
from promptmii.models.embedded import SMOL
from promptmii.models.http.config import HttpConfig
from promptmii.progress import QUIET


def smol(test: Any) -> Any:
    skip = pytest.mark.skipif(not SMOL.installed, reason="needs: promptmii models install smol")
    return pytest.mark.smol(skip(test))


OPTIONS = ["animal", "fruit", "animal or fruit"]
CHATS: list[Chat] = [
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": f"Is a {noun} an animal or a fruit?"},
    ]
    for noun in ("dog", "ripe apple", "horse", "very old pear", "dog")
]


class LlamaLike(FaultyServer):
    """Speaks llama.cpp's protocol. Letters are tokens, and its likelihoods can be faulty."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(counts=True, honours="grammar")
        self.fault = fault

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body["content"] if body.get("parse_special") else body["content"].replace("\x01", "<end>")
        return web.json_response({"tokens": [ord(letter) for letter in text]})

    async def outside_v1(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.path == "/apply-template":
            turns = "".join(f"{message['content']}\x01" for message in body["messages"])
            return web.json_response({"prompt": turns})
        if self.fault == "broken" and len(body["prompt"]) > 100:
            return web.json_response({"error": {"message": "broken", "code": 500}}, status=500)
        ((token, _),) = body["logit_bias"]
        likely = sorted(range(97, 123), key=lambda letter: -log_p(body["prompt"], letter))[: body["n_probs"]]
        listed = [{"id": letter, "logprob": log_p(body["prompt"], letter), "bytes": [letter]} for letter in likely]
        value = 0.0 if self.fault == "after sampling" else log_p(body["prompt"], token)
        answer = {"completion_probabilities": [{"id": token, "logprob": value, "top_logprobs": listed}]}
        return web.json_response({} if self.fault == "missing" else answer)


def log_p(prompt: Sequence[int], token: int) -> float:
    return -0.5 - (sum(prompt) * 31 + token * 7) % 97 / 10


def test_scores_are_sums_over_the_tokens_of_a_label_and_its_end() -> None:
    with serving(LlamaLike()) as server, connect(server) as model:
        assert model.card.gives_scores
        (choice,) = model.choose([[{"role": "user", "content": "abc"}]], ["ab", "ax"])
    assert isinstance(choice, Choice)
    prompt = [*map(ord, "abc"), 1]
    expected = [sum(log_p([*prompt, *label[:i]], (*label, 1)[i]) for i in range(3)) for label in (b"ab", b"ax")]
    assert choice.scores == pytest.approx(expected)
    assert server.requests == 1  # the model list, and no chat


@pytest.mark.parametrize("fault", ["after sampling", "missing"])
def test_a_server_with_wrong_or_missing_likelihoods_is_constrained_instead(fault: str) -> None:
    with serving(LlamaLike(fault)) as server, connect(server) as model:
        assert not model.card.gives_scores
        (choice,) = model.choose([[{"role": "user", "content": "abc"}]], ["ab", "ax"])
        assert isinstance(choice, Choice)
        assert choice.scores is None


def test_a_failed_likelihood_fails_only_its_chat() -> None:
    with serving(LlamaLike("broken")) as server, connect(server) as model:
        assert model.card.gives_scores
        long, short = model.choose([[{"role": "user", "content": text}] for text in ("x" * 200, "x")], ["ab", "ax"])
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.SERVER
    assert isinstance(short, Choice)


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


@smol
def test_likelihoods_are_close_to_those_of_the_same_weights_in_process(model: LanguageModel) -> None:
    assert model.card.gives_scores
    local = load_model("smol")
    for served, expected in zip(model.choose(CHATS, OPTIONS), local.choose(CHATS, OPTIONS), strict=True):
        assert isinstance(served, Choice)
        assert isinstance(expected, Choice)
        # llama.cpp rounds activations to eight bits, and a server batches differently.
        assert served.scores == pytest.approx(expected.scores, abs=0.8)
        assert served.usage.prompt_tokens == expected.usage.prompt_tokens
    local.close()


@smol
def test_equal_chats_have_close_scores_and_the_prefix_is_cached(model: LanguageModel) -> None:
    first, *_, last = model.choose(CHATS, OPTIONS)
    assert isinstance(first, Choice)
    assert isinstance(last, Choice)
    assert first.scores == pytest.approx(last.scores, abs=0.8)
    repeated = model.choose(CHATS, OPTIONS)[-1]
    assert isinstance(repeated, Choice)
    assert repeated.usage.cached_tokens > 0


@smol
def test_a_chat_that_is_too_long_fails_alone(model: LanguageModel) -> None:
    long, short = model.choose([[{"role": "user", "content": "word and " * 1000}], CHATS[0]], OPTIONS)
    assert isinstance(long, Failure)
    assert long.kind is FailureKind.CONTEXT
    assert isinstance(short, Choice)


@smol
def test_the_doctor_reports_likelihoods(address: str) -> None:
    report = examine("openai:smollm", Endpoint(base_url=address), QUIET)
    assert report.healthy
    assert "likelihoods of the labels" in next(check.finding for check in report.checks if check.name == "choose")
