"""The HTTP engine against a real server that misbehaves."""

import socket
import threading

import pytest
from tests.models.faulty_server import FaultyServer, serving

from promptmii.errors import ConfigError, EndpointError, UnsupportedError
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, Sampling, Usage
from promptmii.models.http import HttpConfig, HttpModel

CHAT: Chat = [{"role": "user", "content": "hello"}]
SAMPLING = Sampling(max_tokens=5, temperature=0.7, top_p=0.9, seed=11)
KEY = "sk-very-secret"


def connect(server: FaultyServer, **changes) -> HttpModel:
    settings = {"base_url": server.url, "api_key": KEY, "patience": 0.2, "backoff": 0.01, "timeout": 1.0} | changes
    return HttpModel("m", HttpConfig(**settings))


def test_every_sampling_parameter_is_sent_and_usage_is_read() -> None:
    with serving(FaultyServer()) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Completion)
        assert answer.usage == Usage(1, 7, 3, 2)
        assert answer.usage.seconds > 0
        sent = {"model": "m", "temperature": 0.7, "top_p": 0.9, "seed": 11, "max_tokens": 5, "messages": CHAT}
        assert server.bodies == [sent]
        assert model.card.context_length == 4096


@pytest.mark.parametrize("fault", ["429", "429-nonsense", "500", "half", "empty", "error200", "reset"])
def test_a_passing_fault_is_retried(fault: str) -> None:
    with serving(FaultyServer([fault])) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "least", "most"),
    [
        ("429", FailureKind.RATE_LIMIT, 2, 5),
        ("500", FailureKind.SERVER, 2, 9),
        ("half", FailureKind.BAD_ANSWER, 3, 3),
        ("empty", FailureKind.BAD_ANSWER, 3, 3),
        ("thinking", FailureKind.BAD_ANSWER, 3, 3),
        ("error200", FailureKind.SERVER, 2, 9),
        ("reset", FailureKind.CONNECTION, 2, 9),
        ("context", FailureKind.CONTEXT, 1, 1),
    ],
)
def test_a_lasting_fault_is_a_failure_of_its_kind(fault: str, kind: FailureKind, least: int, most: int) -> None:
    with serving(FaultyServer(default=fault)) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert answer.kind is kind
        assert least <= len(server.bodies) <= most


def test_a_hanging_server_is_a_timeout() -> None:
    with serving(FaultyServer(default="hang")) as server, connect(server, timeout=0.2) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.TIMEOUT


def test_one_failure_leaves_its_neighbours_alone() -> None:
    with serving(FaultyServer(["ok", "context", "ok"])) as server, connect(server, concurrency=1) as model:
        answers = model.generate([[{"role": "user", "content": str(i)}] for i in range(3)], SAMPLING)
        assert [type(answer) for answer in answers] == [Completion, Failure, Completion]


@pytest.mark.parametrize(("fault", "words"), [("401", "refuses the key"), ("404", "does not know the model")])
def test_what_no_call_could_survive_is_an_error_without_the_key(fault: str, words: str) -> None:
    with serving(FaultyServer(default=fault)) as server, connect(server) as model:
        with pytest.raises(EndpointError, match=words) as caught:
            model.generate([CHAT] * 4, SAMPLING)
        assert KEY not in str(caught.value)
        assert KEY not in repr(model) + repr(model._config)


def test_no_server_is_one_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with HttpModel("m", HttpConfig(base_url=url)) as model, pytest.raises(EndpointError, match="No server answers"):
        _ = model.card


def test_a_refused_parameter_is_left_out_from_then_on() -> None:
    with serving(FaultyServer(default="refuse-seed")) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        model.generate([CHAT], SAMPLING)
        assert ["seed" in body for body in server.bodies] == [True, False, False]


def test_concurrency_is_bounded_over_threads() -> None:
    with serving(FaultyServer()) as server, connect(server, concurrency=3) as model:
        threads = [threading.Thread(target=model.generate, args=([CHAT] * 12, SAMPLING)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.bodies) == 36
        assert server.peak <= 3


@pytest.mark.parametrize("dialect", ["vllm", "guided", "regex", "grammar", "schema"])
def test_the_probe_finds_the_dialect_that_the_server_honours(dialect: str) -> None:
    with serving(FaultyServer(honours=dialect)) as server, connect(server) as model:
        answers = model.choose([CHAT], ["spam", "spam, high", "ham"])
        assert model.dialect() == dialect
        assert isinstance(answers[0], Choice)
        assert (answers[0].index, answers[0].scores) == (2, None)


def test_a_server_that_ignores_every_constraint_is_not_trusted() -> None:
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


def test_equal_chats_get_seeds_of_their_own() -> None:
    with serving(FaultyServer()) as server, connect(server) as model:
        model.generate([CHAT, CHAT], SAMPLING)
        assert sorted(body["seed"] for body in server.bodies) == [11, 12]


def test_a_server_that_is_down_for_a_while_is_waited_for() -> None:
    with serving(FaultyServer(["500"] * 6)) as server, connect(server, patience=20.0) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len(server.bodies) == 7


def test_a_thinking_model_without_an_answer_is_told_apart() -> None:
    with serving(FaultyServer(default="thinking")) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert "thinking" in answer.message


@pytest.mark.parametrize("counts", [True, False])
def test_tokens_are_counted_by_a_server_that_can(counts: bool) -> None:
    with serving(FaultyServer(counts=counts)) as server, connect(server) as model:
        assert model.card.exact_tokens is counts
        assert model.count_tokens(["one two three", "", "one"]) == ([3, 0, 1] if counts else [4, 0, 1])
        asked = server.counted
        model.count_tokens(["one two three"] * 50)
        assert server.counted == asked


def test_options_are_checked_before_anything_is_sent() -> None:
    with serving(FaultyServer(honours="vllm")) as server, connect(server) as model:
        with pytest.raises(ConfigError, match="two or more different"):
            model.choose([CHAT], ["a", "a"])
        assert not server.bodies
