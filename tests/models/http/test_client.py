"""The HTTP engine against a real server that misbehaves."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.models.faulty_server import FaultyServer, Reply, serving

from promptmii import load_model
from promptmii.errors import ConfigError, EndpointError, UnsupportedError
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, Sampling, Usage
from promptmii.models.cache import Cached
from promptmii.models.http.client import HttpModel
from promptmii.models.http.completions import NEUTRAL
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.constraints import Dialect
from promptmii.models.http.retries import OWN
from promptmii.models.http.tokens import REMEMBERED, CountCache, context_length

CHAT: Chat = [{"role": "user", "content": "hello"}]
CHATS: list[Chat] = [[{"role": "user", "content": str(i)}] for i in range(4)]
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


@pytest.mark.parametrize("fault", ["429", "500", "half", "empty", "odd", "mute", "error200", "reset"])
def test_a_passing_fault_is_retried(fault: str) -> None:
    with serving(FaultyServer([fault])) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len(server.bodies) == 2


@pytest.mark.parametrize("wait", ["0", "soon", "nan", "-1", "Mon, 99 Nov 2026", "Mon, 23 Nov 2020 08:00:00 GMT"])
def test_a_pause_that_means_nothing_does_no_harm(wait: str) -> None:
    with serving(FaultyServer([f"429:{wait}"])) as server, connect(server) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)


@pytest.mark.parametrize(
    ("fault", "kind", "least", "most"),
    [
        ("429", FailureKind.RATE_LIMIT, 2, 5),
        ("500", FailureKind.SERVER, 2, 9),
        ("half", FailureKind.BAD_ANSWER, 3, 3),
        ("empty", FailureKind.BAD_ANSWER, 3, 3),
        ("mute", FailureKind.BAD_ANSWER, 3, 3),
        ("odd", FailureKind.BAD_ANSWER, 3, 3),
        ("thinking", FailureKind.BAD_ANSWER, 1, 1),
        ("thought", FailureKind.BAD_ANSWER, 1, 1),
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
        answers = model.generate(CHATS[:3], SAMPLING)
        assert [type(answer) for answer in answers] == [Completion, Failure, Completion]


@pytest.mark.parametrize(
    ("fault", "words"), [("401", "refuses the key"), ("404", "status 404. Does the server know the model")]
)
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


def test_models_of_one_endpoint_share_its_limit() -> None:
    with (
        serving(FaultyServer()) as server,
        connect(server, concurrency=3) as one,
        connect(server, concurrency=3) as other,
    ):
        threads = [threading.Thread(target=model.generate, args=(CHATS, SAMPLING)) for model in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.bodies) == 8
        assert 1 < server.peak <= 3  # a busy machine may not reach the limit
        one.close()
        assert isinstance(other.generate([CHAT], SAMPLING)[0], Completion)
        with pytest.raises(EndpointError, match="was closed"):
            one.generate([CHAT], SAMPLING)


def test_a_reference_may_name_its_server() -> None:
    with serving(FaultyServer()) as here, serving(FaultyServer()) as there:
        model = load_model(f"openai:m@{there.url}", HttpConfig(base_url=here.url))
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert (len(here.bodies), there.bodies[0]["model"]) == (0, "m")
        assert model.card.reference == f"openai:m@{there.url}"
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


def test_concurrency_is_bounded_over_threads() -> None:
    with serving(FaultyServer()) as server, connect(server, concurrency=3) as model:
        threads = [threading.Thread(target=model.generate, args=([CHAT] * 12, SAMPLING)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.bodies) == 36
        assert server.peak <= 3


@pytest.mark.parametrize("dialect", Dialect)
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


def test_a_server_that_fails_for_a_while_is_waited_for() -> None:
    with serving(FaultyServer(["500"] * 6)) as server, connect(server, patience=20.0) as model:
        assert isinstance(model.generate([CHAT], SAMPLING)[0], Completion)
        assert len([body for body in server.bodies if body["messages"] == CHAT]) == 7


@pytest.mark.parametrize("chats", [CHATS, CHATS[1:2]], ids=["with neighbours", "alone"])
def test_a_text_on_which_the_server_fails_does_not_cost_its_patience(chats: list[Chat]) -> None:
    def fails_on_one(body: dict[str, Any]) -> Reply | None:
        return Reply({"error": {"message": "tokenizer crashed"}}, 500) if body["messages"] == CHATS[1] else None

    with serving(FaultyServer(default=fails_on_one)) as server, connect(server, patience=60.0) as model:
        started = time.monotonic()
        answers = model.generate(chats, SAMPLING)
        assert time.monotonic() - started < 10
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        assert [failure.kind for failure in failed] == [FailureKind.SERVER]
        assert "tokenizer crashed" in failed[0].message
        assert len([body for body in server.bodies if body["messages"] == CHATS[1]]) == OWN + 1


def test_a_server_that_is_restarted_is_waited_for() -> None:
    answers: list[Completion | Failure] = []
    with serving(FaultyServer()) as server:
        model = connect(server, patience=20.0)
        model.generate([CHAT], SAMPLING)
    asked = threading.Thread(target=lambda: answers.extend(model.generate(CHATS, SAMPLING)))
    asked.start()
    time.sleep(0.2)
    assert not answers
    with model, serving(FaultyServer(), port=int(server.url.split(":")[2].removesuffix("/v1"))):
        asked.join()
    assert [type(answer) for answer in answers] == [Completion] * 4


def test_calls_that_come_late_to_a_server_that_is_gone_do_not_wait_anew() -> None:
    with serving(FaultyServer()) as server:
        model = connect(server, patience=0.5)
        model.generate([CHAT], SAMPLING)
    with model:
        for least, most in ((0.5, 5.0), (0.0, 0.4)):
            start = time.monotonic()
            answer = model.generate([CHAT], SAMPLING)[0]
            assert isinstance(answer, Failure)
            assert answer.kind is FailureKind.CONNECTION
            assert least <= time.monotonic() - start < most


def test_patience_is_not_spent_in_the_queue() -> None:
    plan = ["slow", "slow", "slow", "500"]
    with serving(FaultyServer(plan)) as server, connect(server, patience=0.3, concurrency=1) as model:
        assert [type(answer) for answer in model.generate(CHATS, SAMPLING)] == [Completion] * 4


@pytest.mark.parametrize("fault", ["thinking", "thought"])
def test_a_thinking_model_without_an_answer_is_told_apart(fault: str) -> None:
    with serving(FaultyServer(default=fault)) as server, connect(server) as model:
        answer = model.generate([CHAT], SAMPLING)[0]
        assert isinstance(answer, Failure)
        assert "all 3 tokens of the answer on thinking" in answer.message
        assert answer.usage == Usage(1, 7, 3, 2)


def test_a_cache_keeps_what_was_answered_between_failures(tmp_path: Path) -> None:
    with serving(FaultyServer(["context", "ok", "context", "ok"])) as server:
        cached = Cached(connect(server), tmp_path)
        kinds = [type(answer) for answer in cached.generate(CHATS, SAMPLING)]
        assert sorted(kind.__name__ for kind in kinds) == ["Completion", "Completion", "Failure", "Failure"]
        assert [type(answer) for answer in cached.generate(CHATS, SAMPLING)] == [Completion] * 4
        assert len(server.bodies) == 6
        cached.close()


@pytest.mark.parametrize("counts", [True, False])
def test_tokens_are_counted_by_a_server_that_can(counts: bool) -> None:
    with serving(FaultyServer(counts=counts)) as server, connect(server) as model:
        assert model.card.exact_tokens is counts
        assert model.count_tokens(["one two three", "", "one"]) == ([3, 0, 1] if counts else [4, 0, 1])
        asked = server.counted
        model.count_tokens(["one two three"] * 50)
        assert server.counted == asked


def test_many_texts_are_counted_at_once_within_the_limit() -> None:
    texts = ["word " * (i % 70) for i in range(300)]
    with serving(FaultyServer(counts=True)) as server, connect(server, concurrency=5) as model:
        assert model.count_tokens(texts) == [i % 70 for i in range(300)]
        assert server.counted == 1 + 70
        assert 1 < server.peak <= 5


def test_counting_waits_for_a_busy_server_and_tells_when_it_is_gone() -> None:
    with serving(FaultyServer(counts=True)) as server, connect(server) as model:
        _ = model.card
        server.count_plan = ["503", "429"]
        assert model.count_tokens(["one two"]) == [2]
        server.count_plan = ["503"] * 99
        with pytest.raises(EndpointError, match="stopped counting tokens"):
            model.count_tokens(["one two three"])


def test_the_servers_own_sampling_defaults_are_switched_off_where_they_exist() -> None:
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
        ([{"id": "m", "meta": None}], None),
        ([{"id": "other"}, {"id": "another"}], None),
        ([], None),
        (["m"], None),
        (None, None),
    ],
)
def test_the_context_length_is_read_from_every_kind_of_model_list(entries: object, length: int | None) -> None:
    assert context_length({"data": entries}, "m") == length


def test_remembered_counts_are_bounded() -> None:
    counts = CountCache()
    counts.store({str(i): i for i in range(REMEMBERED)})
    counts.store({"one": 1})
    assert counts.lookup(["0", "1", "one"]) == {"1": 1, "one": 1}


def test_options_are_checked_before_anything_is_sent() -> None:
    with serving(FaultyServer(honours="vllm")) as server, connect(server) as model:
        with pytest.raises(ConfigError, match="two or more different"):
            model.choose([CHAT], ["a", "a"])
        assert not server.bodies
