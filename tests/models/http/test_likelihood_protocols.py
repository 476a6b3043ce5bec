"""Likelihoods from toy servers with vLLM's `prompt_logprobs` and OpenAI's `top_logprobs`."""

import json
from typing import Any

import pytest
from aiohttp import web
from tests.models.faulty_server import FaultyServer, Reply, connect, error, serving
from tests.models.http.test_server_likelihoods import log_p

from promptmii.config import Endpoint
from promptmii.doctor import examine
from promptmii.errors import EndpointError, UnsupportedError
from promptmii.models.base import Chat, Choice, Failure, FailureKind
from promptmii.models.http.likelihoods import log_probability
from promptmii.models.http.refusals import RefusedError
from promptmii.progress import QUIET

END = 1
CHAT: Chat = ({"role": "user", "content": "abc"},)


class VllmLike(FaultyServer):
    """Letters are tokens. The keys of `prompt_logprobs` are token ids; the first token has no entry."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(counts=True, honours="vllm")
        self.fault = fault
        self.completions: list[dict[str, Any]] = []

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/completions", self.complete)

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" not in body:
            tokens = [*map(ord, body["prompt"])]
        else:
            assert body["chat_template_kwargs"] == {"enable_thinking": False}
            turns = "".join(f"{message['content']}\x01" for message in body["messages"])
            tokens = [*map(ord, turns), *([2] if body["add_generation_prompt"] else [])]
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": 4096})

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.completions.append(body)
        assert (body["max_tokens"], body["prompt_logprobs"], body["add_special_tokens"]) == (1, 0, False)
        choices = [self._choice(n, prompt, body) for n, prompt in enumerate(body["prompt"])]
        return web.json_response({"choices": choices[::-1], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def _choice(self, number: int, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        offset = 1.0 if self.fault == "inconsistent" else 0.0
        entries: list[Any] = [None]
        for place in range(1, len(prompt)):
            value = log_p(prompt[:place], prompt[place]) - offset
            entries.append({str(prompt[place]): {"logprob": value, "rank": 3, "decoded_token": chr(prompt[place])}})
        choice: dict[str, Any] = {"index": number, "text": "a", "finish_reason": "length"}
        if self.fault != "missing":
            choice["prompt_logprobs"] = entries
        if "logprobs" in body:
            choice["logprobs"] = {"tokens": ["token_id:97"], "token_logprobs": [log_p(prompt, 97)]}
        return choice


def test_vllm_scores_are_sums_over_the_tokens_of_a_label_and_its_end() -> None:
    with serving(VllmLike()) as server, connect(server) as model:
        assert model.card.gives_scores
        before = len(server.completions)
        first, second = model.choose([CHAT, CHAT], ["ab", "axe"])
    assert isinstance(first, Choice)
    prompt = [*map(ord, "abc"), 1, 2]
    labels = [[*map(ord, "ab"), END], [*map(ord, "axe"), END]]
    expected = [sum(log_p([*prompt, *label[:i]], label[i]) for i in range(len(label))) for label in labels]
    assert first.scores == pytest.approx(expected)
    assert first == second
    assert len(server.completions) == before + 2  # one request per text, for any number of labels


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["inconsistent", "missing"])
def test_a_server_with_wrong_likelihoods_is_constrained_instead(fault: str) -> None:
    with serving(VllmLike(fault)) as server, connect(server) as model:
        assert not model.card.gives_scores
        (choice,) = model.choose([CHAT], ["ab", "axe"])
    assert isinstance(choice, Choice)
    assert (choice.index, choice.scores) == (1, None)


class NoCompletions(VllmLike):
    """Refuses `/completions` with this status."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    async def complete(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(error("No.", self.status).body, status=self.status)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_gateway_that_refuses_only_the_endpoint_of_likelihoods_is_asked_for_chats(status: int) -> None:
    with serving(NoCompletions(status)) as server, connect(server) as model:
        assert not model.card.gives_scores
        assert len(server.bodies) == (status < 403)  # a harmless chat shows that the key is valid


@pytest.mark.parametrize("status", [401, 402])
def test_a_bad_key_and_an_empty_account_are_reported_before_the_first_text(status: int) -> None:
    refusing = NoCompletions(status)
    refusing.default = error("No.", status)
    with serving(refusing) as server, connect(server) as model:
        with pytest.raises(EndpointError, match=f"HTTP {status}: No"):
            _ = model.card
        assert len(server.bodies) == 1


