"""Samples of one chat: in one request where the server gives several, one by one where it does not."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.models.faulty_server import USAGE, FaultyServer, Reply, completion, serving

from promptmii.models.base import Chat, Completion, Sampling
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig

CHAT: Chat = [{"role": "user", "content": "hello"}]
OTHER: Chat = [{"role": "user", "content": "bye"}]
SAMPLING = Sampling(max_tokens=5, temperature=1.0, seed=11)
Answer = Callable[[dict[str, Any]], Reply | None]


def several(*texts: Any) -> Reply:
    """The texts as choices of one answer, `None` for an empty one; the last one comes first."""
    choices = [
        {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for n, text in enumerate(texts)
    ]
    return Reply({"choices": choices[::-1], "usage": USAGE | {"completion_tokens": 7}})


def by_seed(body: dict[str, Any], *, lost: int | None = None) -> Reply:
    """As vLLM: the nth of several has the nth seed."""
    wanted = [f"seed {body['seed'] + n}" for n in range(body.get("n", 1))]
    return several(*(None if n == lost else text for n, text in enumerate(wanted)))


def asked(server: FaultyServer) -> list[tuple[int, int]]:
    """Seed and number of each request."""
    return sorted((body["seed"], body.get("n", 1)) for body in server.bodies)


def texts(server: FaultyServer, chats: list[Chat], sampling: Sampling = SAMPLING) -> list[str]:
    with HttpModel("m", HttpConfig(base_url=server.url, api_key="", patience=0.2, backoff=0.01)) as model:
        first, again = model.generate(chats, sampling), model.generate(chats, sampling)
    assert first == again
    assert all(isinstance(answer, Completion) for answer in first)
    return [answer.text for answer in first if isinstance(answer, Completion)]


def test_equal_chats_are_one_request() -> None:
    with serving(FaultyServer(default=by_seed)) as server:
        assert texts(server, [CHAT, OTHER, CHAT, CHAT]) == ["seed 11", "seed 11", "seed 12", "seed 13"]
        assert asked(server) == [(11, 1), (11, 1), (11, 3), (11, 3)]


def test_a_prompt_is_counted_once() -> None:
    with serving(FaultyServer(default=by_seed)) as server, HttpModel("m", HttpConfig(base_url=server.url)) as model:
        usages = [answer.usage for answer in model.generate([CHAT] * 3, SAMPLING)]
    assert [(one.calls, one.prompt_tokens, one.completion_tokens) for one in usages] == [
        (1, 7, 3),
        (0, 0, 2),
        (0, 0, 2),
    ]
    assert [one.cached_tokens for one in usages] == [2, 0, 0]


def test_greedy_answers_are_asked_for_as_before() -> None:
    with serving(FaultyServer()) as server:
        texts(server, [CHAT] * 3, SAMPLING._replace(temperature=0.0))
        assert all("n" not in body for body in server.bodies)


def one_only(body: dict[str, Any]) -> Reply:
    return completion(f"seed {body['seed']}")


def refused(body: dict[str, Any]) -> Reply:
    return Reply({"error": {"message": "only one completion choice"}}, 400) if "n" in body else one_only(body)


def copies(body: dict[str, Any]) -> Reply:
    return several(*[f"seed {body['seed']}"] * body.get("n", 1))


@pytest.mark.parametrize("answer", [one_only, refused, copies])
def test_a_server_that_does_not_give_several_is_asked_once(answer: Answer) -> None:
    with serving(FaultyServer(default=answer)) as server:
        assert texts(server, [CHAT] * 3) == ["seed 11", "seed 12", "seed 13"]
        assert sum("n" in body for body in server.bodies) == 1


def test_one_that_is_lost_is_asked_for_alone() -> None:
    with serving(FaultyServer(default=lambda body: by_seed(body, lost=1 if "n" in body else None))) as server:
        assert texts(server, [CHAT] * 3) == ["seed 11", "seed 12", "seed 13"]
        assert asked(server) == [(11, 3), (11, 3), (12, 1), (12, 1)]
