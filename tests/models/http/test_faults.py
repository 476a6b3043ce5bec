"""Each kind of server fault, in all the formats that servers use."""
# pyright: reportAttributeAccessIssue=false

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from tests.models.faulty_server import KEY, FaultyServer, Reply, Step, completion, connect, error, serving

from promptmii.errors import EndpointError
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, Sampling, Usage
from promptmii.models.http.answers import check_whole_prompt
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.constraints import Dialect, read
from promptmii.models.threads import parallel

CHATS: list[Chat] = [[{"role": "user", "content": text}] for text in ("fine one", "forbidden one", "fine two")]
SAMPLING = Sampling(max_tokens=9, top_p=0.9)


def ask(
    default: Step, chats: list[Chat] = CHATS[:1], **changes: Any
) -> tuple[list[Completion | Failure], FaultyServer]:
    with serving(FaultyServer(default=default)) as server, connect(server, **changes) as model:
        return model.generate(chats, SAMPLING), server


def one_by_one(model: HttpModel) -> Iterator[tuple[int, Completion | Failure]]:
    """Ask on several threads, as a run does that keeps each answer."""
    return parallel(lambda chat: model.generate([chat], SAMPLING)[0], CHATS, model.card.concurrency)


def refusing(name: str, reply: Reply) -> Callable[[dict[str, Any]], Reply | None]:
    """The reply to requests with a parameter of this name."""
    return lambda body: reply if name in body else None