class OpenAiLike(FaultyServer):
    """Lists the likeliest first tokens, `limit` at most."""

    limit = 20

    async def _answer(self, step: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if body.get("top_logprobs", 0) > self.limit:
            message = f"Invalid 'top_logprobs': expected a value <= {self.limit}."
            return web.json_response(error(message).body, status=400)
        return await super()._answer(step, body, request)

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        response = super()._completion(step, body)
        if body.get("top_logprobs"):
            assert (body["logprobs"], body["top_logprobs"]) == (True, min(self.limit, 20))
            text = body["messages"][-1]["content"]
            repeated = text.rpartition("\n")[2] if text.startswith("Repeat") else ""
            token = repeated[:4] if repeated else "spam"
            listed = {token: -0.1} if repeated else {"spam": -0.2, "ham": -1.9, "eggs": -4.0}
            rows = [{"token": name, "logprob": value, "bytes": None} for name, value in listed.items()]
            rows += [{"token": "?", "logprob": -9.0, "bytes": None}]
            content = {"token": token, "logprob": max(listed.values()), "top_logprobs": rows}
            response["choices"][0]["logprobs"] = {"content": [content]}
        return response


def test_first_tokens_give_scores_if_no_labels_share_one() -> None:
    with serving(OpenAiLike()) as server, connect(server, "m+top_logprobs") as model:
        assert model.card.gives_scores
        assert model.card.reference == "openai:m+top_logprobs"
        first, _ = model.choose([CHAT, CHAT], ["ham", "spam", "toast"])
        assert isinstance(first, Choice)
        assert (first.index, first.scores) == (1, (-1.9, -0.2, -9.0))  # an unlisted label gets the lowest listed value
        with pytest.raises(UnsupportedError, match=r"'spam' and 'spammer' begin with the same token 'spam'"):
            model.choose([CHAT], ["spam", "spammer"])
    assert {body["model"] for body in server.bodies} == {"m"}
    assert json.dumps(server.bodies).count("Repeat exactly") == 4  # once per label, not per call or text


def test_fewer_tokens_are_requested_from_a_server_with_a_lower_limit() -> None:
    limited = OpenAiLike()
    limited.limit = 5
    with serving(limited) as server, connect(server, "m+top_logprobs") as model:
        (choice,) = model.choose([CHAT], ["ham", "spam"])
        assert isinstance(choice, Choice)
        assert choice.scores == (-1.9, -0.2)
    assert [body["top_logprobs"] for body in server.bodies].count(20) == 1


class Stripped(OpenAiLike):
    """Lists each token twice, because it leaves out the space before a word."""

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        response = super()._completion(step, body)
        rows = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        rows += [row | {"logprob": row["logprob"] - 5.0} for row in rows]
        return response


def test_of_tokens_with_the_same_text_the_likeliest_counts() -> None:
    with serving(Stripped()) as server, connect(server, "m+top_logprobs") as model:
        (choice,) = model.choose([CHAT], ["ham", "spam"])
    assert isinstance(choice, Choice)
    assert choice.scores == (-1.9, -0.2)


def test_the_message_of_a_server_that_refuses_to_list_tokens_is_shown() -> None:
    refusing = OpenAiLike()
    refusing.limit = 0
    message = r"lists no top_logprobs \(HTTP 400: Invalid 'top_logprobs'"
    with serving(refusing) as server:
        model = connect(server, "m+top_logprobs")
        with model, pytest.raises(UnsupportedError, match=message):
            _ = model.card


def test_a_log_probability_just_above_zero_is_a_rounding_error() -> None:
    assert log_probability(1e-6, 1) == 0.0
    with pytest.raises(RefusedError):
        log_probability(0.5, 1)


def test_the_doctor_finds_likelihoods_of_first_tokens() -> None:
    with serving(OpenAiLike(honours="schema")) as server:
        report = examine("openai:m", Endpoint.of(base_url=server.url, patience=0.1), QUIET)
    check = report.checks[-1]
    assert (check.name, check.ok, check.finding) == ("likelihoods", True, "of first tokens")
    assert "openai:m+top_logprobs gives probabilities" in check.cure


def test_a_server_that_ignores_top_logprobs_is_refused() -> None:
    with serving(FaultyServer()) as server:
        model = connect(server, "m+top_logprobs")
        with model, pytest.raises(UnsupportedError, match="lists no top_logprobs"):
            _ = model.card


def test_a_refusal_of_one_text_does_not_end_the_run() -> None:
    def firewall(body: dict[str, Any]) -> Reply | None:
        return error("blocked", 403) if body["messages"][-1]["content"] == "forbidden" else None

    chats: list[Chat] = [CHAT, [{"role": "user", "content": "forbidden"}]]
    with serving(OpenAiLike(default=firewall)) as server, connect(server, "m+top_logprobs") as model:
        assert isinstance(model.choose(chats[:1], ["ham", "spam"])[0], Choice)
        choice, refusal = model.choose(chats, ["ham", "spam"])
    assert isinstance(choice, Choice)
    assert isinstance(refusal, Failure)
    assert refusal.kind is FailureKind.REQUEST


def test_a_truncated_prompt_gets_no_first_token_likelihoods() -> None:
    class Truncating(OpenAiLike):
        def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
            return super()._completion(step, body) | {"usage": {"prompt_tokens": 512, "completion_tokens": 1}}

    long: Chat = [{"role": "user", "content": "word " * 3000}]
    with serving(Truncating(context=None)) as server, connect(server, "m+top_logprobs") as model:
        (answer,) = model.choose([long], ["ham", "spam"])
    assert isinstance(answer, Failure)
    assert answer.kind is FailureKind.CONTEXT


def test_one_fault_does_not_turn_likelihoods_off() -> None:
    class Busy(VllmLike):
        faults = 1

        async def tokenize(self, request: web.Request) -> web.Response:
            if "messages" in await request.json() and self.faults:
                self.faults -= 1
                return web.json_response({"error": "busy"}, status=503)
            return await super().tokenize(request)

    with serving(Busy()) as server, connect(server) as model:
        assert model.card.gives_scores


def test_a_tokenizer_without_completions_gives_no_likelihoods() -> None:
    class ChatOnly(VllmLike):
        def add_routes(self, app: web.Application) -> None:
            """There is no `/v1/completions`."""

    with serving(ChatOnly()) as server, connect(server) as model:
        assert not model.card.gives_scores
        assert isinstance(model.choose([CHAT], ["ab", "axe"])[0], Choice)
