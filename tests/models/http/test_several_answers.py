"""Several samples of one chat: in one request if the server supports that, else in one each."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.models.faulty_server import USAGE, FaultyServer, Reply, Step, completion, connect, error, serving

from promptmii.models.base import Chat, Completion, Failure, Sampling, Usage

CHAT: Chat = [{"role": "user", "content": "hello"}]
OTHER: Chat = [{"role": "user", "content": "bye"}]
SAMPLING = Sampling(max_tokens=5, temperature=1.0, seed=11)
Answer = Callable[[dict[str, Any]], Reply | None]


def several(*texts: Any) -> Reply:
    """One response with the texts as choices, in reverse order; `None` is a choice without text."""
    choices = [
        {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for n, text in enumerate(texts)
    ]
    return Reply({"choices": choices[::-1], "usage": USAGE | {"completion_tokens": 7}})


def by_seed(body: dict[str, Any], *, lost: int | None = None) -> Reply:
    """Like vLLM: the nth sample has the nth seed."""
    samples = [f"seed {body['seed'] + n}" for n in range(body.get("n", 1))]
    return several(*(None if n == lost else sample for n, sample in enumerate(samples)))


def requested(server: FaultyServer) -> list[tuple[int, int]]:
    """The seed and number of samples of each request."""
    return sorted((body["seed"], body.get("n", 1)) for body in server.bodies)


def texts(server: FaultyServer, chats: list[Chat], sampling: Sampling = SAMPLING) -> list[str]:
    """The answers to the chats, which must be the same when asked twice."""
    with connect(server) as model:
        first, again = model.generate(chats, sampling), model.generate(chats, sampling)
    assert first == again
    assert all(isinstance(answer, Completion) for answer in first)
    return [answer.text for answer in first if isinstance(answer, Completion)]


def test_equal_chats_share_a_request() -> None:
    with serving(FaultyServer(default=by_seed)) as server:
        assert texts(server, [CHAT, OTHER, CHAT, CHAT]) == ["seed 11", "seed 11", "seed 12", "seed 13"]
        assert requested(server) == [(11, 1), (11, 1), (11, 3), (11, 3)]


def test_a_shared_prompt_is_counted_once() -> None:
    with serving(FaultyServer(default=by_seed)) as server, connect(server) as model:
        usages = [answer.usage for answer in model.generate([CHAT] * 3, SAMPLING)]
    assert usages == [Usage(1, 7, 3, 2), Usage(0, 0, 2), Usage(0, 0, 2)]


def test_greedy_answers_are_requested_one_at_a_time() -> None:
    with serving(FaultyServer()) as server:
        texts(server, [CHAT] * 3, SAMPLING._replace(temperature=0.0))
        assert all("n" not in body for body in server.bodies)


def one_sample(body: dict[str, Any]) -> Reply:
    return completion(f"seed {body['seed']}")


def refused(body: dict[str, Any]) -> Reply:
    return error("only one completion choice") if "n" in body else one_sample(body)


def copies(body: dict[str, Any]) -> Reply:
    return several(*[f"seed {body['seed']}"] * body.get("n", 1))


@pytest.mark.parametrize("answer", [one_sample, refused, copies])
def test_a_server_that_returns_one_sample_is_asked_for_several_only_once(answer: Answer) -> None:
    with serving(FaultyServer(default=answer)) as server:
        assert texts(server, [CHAT] * 3) == ["seed 11", "seed 12", "seed 13"]
        assert sum("n" in body for body in server.bodies) == 1


@pytest.mark.parametrize("index", [None, "0", []])
def test_samples_without_numbers_are_read_in_order(index: Any) -> None:
    def unnumbered(body: dict[str, Any]) -> Reply:
        reply = by_seed(body)
        reply.body["choices"] = [choice | {"index": index} for choice in reversed(reply.body["choices"])]
        return reply

    with serving(FaultyServer(default=unnumbered)) as server:
        assert texts(server, [CHAT] * 3) == ["seed 11", "seed 12", "seed 13"]
        assert requested(server) == [(11, 3), (11, 3)]


def test_a_missing_sample_is_requested_separately() -> None:
    with serving(FaultyServer(default=lambda body: by_seed(body, lost=1 if "n" in body else None))) as server:
        assert texts(server, [CHAT] * 3) == ["seed 11", "seed 12", "seed 13"]
        assert requested(server) == [(11, 3), (11, 3), (12, 1), (12, 1)]


def test_a_prompt_that_the_server_cut_is_not_sent_again_for_each_sample() -> None:
    chat: Chat = [{"role": "user", "content": "many different words " * 800}]
    cut = completion("a story", usage={"prompt_tokens": 7, "completion_tokens": 3})
    with serving(FaultyServer(default=cut, context=None)) as server, connect(server) as model:
        answers = model.generate([chat] * 3, SAMPLING)
    assert [(type(answer), answer.usage.calls) for answer in answers] == [(Failure, 1), (Failure, 0), (Failure, 0)]
    assert len(server.bodies) == 1


def broken(body: dict[str, Any]) -> Reply:
    """Fails each request for several samples, and bills it."""
    return completion(None, "error") if "n" in body else one_sample(body)


@pytest.mark.parametrize("plan", [[], [completion(None, "error"), by_seed]])
def test_failed_requests_for_several_samples_are_counted(plan: list[Step]) -> None:
    with serving(FaultyServer([*plan], default=broken)) as server, connect(server) as model:
        usages = [answer.usage for answer in model.generate([CHAT] * 3, SAMPLING)]
    assert sum(usage.calls for usage in usages) == len(server.bodies)
    assert sum(usage.prompt_tokens or 0 for usage in usages) == 7 * len(server.bodies)