class TestRefusedParameters:
    """A parameter that an error names is dropped, for good once the request succeeds without it."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "reply"),
        [
            ("seed", error("Unsupported parameter: 'seed'")),
            ("seed", error("property 'seed' is unsupported, did you mean something else?")),
            ("seed", error("`seed` is not supported by this model")),
            ("seed", error("seed is not supported")),
            ("seed", error("Unsupported value", param="seed")),
            ("seed", error("The request could not be processed. " + "Request id 0123. " * 40 + "Unsupported: 'seed'.")),
            ("seed", Reply([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], 400)),
            ("seed", Reply({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, 422)),
            ("seed", Reply({"detail": "unexpected field seed"}, 422)),
            ("seed", Reply({"message": "seed: not allowed"}, 400)),
            ("seed", Reply("invalid parameter seed", 400)),
            ("top_p", error("`temperature` and `top_p` cannot both be specified for this model.")),
            ("temperature", error("'temperature' does not support 0, only the default", param="temperature")),
            ("temperature", Reply({"error": "Input validation error: `temperature` must be strictly positive"}, 422)),
            ("seed", error("'seed' : number must be greater than 0")),
            ("top_p", error("top_p 参数非法。请检查文档。")),
            ("seed", error("Seed is disabled for reasoning models")),
            ("top_p", Reply([{"error": {"code": 400, "message": 'Unknown name "topP": Cannot find field.'}}], 400)),
            ("top_p", error("Specify either temperature or top_p", param=None)),
            ("top_p", error("unknown option top-p")),
            ("seed", Reply({"status": 400, "error": "Bad Request", "message": "seed must be null"}, 400)),
            ("seed", error("Validation failed", details=[{"field": "seed", "issue": "unknown"}])),
            ("seed", error("litellm.UnsupportedParamsError: seed is unsupported", 500)),
            ("temperature", error("API 调用参数有误，请检查文档。temperature参数非法", code="1210")),
        ],
    )
    def test_a_refused_parameter_is_dropped_for_good(self, name: str, reply: Reply) -> None:
        warns = pytest.warns(UserWarning, match="refuses `temperature`") if name == "temperature" else nullcontext()
        with serving(FaultyServer(default=refusing(name, reply))) as server, connect(server) as model, warns as caught:
            for _ in range(2):
                assert isinstance(model.generate(CHATS[:1], SAMPLING)[0], Completion)
            sent = [{"seed", "top_p", "temperature"} & set(body) for body in server.bodies]
            assert sent[1] == sent[2] == {"seed", "top_p", "temperature"} - {name}
            assert len(sent) == 3
        assert caught is None or len(caught) == 1  # once, not with every call

    def test_several_parameters_are_dropped_in_turn(self) -> None:
        def picky(body: dict[str, Any]) -> Reply | None:
            for name in ("max_tokens", "seed", "temperature", "top_p"):
                if name in body:
                    return error(f"Unsupported parameter: '{name}'. Use 'max_completion_tokens'.")
            return None

        with pytest.warns(UserWarning, match="refuses `temperature`"):
            (answer,), server = ask(picky)
        assert isinstance(answer, Completion)
        assert set(server.bodies[-1]) == {"model", "messages", "max_completion_tokens"}

    def test_a_rejected_text_drops_no_parameter(self) -> None:
        reply = error("Unsupported: your text speaks of a seed")
        with serving(FaultyServer(default=reply)) as server, connect(server) as model:
            answer = model.generate(CHATS[:1], SAMPLING)[0]
            assert isinstance(answer, Failure)
            assert answer.kind is FailureKind.REQUEST
            assert "speaks of a seed" in answer.message
            server.default = "ok"
            model.generate(CHATS[:1], SAMPLING)
            assert "seed" in server.bodies[-1]


def for_forbidden(reply: Reply) -> Callable[[dict[str, Any]], Reply | None]:
    """The reply to texts with the word "forbidden"."""
    return lambda body: reply if "forbidden" in body["messages"][-1]["content"] else None


class TestRejectedRows:
    """A filter fails a single row, without retries; the other rows are answered."""

    @pytest.mark.parametrize(
        "reply",
        [
            error("The response was filtered by the content management policy.", code="content_filter"),
            error('Your input was flagged for "violence".', 403, metadata={"reasons": ["violence"]}),
            completion("", "content_filter"),
            completion("half an ans", "content_filter"),
            completion(None, choices=[{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]),
            Reply({"error": {"message": "blocked by moderation", "code": 403}}),
            Reply({"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
            error("litellm.ContentPolicyViolationError: AzureException"),
            completion(None, "SAFETY"),
            completion("half an ans", "refusal"),
            completion("Sorry, blocked.", "guardrail_intervened"),
            completion(None, "content_filter: PROHIBITED_CONTENT"),
            completion([{"type": "refusal", "refusal": "I cannot."}]),
        ],
    )
    def test_a_filter_fails_one_row(self, reply: Reply) -> None:
        answers, server = ask(for_forbidden(reply), CHATS)
        assert [type(answer) for answer in answers] == [Completion, Failure, Completion]
        assert answers[1].kind is FailureKind.REQUEST
        assert len(server.bodies) == 3

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "reply",
        [
            Reply("<html><title>Attention Required!</title>blocked</html>", 403, {"content-type": "text/html"}),
            Reply("Attention Required!", 404),
            Reply("", 307, {"location": "http://elsewhere.test/Attention Required!"}),
            Reply("<html><title>Attention Required!</title></html>"),
            Reply({"error": {"message": "Attention Required!", "code": 403}}),
            Reply({"error": {"message": "Attention Required! AuthenticationError"}}, 400),
        ],
    )
    def test_an_error_that_a_firewall_may_send_concerns_one_row(self, reply: Reply) -> None:
        answers, _ = ask(for_forbidden(reply), CHATS, concurrency=1)
        assert isinstance(answers[1], Failure)
        assert "Attention Required!" in answers[1].message
        assert isinstance(answers[2], Completion)
        (answer,), server = ask(for_forbidden(reply), CHATS[1:2])  # refused before the server has answered any text
        assert isinstance(answer, Failure)
        assert "Attention Required!" in answer.message
        assert len(server.bodies) == 2  # the text, and a harmless chat

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_server_that_begins_to_refuse_every_call_is_an_error_after_its_answers(self, status: int) -> None:
        replies = iter([completion("yes")])
        with (
            serving(FaultyServer(default=lambda _: next(replies, Reply("gone", status)))) as server,
            connect(server, concurrency=1) as model,
        ):
            before: list[Completion | Failure] = []
            with pytest.raises(EndpointError, match="gone"):
                before.extend(answer for _, answer in one_by_one(model))
            assert [type(answer) for answer in before] == [Completion]
            assert len(server.bodies) <= 4  # the last may be sent before the refusal is known
            server.default = for_forbidden(Reply("Attention Required!", status=403))
            answers = model.generate(CHATS, SAMPLING)
        assert [type(answer) for answer in answers] == [Completion, Failure, Completion]

    def test_a_refusal_lets_requests_that_were_sent_finish(self) -> None:
        def reply(body: dict[str, Any]) -> str:
            return "401" if "forbidden" in body["messages"][-1]["content"] else "slow"

        with serving(FaultyServer(default=reply)) as server, connect(server, concurrency=3) as model:
            _ = model.card
            server.together = 3
            before: list[Completion | Failure] = []
            with pytest.raises(EndpointError, match="refuses the key"):
                before.extend(answer for _, answer in one_by_one(model))
        assert [type(answer) for answer in before] == [Completion, Completion]

    def test_a_refusal_ends_the_pause_of_a_call_that_would_be_tried_again(self) -> None:
        for ask_all in (lambda model: model.generate(CHATS, SAMPLING), lambda model: list(one_by_one(model))):
            replies = iter([Reply("Slow down.", 429, {"retry-after": "4.5"})])
            with (
                serving(FaultyServer(default=lambda _, replies=replies: next(replies, Reply("No.", 401)))) as server,
                connect(server, concurrency=3, patience=20) as model,
            ):
                _ = model.card
                started = time.monotonic()
                with pytest.raises(EndpointError, match="refuses the key"):
                    ask_all(model)
                assert time.monotonic() - started < 4

    def test_a_check_without_an_outcome_is_not_repeated_by_every_call_in_flight(self) -> None:
        def reply(body: dict[str, Any]) -> Reply:
            return Reply("No.", status=403 if "text" in body["messages"][-1]["content"] else 503)

        chats: list[Chat] = [[{"role": "user", "content": f"text {i}"}] for i in range(8)]
        with serving(FaultyServer(default=reply)) as server, connect(server, concurrency=8) as model:
            with pytest.raises(EndpointError, match="refuses the key"):
                model.generate(chats, SAMPLING)
            assert sum("text" not in body["messages"][-1]["content"] for body in server.bodies) == 1


NO_MONEY = [
    error("Billing hard limit has been reached", 429, code="billing_hard_limit_reached"),
    error("Your account is not active, please check your billing details.", 429, code="billing_not_active"),
    error("Your credit balance is too low to access the Anthropic API."),
    error("Budget has been exceeded! Current cost: 10.2, Max budget: 10.0"),
    error("Access denied, please make sure your account is in good standing.", code="Arrearage"),
    error("余额不足或无可用资源包,请充值。", 429),
    error("Account x is suspended, possibly due to reaching the monthly spending limit.", 412),
    error("Key limit exceeded (total limit).", 403),
    Reply({"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, 429),
    error("You have reached your credit limit.", 429, type="credit_limit"),
    error("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day", 429),
    error("The request failed because your account has an overdue balance.", 403, code="AccountOverdueError"),
    error("The free tier of the model has been exhausted.", 403, code="AllocationQuota.FreeTierOnly"),
    Reply({"error": "Your newly created team doesn't have any credits yet. You can purchase credits."}, 403),
    Reply({"code": "x", "error": "Your team has reached its monthly spending limit."}, 429),
    error("User quota is not enough", 403, code="insufficient_user_quota"),
    error("用户额度不足, 剩余额度: $0.00", 403),
    Reply({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    Reply(
        {"errors": [{"message": "you have used up your daily free allocation of 10,000 neurons", "code": 4006}]}, 429
    ),
    Reply("Monthly request quota exceeded", 429),
    error("Quota exceeded for metric: generate_content_free_tier_requests, limit: 0, model: m", 429),
    error(
        "You exceeded your quota.", 429, details=[{"violations": [{"quotaId": "RequestsPerDayPerProject-FreeTier"}]}]
    ),
]


class AskingProxy(BaseHTTPRequestHandler):
    """A proxy that lets nobody through without a password."""

    def do_CONNECT(self) -> None:
        self.send_error(407)

    do_GET = do_POST = do_CONNECT  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class TestFatalErrors:
    """A bad key, an empty account or a wrong address is one immediate error, with the server's message and the fix."""

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            (error("You exceeded your current quota", 429, code="insufficient_quota"), "no money or quota"),
            (error("Insufficient credits", 402), "no money or quota left: HTTP 402: Insufficient credits"),
            (
                error(f"Incorrect API key provided: {KEY}.", 401),
                r"refuses the key \(HTTP 401: Incorrect.*OPENAI_API_KEY",
            ),
            (error("Forbidden", 403), "refuses the key"),
            (Reply({"error": {"message": "No auth credentials found", "code": 401}}), "refuses the key"),
            (error("Missing scopes: model.request.", 401), "refuses the key .*Missing scopes"),
            (Reply({"error": "invalid_token", "error_description": "It has expired"}, 401), "invalid_token; It has"),
            (Reply("404 page not found", 404), "404 page not found. Does the server know the model"),
            (Reply("<title>405 Not Allowed</title>", 405), "405 Not Allowed"),
            (error("This model is retired.", 410), "HTTP 410: This model is retired. Does the server know the model"),
            (Reply("<html><title>Sign in</title></html>"), "a web page, not JSON: Sign in. Is that the address"),
            (Reply({"error": {"message": "No endpoints found for m.", "code": "404"}}), "No endpoints found for m"),
            (Reply({"error": "Unexpected endpoint or method. (POST /chat/completions)"}), "Unexpected endpoint"),
            (error("API key not valid. Please pass a valid API key."), "refuses the key"),
            (error(f"litellm.AuthenticationError: Incorrect API key: {KEY}", 500), "refuses the key"),
            (Reply([{"error": {"code": 400, "message": "Missing or invalid Authorization header."}}], 400), "the key"),
            *[(reply, "no money or quota left") for reply in NO_MONEY],
        ],
    )
    def test_a_fatal_error_is_raised_once(self, reply: Reply, message: str) -> None:
        started = time.monotonic()
        with serving(FaultyServer(default=reply)) as server, connect(server, patience=60.0) as model:
            with pytest.raises(EndpointError, match=message) as caught:
                model.generate(CHATS, SAMPLING)
            assert caught.value.lasting
            assert KEY not in str(caught.value)
            assert len(server.bodies) <= 4  # the three chats, and perhaps one to check that no text is at fault
        assert time.monotonic() - started < 4

    def test_an_account_may_run_out_of_money_after_successful_answers(self) -> None:
        reply = for_forbidden(error("Sorry, your account balance is insufficient", 403))
        with pytest.raises(EndpointError, match="no money or quota left"):
            ask(reply, CHATS, concurrency=1)

    def test_a_quoted_text_is_not_read_as_an_account_error(self) -> None:
        echo = Reply({"detail": [{"msg": "Input should be short", "input": "insufficient funds"}]}, 422)
        (answer,), _ = ask(echo)
        assert isinstance(answer, Failure)

    def test_an_address_without_v1_is_pointed_out(self) -> None:
        with serving(FaultyServer()) as server:
            model = connect(server, base_url=server.url.removesuffix("/v1"))
            with model, pytest.raises(EndpointError, match="Does the address lack /v1"):
                model.generate(CHATS[:1], SAMPLING)


