"""A real HTTP server on loopback that speaks the OpenAI chat API and fails on demand."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiohttp import web

from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
KEY = "sk-very-secret-123"


class Reply(NamedTuple):
    """A response; a body that is neither a string nor bytes is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012


Step: TypeAlias = str | Reply | Callable[[dict[str, Any]], str | Reply | None]
"""A name (see `FaultyServer`), a reply, or a function of the request body to either; `None` means a normal answer."""


def completion(text: Any, finish: str = "stop", **changes: Any) -> Reply:
    """An answer, with `changes` to its body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Reply({"choices": [choice], "usage": USAGE} | changes)


def error(message: str, status: int = 400, **fields: Any) -> Reply:
    """An error in OpenAI's format."""
    return Reply({"error": {"message": message, **fields}}, status)


def cut_message(**fields: Any) -> Reply:
    """An answer that was cut off at the token limit, with these fields in its message."""
    return completion(None, choices=[{"message": fields, "finish_reason": "length"}])


REPLIES = {
    "500": error("status 500", 500),
    "401": error("status 401", 401),
    "404": error("status 404", 404),
    "context": error("This model's maximum context length is 10 tokens"),
    "error200": error("overloaded", 200),
    "cut off": Reply('{"choices": [{"mess'),
    "empty": Reply({"choices": [], "usage": {}}),
    "malformed": Reply({"choices": ["an answer"]}),
    "no text": completion(None),
    "reasoning": cut_message(content=None, reasoning="hm"),
    "reasoning_content": cut_message(content="", reasoning_content="hm"),
}

CONSTRAINTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "vllm": ("structured_outputs", lambda value: value["choice"][-1]),
    "guided": ("guided_choice", lambda value: value[-1]),
    "regex": ("regex", lambda value: value.strip("()").split("|")[-1].replace("\\", "")),
    "grammar": ("grammar", lambda value: json.loads(value.removeprefix("root ::= ").split(" | ")[-1])),
    "schema": (
        "response_format",
        lambda value: json.dumps({"label": value["json_schema"]["schema"]["properties"]["label"]["enum"][-1]}),
    ),
}
"""For each `Dialect`, the field of a request, and the answer that names the last of its options."""


class FaultyServer:
    """Answers each chat request with the next step of `plan`, then with `default`.

    Named steps: ok, slow, hang, drip, reset, 429, `429:<retry-after>`, `redirect:<address>`, `say:<text>`, or one of
    `REPLIES`. `honours` is the `Dialect` of the constraints that it enforces, if any. With `counts`, it has a tokenizer
    endpoint, which first fails with the statuses in `count_plan`.
    """

    def __init__(
        self,
        plan: list[Step] | None = None,
        default: Step = "ok",
        honours: str | None = None,
        context: int | None = 4096,
        counts: bool = False,
    ) -> None:
        self.plan = list(plan or [])
        self.default = default
        assert honours in (None, *CONSTRAINTS), f"add the dialect {honours} to CONSTRAINTS in {__file__}"
        self.honours = honours
        self.context = context
        self.counts = counts
        self.count_plan: list[str] = []
        self.counted = 0
        self.bodies: list[dict[str, Any]] = []
        self.requests = 0
        self.queries: set[str] = set()
        self.keys: set[str] = set()
        self.active = self.peak = 0
        self.together = 0
        """Chats that must be at work at once before any is answered."""
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        self._note(request)
        entry: dict[str, Any] = {"id": "m", "object": "model"}
        if self.context:
            entry["max_model_len"] = self.context
        return web.json_response({"data": [entry]})

    async def tokenize(self, request: web.Request) -> web.Response:
        """The tokenizer endpoint of vLLM, SGLang and llama.cpp's server; words count as tokens."""
        if not self.counts:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        if "messages" in body:
            return web.json_response({"error": {"message": "prompt: field required"}}, status=400)
        self.counted += 1
        async with self._busy():
            if self.count_plan:
                return web.json_response({"error": "busy"}, status=int(self.count_plan.pop(0)))
            assert body["prompt"] == body["content"]
            assert body["add_special_tokens"] is body["add_special"] is False
            return web.json_response({"tokens": list(range(len(body["content"].split())))})

    async def outside_v1(self, _request: web.Request) -> web.Response:
        """llama.cpp's endpoints outside `/v1`."""
        return web.json_response({"detail": "Not Found"}, status=404)

    def add_routes(self, app: web.Application) -> None:
        """Add more endpoints."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self._note(request)
        step = self.plan.pop(0) if self.plan else self.default
        async with self._busy():
            if callable(step):
                step = step(body) or "ok"
            if isinstance(step, str):
                return await self._answer(step, body, request)
            return _response(step)

    def _note(self, request: web.Request) -> None:
        self.requests += 1
        self.queries.add(request.query_string)
        self.keys.add(request.headers.get("authorization", "").removeprefix("Bearer "))

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(0.005)
            while self.peak < self.together:
                await asyncio.sleep(0.005)
            yield
        finally:
            self.active -= 1

    async def _answer(self, step: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        name, _, detail = step.partition(":")
        if name == "429":
            return _response(error("slow down", 429)._replace(headers={"retry-after": detail or "0.05"}))
        if name == "redirect":
            return web.Response(status=307, headers={"location": detail})
        if name in ("hang", "slow"):
            await asyncio.sleep(5 if name == "hang" else 0.2)
        if name == "drip":
            response = web.StreamResponse(headers={"content-type": "application/json"})
            await response.prepare(request)
            for char in json.dumps(self._completion("ok", body)):
                await response.write(char.encode())
                await asyncio.sleep(0.1)
            return response
        if name == "reset":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return _response(REPLIES.get(step) or Reply(self._completion(step, body)))

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        text = step.removeprefix("say:") if step.startswith("say:") else self._constrained(body) or "a free answer"
        return completion(text).body

    def _constrained(self, body: dict[str, Any]) -> str | None:
        """The last option, if the request has the kind of constraint that this server honours."""
        if self.honours is None:
            return None
        field, last_option = CONSTRAINTS[self.honours]
        return last_option(body[field]) if field in body else None


def _response(reply: Reply) -> web.Response:
    body = reply.body if isinstance(reply.body, str | bytes) else json.dumps(reply.body)
    headers = {"content-type": "application/json"} | reply.headers
    return web.Response(body=body if isinstance(body, bytes) else body.encode(), status=reply.status, headers=headers)


Server = TypeVar("Server", bound=FaultyServer)


@contextmanager
def serving(server: Server, port: int = 0) -> Iterator[Server]:
    """Run the server in a thread, on the given port or a free one."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/v1/models", server.models)
        app.router.add_post("/tokenize", server.tokenize)
        app.router.add_post("/v1/chat/completions", server.chat)
        app.router.add_post("/{path:apply-template|completion}", server.outside_v1)
        server.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def connect(server: FaultyServer, name: str = "m", **changes: Any) -> HttpModel:
    """A model on the server, with little patience."""
    defaults = {"base_url": server.url, "api_key": KEY, "patience": 0.2, "backoff": 0.01, "timeout": 1.0}
    return HttpModel(name, HttpConfig(**defaults | changes))
