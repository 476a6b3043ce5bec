"""Servers and gateways that only stream."""

import json
from typing import Any

import pytest
from tests.models.faulty_server import USAGE, FaultyServer, Reply, Step, connect, error, serving

from promptmii.models.base import Chat, Completion, Failure, Sampling

CHAT: Chat = [{"role": "user", "content": "hello"}]


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """An event with a piece of the message."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def stream(*events: dict[str, Any], end: str = "data: [DONE]\n\n") -> Reply:
    """The events, after a sign of life."""
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Reply(f": ping\n\n{lines}{end}", 200, {"content-type": "text/event-stream"})


ANSWER = stream(
    piece(role="assistant"),
    piece(reasoning_content="Hm"),
    piece(content="spam"),
    piece(content=" or", reasoning_content=None),
    piece(content=" ham"),
    piece("stop"),
    {"choices": [], "usage": USAGE},
)


def ask(default: Step) -> tuple[Completion | Failure, FaultyServer]:
    with serving(FaultyServer(default=default)) as server, connect(server) as model:
        return model.generate([CHAT], Sampling(9))[0], server


@pytest.mark.parametrize(
    "reply",
    [
        ANSWER,
        stream({"choices": [{"message": {"content": "spam or ham"}, "finish_reason": "stop"}], "usage": USAGE}),
        stream(
            piece(content=[{"type": "thinking", "thinking": []}]),
            piece(content=[{"type": "text", "text": "spam or ham"}]),
            {"usage": USAGE},
        ),
        stream(
            {"choices": [{"delta": {"content": "spam"}, "message": {"content": "spam"}}]},
            {"choices": [{"delta": {"content": " or ham"}, "message": {"content": "spam or ham"}}], "usage": USAGE},
        ),
    ],
)
def test_a_streamed_answer_is_joined(reply: Reply) -> None:
    answer, _ = ask(reply)
    assert isinstance(answer, Completion)
    assert (answer.text, answer.truncated) == ("spam or ham", False)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (stream(piece(content="spa"), end=""), "the stream was aborted"),
        (stream(piece(content="spam"), {"error": {"message": "upstream died", "code": 400}}), "upstream died"),
        (stream({"code": 400, "message": "no such voice"}), "no such voice"),
        (stream(piece("length", reasoning_content="Hm")), "on thinking and wrote no text"),
        (stream(), "not JSON"),
    ],
)
def test_an_incomplete_stream_is_a_failure(reply: Reply, message: str) -> None:
    answer, _ = ask(reply)
    assert isinstance(answer, Failure)
    assert message in answer.message


def test_a_server_that_asks_for_streaming_gets_it() -> None:
    refused = error("This model only support stream mode, please enable the stream parameter.")
    answer, server = ask(lambda body: ANSWER if body.get("stream") else refused)
    assert isinstance(answer, Completion)
    assert [body.get("stream") for body in server.bodies] == [None, True]


def test_a_server_that_only_streams_is_asked_for_the_usage_unless_it_refuses() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        if not body.get("stream"):
            return error("Only streaming is supported.")
        return error("stream_options: extra fields not permitted") if "stream_options" in body else ANSWER

    answer, server = ask(reply)
    assert isinstance(answer, Completion)
    options = [body.get("stream_options") for body in server.bodies]
    assert options == [None, {"include_usage": True}, None]