class TestErrorsUnderHttp200:
    """The error code in the body determines the kind of failure."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("body", "kind", "requests"),
        [
            ({"error": {"message": "invalid request", "code": 400}}, FailureKind.REQUEST, (1, 1)),
            ({"error": {"message": "overloaded", "code": 503}}, FailureKind.SERVER, (2, 99)),
            ({"error": {"message": "slow down", "code": 429}}, FailureKind.RATE_LIMIT, (2, 99)),
            ({"error": "overloaded"}, FailureKind.SERVER, (2, 99)),
            ({"error": {"message": "slow down", "code": "429"}}, FailureKind.RATE_LIMIT, (2, 99)),
            ({"object": "error", "message": "slow down", "code": 429}, FailureKind.RATE_LIMIT, (2, 99)),
            ({"code": 0, "msg": "ok", "data": {"choices": []}}, FailureKind.BAD_ANSWER, (3, 3)),
            ({"success": False, "errors": [{"code": 5007, "message": "no"}]}, FailureKind.SERVER, (2, 99)),
            (completion("half", "network_error").body, FailureKind.BAD_ANSWER, (3, 3)),
            (completion("half", "abort").body, FailureKind.BAD_ANSWER, (3, 3)),
            (completion("", "error", error=None).body, FailureKind.BAD_ANSWER, (3, 3)),
            (
                {"choices": [{"message": {"content": "half"}, "finish_reason": "stop", "error": {"code": 502}}]},
                FailureKind.BAD_ANSWER,
                (3, 3),
            ),
        ],
    )
    def test_an_error_under_http_200_is_a_failure(
        self, body: dict[str, Any], kind: FailureKind, requests: tuple[int, int]
    ) -> None:
        (answer,), server = ask(Reply(body))
        assert isinstance(answer, Failure)
        assert answer.kind is kind
        minimum, maximum = requests
        assert minimum <= len(server.bodies) <= maximum


@pytest.mark.slow
@pytest.mark.parametrize("depth", [20, 500, 900])
@pytest.mark.parametrize(
    ("body", "opening", "closing"),
    [
        ('{"choices": [{"message": {"content": NESTED}, "finish_reason": "stop"}]}', "[", "]"),
        ('{"error": NESTED}', "[", "]"),
        ('{"choices": [], "detail": NESTED}', '{"message": ', "}"),
    ],
)
def test_a_deeply_nested_answer_is_a_failure(body: str, opening: str, closing: str, depth: int) -> None:
    nested = f'{opening * depth} "a" {closing * depth}'
    (answer,), _ = ask(Reply(body.replace("NESTED", nested)))
    assert isinstance(answer, Failure)


class TestPromptsThatAreTooLong:
    """Such an error fails one text without retries, however a server words it."""

    @pytest.mark.parametrize(
        "reply",
        [
            error("the request exceeds the available context size (4096 tokens), try increasing it"),
            error("Context size has been exceeded.", 500),
            error("The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
            Reply([{"error": {"message": "The input token count exceeds the maximum number of tokens allowed"}}], 400),
            Reply({"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}, 422),
            error("`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000", 422),
            error("litellm.ContextWindowExceededError: ..."),
            error("Please shorten the messages.", code="context_length_exceeded", param="messages"),
            error("input length and `max_tokens` exceed context limit: 198000 + 8192 > 200000"),
            error("Input Tokens Exceeded: Number of input tokens exceeds maximum length."),
            error("Requested input length 40000 exceeds maximum input length 32767", 422),
            error("Range of input length should be [1, 129024]"),
            error("Request body too large for gpt-4o-mini model. Max size: 8000 tokens.", 413),
            error("input is too large to process. increase the physical batch size", 500),
            error("Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.", 429),
            error("Input length (9000 tokens) exceeds the maximum allowed length (4096 tokens)."),
        ],
    )
    def test_a_prompt_that_is_too_long_is_a_context_failure(self, reply: Reply) -> None:
        (answer,), server = ask(reply)
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.CONTEXT
        assert len(server.bodies) == 1


def test_the_message_within_the_errors_of_gateways_is_quoted() -> None:
    nested: dict[str, Any] = {"error": {"message": {"error": {"message": {"error": {"message": "no such voice"}}}}}}
    (answer,), _ = ask(Reply(nested, 400))
    assert isinstance(answer, Failure)
    assert answer.message == "HTTP 400: no such voice"


@pytest.mark.parametrize(
    "message",
    [
        "You are using a Trial key, which is limited to 20 API calls / minute.",
        "Insufficient tokens in the bucket",
        "Rate limit: 0 requests remaining",
        "Too many requests per minute exceeded. Your daily quota (1000 requests) is not used up.",
    ],
)
def test_a_limit_per_minute_is_waited_for(message: str) -> None:
    with serving(FaultyServer(plan=[Reply({"message": message}, 429)])) as server, connect(server) as model:
        assert isinstance(model.generate(CHATS[:1], SAMPLING)[0], Completion)


@pytest.mark.parametrize("status", [408, 409, 425, 498, 499])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(FaultyServer(plan=[error("busy", status)])) as server, connect(server) as model:
        assert isinstance(model.generate(CHATS[:1], SAMPLING)[0], Completion)


def test_an_invalid_request_is_not_sent_again_whatever_its_status() -> None:
    (answer,), server = ask(error("Invalid parameter: voice", 409))
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.REQUEST
    assert len(server.bodies) == 1


def test_a_throttled_request_is_no_prompt_that_is_too_long() -> None:
    (answer,), server = ask(error("ThrottlingException: Too many tokens, please wait before trying again.", 500))
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.SERVER
    assert len(server.bodies) > 1


def test_the_message_of_the_server_behind_a_gateway_is_shown() -> None:
    metadata = {"raw": '{"error": "no developer role"}', "provider_name": "P"}
    (answer,), _ = ask(error("Provider returned error", metadata=metadata))
    assert isinstance(answer, Failure)
    assert answer.message == 'HTTP 400: Provider returned error; {"error": "no developer role"}'


class TestIncompleteAnswers:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "reply",
        [
            completion(""),
            completion("\n \n"),
            completion([]),
            completion([{"type": "thinking", "thinking": "hm"}]),
            completion(7),
            completion("\ud800 spam"),
            Reply('{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}"),
            Reply('{"choices": ' + "1" * 5000 + "}"),
            Reply("data: {}\n\n"),
            Reply([]),
            Reply("", 204),
        ],
    )
    def test_an_incomplete_answer_is_a_failure(self, reply: Reply) -> None:
        (answer,), _ = ask(reply)
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.BAD_ANSWER

    def test_the_parts_of_a_message_are_joined_without_reasoning(self) -> None:
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "alpha or beta?"}]},
            {"type": "text", "text": "al"},
            {"type": "text", "text": "pha"},
        ]
        (answer,), _ = ask(completion(parts))
        assert isinstance(answer, Completion)
        assert answer.text == "alpha"

    @pytest.mark.parametrize(
        "content",
        [
            [{"type": "output_text", "text": "alpha"}],
            [{"text": "alpha"}],
            ["al", "pha"],
            {"type": "text", "text": "alpha"},
            [{"type": "text", "text": {"value": "alpha", "annotations": []}}],
            [{"type": "reasoning", "text": "beta"}, {"type": "text", "text": "alpha"}],
            [{"text": "beta", "thought": True}, {"text": "alpha"}],
        ],
    )
    def test_content_in_another_format_is_read(self, content: Any) -> None:
        (answer,), _ = ask(completion(content))
        assert isinstance(answer, Completion)
        assert answer.text == "alpha"

    @pytest.mark.parametrize(
        "finish_reason", ["length", "MAX_TOKENS", "max_tokens", "model_length", "max_output_tokens"]
    )
    def test_finish_reasons_of_truncated_answers(self, finish_reason: str) -> None:
        (answer,), _ = ask(completion("not sp", finish_reason))
        assert isinstance(answer, Completion)
        assert answer.truncated
        (empty,), server = ask(completion("", finish_reason))
        assert isinstance(empty, Failure)
        assert "wrote no text" in empty.message
        assert len(server.bodies) == 1  # a retry would cost the same and fail too

    @pytest.mark.parametrize("finish_reason", [None, "stop", "STOP", "eos_token", "end_turn", "stop_sequence"])
    def test_finish_reasons_of_complete_answers(self, finish_reason: Any) -> None:
        (answer,), _ = ask(completion("spam", finish_reason))
        assert isinstance(answer, Completion)
        assert not answer.truncated

    @pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "reasoning_details", "thinking_blocks"])
    def test_reasoning_without_an_answer_is_a_failure(self, name: str) -> None:
        message = {"role": "assistant", "content": "", name: [{"text": "so"}]}
        (answer,), server = ask(completion(None, choices=[{"message": message, "finish_reason": "stop"}]))
        assert isinstance(answer, Failure)
        assert "spent its answer on thinking" in answer.message
        assert len(server.bodies) == 1

    def test_a_truncated_choice_is_a_failure(self) -> None:
        with serving(FaultyServer(honours="vllm")) as server, connect(server) as model:
            model.dialect()
            server.default = completion("spam", "length")
            (choice,) = model.choose(CHATS[:1], ["spam", "spam link"])
            assert isinstance(choice, Failure)

    @pytest.mark.parametrize(
        "answer", ["\n\n@ ", "<think>\n\n</think>\n\n@", "</think>\n@", "<think>spam link</think>@"]
    )
    def test_white_space_and_reasoning_around_a_choice_are_ignored(self, answer: str) -> None:
        with (
            serving(FaultyServer(default=completion(answer.replace("@", "violin")))) as server,
            connect(server) as model,
        ):
            assert model.dialect() == "vllm"
            server.default = completion(answer.replace("@", "spam"))
            (choice,) = model.choose(CHATS[:1], ["spam", "spam link"])
            assert isinstance(choice, Choice)
            assert choice.index == 0

    @pytest.mark.parametrize("around", ["@", "```JSON\n@\n```", "Here is the answer:\n\n@\n\nIt fits.", "@@", "@}"])
    def test_text_around_the_json_of_a_choice_is_ignored(self, around: str) -> None:
        def reply(body: dict[str, Any]) -> Reply | None:
            format = body.get("response_format")
            options = format["json_schema"]["schema"]["properties"]["label"]["enum"] if format else [""]
            return completion(around.replace("@", json.dumps({"label": options[-1]}))) if format else None

        with serving(FaultyServer(default=reply)) as server, connect(server) as model:
            assert model.dialect() == "schema"
            assert [choice.index for choice in model.choose(CHATS[:1], ["spam", "spam link"])] == [1]

    def test_json_with_two_labels_is_no_choice(self) -> None:
        assert read(Dialect.SCHEMA, '{"label": "spam"}{"label": "ham"}', ["spam", "ham"]) is None

    @pytest.mark.parametrize("more", ['The "label" fits.', '{"label":"spam"}', "{so it is}", '{"reason": "none"}'])
    def test_what_follows_the_json_of_a_choice_is_ignored(self, more: str) -> None:
        assert read(Dialect.SCHEMA, f'{{"label": "spam"}}\n{more}', ["spam", "ham"]) == 0

    def test_a_response_that_is_too_large_is_a_failure(self) -> None:
        (answer,), server = ask(completion("x" * (9 << 20)), timeout=20.0)
        assert isinstance(answer, Failure)
        assert "8 MiB" in answer.message
        assert len(server.bodies) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("step", ["hang", "drip"])
    def test_the_timeout_covers_the_whole_request(self, step: str) -> None:
        started = time.monotonic()
        (answer,), _ = ask(step, timeout=0.3)
        assert isinstance(answer, Failure)
        assert answer.kind is FailureKind.TIMEOUT
        assert time.monotonic() - started < 4


LONG: Chat = [{"role": "user", "content": "a long story that goes on and on " * 400}]


class TestTruncatedPrompts:
    def truncating(self, context: int) -> Callable[[dict[str, Any]], Reply]:
        """Replies of a server that silently truncates prompts to `context` tokens."""

        def reply(body: dict[str, Any]) -> Reply:
            sent = len(body["messages"][0]["content"]) // 4
            return completion("fine", usage={"prompt_tokens": min(sent, context), "completion_tokens": 1})

        return reply

    def test_a_silently_truncated_prompt_is_a_failure_with_the_fix(self) -> None:
        with serving(FaultyServer(default=self.truncating(2048), context=None)) as server:
            with connect(server) as model:
                long, short = model.generate([LONG, CHATS[0]], SAMPLING)
            assert isinstance(long, Failure)
            assert long.kind is FailureKind.CONTEXT
            assert "read only 2,048 tokens" in long.message
            assert "--context-length" in long.message
            assert isinstance(short, Completion)
            with connect(server, context_length=8192) as model:
                assert isinstance(model.generate([LONG], SAMPLING)[0], Completion)

    def test_long_rules_are_few_tokens(self) -> None:
        rules: Chat = [{"role": "user", "content": f"{'-' * 80}\n{'=' * 80}\n" * 100}]
        reply = completion("fine", usage={"prompt_tokens": 700, "completion_tokens": 1})
        with serving(FaultyServer(default=reply, context=None)) as server, connect(server) as model:
            assert isinstance(model.generate([rules], SAMPLING)[0], Completion)

    def test_a_prompt_that_fits_is_answered(self) -> None:
        with serving(FaultyServer(default=self.truncating(8192), context=None)) as server, connect(server) as model:
            assert isinstance(model.generate([LONG], SAMPLING)[0], Completion)

    def test_a_long_dividing_line_of_few_tokens_is_no_truncated_prompt(self) -> None:
        usage = Usage(1, prompt_tokens=700, completion_tokens=1)
        check_whole_prompt([{"role": "user", "content": "Dear team\n" + 9 * (1000 * "-" + "\n" + 1000 * "=")}], usage)


class TestPauses:
    @pytest.mark.slow
    @pytest.mark.parametrize("header", ["0", "-5", "Mon, 23 Nov 2020 08:00:00 GMT", "Mon, 99 Nov 2026", "soon", "nan"])
    def test_a_useless_retry_after_header_causes_no_busy_loop(self, header: str) -> None:
        reply = error("slow down", 429)._replace(headers={"retry-after": header})
        (answer,), server = ask(reply, patience=1.0, backoff=0.1)
        assert isinstance(answer, Failure)
        assert 2 <= len(server.bodies) <= 8

    def test_the_pause_that_a_server_requests_is_respected(self) -> None:
        started = time.monotonic()
        with serving(FaultyServer(["429:0.4"])) as server, connect(server, patience=5.0) as model:
            assert isinstance(model.generate(CHATS[:1], SAMPLING)[0], Completion)
        assert time.monotonic() - started >= 0.4

    def test_a_pause_longer_than_the_patience_is_not_waited_for(self) -> None:
        (answer,), server = ask(error("slow down", 429)._replace(headers={"retry-after": "40000"}), patience=200.0)
        assert isinstance(answer, Failure)
        assert "asks for a pause of 40,000 s, more than the patience of 200 s" in answer.message
        assert len(server.bodies) == 1


def test_the_key_is_masked_in_answers_that_quote_it() -> None:
    (answer,), _ = ask(error(f"Bad request with header Bearer {KEY}"))
    assert isinstance(answer, Failure)
    assert "Bearer ***" in answer.message
    (answer,), _ = ask(completion(f"the key is {KEY}"))
    assert isinstance(answer, Completion)
    assert answer.text == "the key is ***"


@pytest.mark.parametrize("escaped", ["sk/very+secret/123", "sk\\/very+secret\\/123", "sk%2Fvery%2Bsecret%2F123"])
def test_the_key_is_masked_however_it_is_escaped(escaped: str) -> None:
    key = "sk/very+secret/123"
    body = json.dumps({"error": {"message": "no: @"}}).replace("@", escaped)
    (answer,), _ = ask(Reply(body, 400), api_key=key)
    assert isinstance(answer, Failure)
    assert answer.message == "HTTP 400: no: ***"
    with pytest.raises(EndpointError, match=r"token=\*\*\*"):
        ask(Reply("", 302, {"location": f"https://elsewhere.test/?token={escaped}"}), api_key=key)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read_in_any_unicode_encoding(encoding: str) -> None:
    body = json.dumps(completion("naïve@").body, ensure_ascii=False).replace("@", "\n")  # a bare line break in a text
    (answer,), _ = ask(Reply(body.encode(encoding)))
    assert isinstance(answer, Completion)
    assert answer.text == "naïve\n"


def test_control_characters_are_removed_from_messages() -> None:
    (answer,), _ = ask(error("bad \x1b[31m\nrequest\u202e"))
    assert isinstance(answer, Failure)
    assert answer.message == "HTTP 400: bad [31m request"


@pytest.mark.parametrize(
    "usage",
    [
        "missing",
        None,
        {"prompt_tokens": "12"},
        {"prompt_tokens": -3},
        [1],
        json.loads("1e999"),
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_invalid_usage_is_unknown(usage: Any) -> None:
    reply = completion("four letters", usage=usage)
    if usage == "missing":
        del reply.body["usage"]
    (answer,), _ = ask(reply)
    assert isinstance(answer, Completion)
    assert (answer.usage.calls, answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, None, None)


class TestConnections:
    """The message about a failed connection tells the cause and the fix."""

    @pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1080/", "socks5://127.0.0.1:1080", "odd://x"])
    def test_an_unusable_proxy_is_reported(self, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(EndpointError, match="proxy in ALL_PROXY cannot be used"):
            HttpModel("m", HttpConfig("http://elsewhere.test/v1"))
        (answer,), _ = ask("ok")
        assert isinstance(answer, Completion)

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("https://127.0.0.1:{port}/v1", "does not speak https; write http://"),
            ("http://127.0.0.1:1/v1", "connection refused"),
            ("http://nowhere.invalid/v1", "the host name is unknown"),
        ],
    )
    def test_the_cause_of_a_failed_connection_is_shown(self, address: str, message: str) -> None:
        with serving(FaultyServer()) as server:
            url = address.format(port=server.url.split(":")[2].removesuffix("/v1"))
            with connect(server, base_url=url) as model, pytest.raises(EndpointError, match=f"{url}: .*{message}"):
                _ = model.card

    def test_no_proxy_is_named_if_it_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "localhost,fe80::/10")
        with pytest.raises(EndpointError, match="correct NO_PROXY"):
            HttpModel("m", HttpConfig("http://elsewhere.test/v1"))

    @pytest.mark.parametrize(("bypass", "named"), [("", True), ("elsewhere.test", False)])
    def test_an_unreachable_proxy_is_named(self, bypass: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://me:s3cret@127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", bypass)
        with HttpModel("m", HttpConfig("http://elsewhere.test/v1")) as model, pytest.raises(EndpointError) as caught:
            _ = model.card
        assert ("through the proxy in HTTP_PROXY" in str(caught.value)) is named
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_proxy_that_asks_for_a_password_is_named(self, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), AskingProxy) as proxy:
            Thread(target=proxy.serve_forever, daemon=True).start()
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://127.0.0.1:{proxy.server_port}")
            message = rf"{scheme.upper()}_PROXY refuses .*407.* Give its user name"
            model = HttpModel("m", HttpConfig(f"{scheme}://elsewhere.test/v1"))
            with model, pytest.raises(EndpointError, match=message):
                model.generate(CHATS[:1], SAMPLING)
            proxy.shutdown()

    def test_unreadable_certificates_are_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
        with pytest.raises(EndpointError, match="SSL_CERT_FILE"):
            HttpModel("m", HttpConfig("https://elsewhere.test/v1"))

    def test_the_query_of_the_address_is_sent(self) -> None:
        with serving(FaultyServer()) as server, connect(server, base_url=f"{server.url}?api-version=1") as model:
            assert isinstance(model.generate(CHATS[:1], SAMPLING)[0], Completion)
            assert server.queries == {"api-version=1"}


def test_the_usage_of_an_answer_includes_bad_answers_before_it() -> None:
    with serving(FaultyServer(plan=["no text", "500", "cut off", "ok"])) as server, connect(server) as model:
        (answer,) = model.generate(CHATS[:1], SAMPLING)
    assert isinstance(answer, Completion)
    assert answer.usage == Usage(2, 14, 6, 4)


def test_the_usage_of_a_failure_includes_all_tries() -> None:
    (answer,), _ = ask("no text")
    assert isinstance(answer, Failure)
    assert answer.usage == Usage(3, 21, 9, 6)
