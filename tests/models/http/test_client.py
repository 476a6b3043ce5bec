"""The HTTP engine against a real server that misbehaves."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.models.faulty_server import FaultyServer, Reply, connect, error, serving

from promptmii import load_model
from promptmii.errors import EndpointError, UnsupportedError
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, Sampling, Usage
from promptmii.models.cache import Cached
from promptmii.models.http.client import HttpModel
from promptmii.models.http.completions import NEUTRAL
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.constraints import Dialect
from promptmii.models.http.retries import SUSPECT_AFTER
from promptmii.models.http.tokens import context_length

CHAT: Chat = [{"role": "user", "content": "hello"}]
CHATS: list[Chat] = [[{"role": "user", "content": str(i)}] for i in range(4)]
SAMPLING = Sampling(max_tokens=5, temperature=0.7, top_p=0.9, seed=11)


def test_every_sampling_parameter_is_sent_and_usage_is_read() -> None:
    with serving(FaultyServer()) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Completion)
        assert answer.usage == Usage(1, 7, 3, 2)
        assert answer.usage.seconds > 0
        sent = {"model": "m", "temperature": 0.7, "top_p": 0.9, "seed": 11, "max_tokens": 5, "messages": CHAT}
        assert server.bodies == [sent]
        assert model.card.context_length == 4096


@pytest.mark.parametrize("fault", ["429", "500", "cut off", "empty", "malformed", "no text", "error200", "reset"])
def test_a_temporary_fault_is_retried(fault: str) -> None:
    with serving(FaultyServer([fault])) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len(server.bodies) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "minimum", "maximum"),
    [
        ("429", FailureKind.RATE_LIMIT, 2, 5),
        ("500", FailureKind.SERVER, 2, 9),
        ("cut off", FailureKind.BAD_ANSWER, 3, 3),
        ("empty", FailureKind.BAD_ANSWER, 3, 3),
        ("no text", FailureKind.BAD_ANSWER, 3, 3),
        ("malformed", FailureKind.BAD_ANSWER, 3, 3),
        ("error200", FailureKind.SERVER, 2, 9),
        ("reset", FailureKind.CONNECTION, 2, 9),
        ("context", FailureKind.CONTEXT, 1, 1),
    ],
)
def test_a_permanent_fault_is_a_failure_of_its_kind(fault: str, kind: FailureKind, minimum: int, maximum: int) -> None:
    with serving(FaultyServer(default=fault)) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert answer.kind is kind
        assert minimum <= len(server.bodies) <= maximum


def test_one_failure_does_not_affect_other_chats() -> None:
    with serving(FaultyServer(["ok", "context", "ok"])) as server, connect(server, concurrency=1) as model:
        answers = model.generate(CHATS[:3], SAMPLING)
        assert [type(answer) for answer in answers] == [Completion, Failure, Completion]


def test_a_missing_server_is_one_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with HttpModel("m", HttpConfig(base_url=url)) as model, pytest.raises(EndpointError, match="No server answers"):
        _ = model.card


def test_models_of_one_endpoint_share_its_request_limit() -> None:
    with (
        serving(FaultyServer()) as server,
        connect(server, concurrency=3) as first,
        connect(server, concurrency=3) as second,
    ):
        threads = [threading.Thread(target=model.generate, args=(CHATS, SAMPLING)) for model in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.bodies) == 8
        assert 1 < server.peak <= 3  # a busy machine may not reach the limit
        first.close()
        assert isinstance(second.generate([CHAT], SAMPLING)[0], Completion)
        with pytest.raises(EndpointError, match="was closed"):
            first.generate([CHAT], SAMPLING)


def test_a_reference_may_name_its_server() -> None:
    with serving(FaultyServer()) as configured, serving(FaultyServer()) as named:
        model = load_model(f"openai:m@{named.url}", HttpConfig(base_url=configured.url))
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert not configured.bodies
        assert named.bodies[0]["model"] == "m"
        assert model.card.reference == f"openai:m@{named.url}"
        model.close()


def test_redirects_are_not_followed() -> None:
    with serving(FaultyServer()) as elsewhere:
        with (
            serving(FaultyServer(default=f"redirect:{elsewhere.url}/chat/completions")) as server,
            connect(server) as model,
            pytest.raises(EndpointError, match=f"redirects to {elsewhere.url}"),
        ):
            model.generate([CHAT], SAMPLING)
        assert not elsewhere.bodies


@pytest.mark.parametrize("dialect", Dialect)
def test_the_probe_finds_the_dialect_that_the_server_honours(dialect: str) -> None:
    with serving(FaultyServer(honours=dialect)) as server, connect(server) as model:
        answers = model.choose([CHAT], ["spam", "spam, high", "ham"])
        assert model.dialect() == dialect
        assert isinstance(answers[0], Choice)
        assert (answers[0].index, answers[0].scores) == (2, None)


def test_a_server_that_ignores_every_constraint_is_refused() -> None:
    with (
        serving(FaultyServer()) as server,
        connect(server) as model,
        pytest.raises(UnsupportedError, match="--mode generate"),
    ):
        model.choose([CHAT], ["a", "b"])


def test_an_answer_outside_the_options_is_a_failure() -> None:
    with serving(FaultyServer(honours="vllm")) as server, connect(server) as model:
        model.dialect()
        server.plan = ["say:something else"]
        answer = model.choose([CHAT], ["a", "b"])[0]
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.BAD_ANSWER


@pytest.mark.slow
def test_calls_wait_for_a_server_that_fails_for_a_while() -> None:
    with serving(FaultyServer(["500"] * 6)) as server, connect(server, patience=20.0) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len([body for body in server.bodies if body["messages"] == CHAT]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("chats", [CHATS, CHATS[1:2]], ids=["with others", "alone"])
def test_a_text_that_makes_the_server_fail_is_not_retried_for_long(chats: list[Chat]) -> None:
    def fail_on_one(body: dict[str, Any]) -> Reply | None:
        return error("tokenizer crashed", 500) if body["messages"] == CHATS[1] else None

    with serving(FaultyServer(default=fail_on_one)) as server, connect(server, patience=60.0) as model:
        started = time.monotonic()
        answers = model.generate(chats, SAMPLING)
        assert time.monotonic() - started < 10
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        assert [failure.kind for failure in failed] == [FailureKind.SERVER]
        assert "tokenizer crashed" in failed[0].message
        assert len([body for body in server.bodies if body["messages"] == CHATS[1]]) == SUSPECT_AFTER + 1


def test_calls_wait_for_a_server_that_restarts() -> None:
    answers: list[Completion | Failure] = []
    with serving(FaultyServer()) as server:
        model = connect(server, patience=20.0)
        model.generate([CHAT], SAMPLING)
    thread = threading.Thread(target=lambda: answers.extend(model.generate(CHATS, SAMPLING)))
    thread.start()
    time.sleep(0.2)
    assert not answers
    with model, serving(FaultyServer(), port=int(server.url.split(":")[2].removesuffix("/v1"))):
        thread.join()
    assert [type(answer) for answer in answers] == [Completion] * 4


@pytest.mark.slow
def test_later_calls_to_a_server_that_is_down_do_not_wait_again() -> None:
    with serving(FaultyServer()) as server:
        model = connect(server, patience=0.5)
        model.generate([CHAT], SAMPLING)
    with model:
        for minimum, maximum in ((0.5, 5.0), (0.0, 0.4)):
            start = time.monotonic()
            answer = model.generate([CHAT], SAMPLING)[0]
            assert isinstance(answer, Failure)
            assert answer.kind is FailureKind.CONNECTION
            assert minimum <= time.monotonic() - start < maximum


def test_a_fault_long_after_an_outage_is_retried() -> None:
    with serving(FaultyServer(default="500")) as server, connect(server, patience=0.05) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Failure)
        time.sleep(0.1)
        server.plan, server.default = ["500"], "ok"
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)


@pytest.mark.slow
def test_time_in_the_queue_does_not_count_as_patience() -> None:
    plan = ["slow", "slow", "slow", "500"]
    with serving(FaultyServer(plan)) as server, connect(server, patience=0.3, concurrency=1) as model:
        assert [type(answer) for answer in model.generate(CHATS, SAMPLING)] == [Completion] * 4


@pytest.mark.parametrize("fault", ["reasoning", "reasoning_content"])
def test_a_model_that_only_thinks_is_reported_without_retries(fault: str) -> None:
    with serving(FaultyServer(default=fault)) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert "all 3 tokens of the answer on thinking" in answer.message
        assert answer.kind is FailureKind.BAD_ANSWER
        assert len(server.bodies) == 1
        assert answer.usage == Usage(1, 7, 3, 2)


def test_a_cache_keeps_the_answers_between_failures(tmp_path: Path) -> None:
    with serving(FaultyServer(["context", "ok", "context", "ok"])) as server:
        cached = Cached(connect(server), tmp_path)
        kinds = [type(answer) for answer in cached.generate(CHATS, SAMPLING)]
        assert sorted(kind.__name__ for kind in kinds) == ["Completion", "Completion", "Failure", "Failure"]
        assert [type(answer) for answer in cached.generate(CHATS, SAMPLING)] == [Completion] * 4
        assert len(server.bodies) == 6
        cached.close()


@pytest.mark.parametrize("counts", [True, False])
def test_tokens_are_counted_by_a_server_that_supports_it(counts: bool) -> None:
    with serving(FaultyServer(counts=counts)) as server, connect(server) as model:
        assert model.card.exact_tokens is counts
        assert model.count_tokens(["one two three", "", "one"]) == ([3, 0, 1] if counts else [4, 0, 1])
        requests = server.counted
        model.count_tokens(["one two three"] * 50)
        assert server.counted == requests


def test_many_texts_are_counted_concurrently_within_the_limit() -> None:
    texts = ["word " * (i % 70) for i in range(300)]
    with serving(FaultyServer(counts=True)) as server, connect(server, concurrency=5) as model:
        assert model.count_tokens(texts) == [i % 70 for i in range(300)]
        assert server.counted == 1 + 70
        assert 1 < server.peak <= 5


def test_counting_waits_for_a_busy_server_and_fails_if_it_stops() -> None:
    with serving(FaultyServer(counts=True)) as server, connect(server) as model:
        _ = model.card
        server.count_plan = ["503", "429"]
        assert model.count_tokens(["one two"]) == [2]
        server.count_plan = ["503"] * 99
        with pytest.raises(EndpointError, match="stopped counting tokens"):
            model.count_tokens(["one two three"])


@pytest.mark.parametrize("status", ["503", "429"])
def test_one_fault_does_not_turn_counting_off(status: str) -> None:
    with serving(FaultyServer(counts=True)) as server, connect(server) as model:
        server.count_plan = [status]
        assert model.card.exact_tokens
    with serving(FaultyServer(counts=True)) as server, connect(server, patience=60.0) as model:
        server.count_plan = [status] * 99
        assert not model.card.exact_tokens
        assert server.counted == 3


def test_the_sampling_defaults_of_vllm_are_overridden() -> None:
    with serving(FaultyServer(honours="vllm", counts=True)) as server, connect(server) as model:
        model.generate([CHAT], SAMPLING)
        model.choose([CHAT], ["a", "b"])
        assert all(body.items() >= NEUTRAL.items() for body in server.bodies)


@pytest.mark.parametrize(
    ("entries", "length"),
    [
        ([{"id": "m", "max_model_len": 4096}], 4096),
        ([{"id": "other", "max_model_len": 10}, {"id": "m", "max_model_len": 4096}], 4096),
        ([{"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}], 2048),
        ([{"id": "m", "meta": {"n_ctx_train": 8192}}], 8192),
        ([{"id": "model.gguf", "meta": {"n_ctx": 2048}}], 2048),
        ([{"id": "m", "context_length": 131072, "top_provider": {"context_length": 8192}}], 131072),
        ([{"id": "m", "context_window": 32768, "max_model_len": None}], 32768),
        ([{"id": "m", "max_context_length": 32768, "loaded_context_length": 4096}], 4096),
        ([{"id": "m", "meta": None}], None),
        ([{"id": "other"}, {"id": "another"}], None),
        ([], None),
        (["m"], None),
        (None, None),
    ],
)
def test_the_context_length_is_read_from_every_kind_of_model_list(entries: object, length: int | None) -> None:
    assert context_length({"data": entries}, "m") == length


def test_one_fault_does_not_lose_the_context_length() -> None:
    class Busy(FaultyServer):
        async def models(self, request: web.Request) -> web.Response:
            listing = await super().models(request)
            return web.json_response({"error": "busy"}, status=503) if self.requests == 1 else listing

    with serving(Busy()) as server, connect(server) as model:
        assert model.card.context_length == 4096


class Loading(FaultyServer):
    """Like llama.cpp's server, refuses the first requests for tokens because it still loads its model."""

    refusals = 2

    async def tokenize(self, request: web.Request) -> web.Response:
        self.refusals -= 1
        if self.refusals < 0:
            return await super().tokenize(request)
        return web.json_response(error("Loading model", 503, code=503).body, status=503)


def test_a_server_that_loads_its_model_is_waited_for() -> None:
    with serving(Loading(counts=True)) as server, connect(server) as model:
        assert model.card.exact_tokens
    server = Loading(counts=True)
    server.refusals = 999
    with serving(server), connect(server) as model, pytest.raises(EndpointError, match="did not load its model"):
        _ = model.card


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_need_not_be_allowed_to_list_the_models(status: int) -> None:
    class Restricted(FaultyServer):
        async def models(self, request: web.Request) -> web.Response:  # noqa: ARG002
            return web.json_response(error("Missing scopes: api.model.read.").body, status=status)

    with serving(Restricted()) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
    refused = pytest.raises(EndpointError, match="refuses the key")  # and not "gives no likelihoods"
    with serving(Restricted(default=error("Forbidden", 403))) as server, connect(server) as model, refused:
        _ = model.card
