"""A real HTTP server on loopback that misbehaves as told: the OpenAI chat endpoint with a script of faults."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiohttp import web

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


class Reply(NamedTuple):
    """A response as it is given; a body that is neither text nor bytes is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012


Step: TypeAlias = str | Reply | Callable[[dict[str, Any]], Reply | None]
"""A name, a reply, or what makes one of a request; `None` answers it as if all were well."""


def completion(text: Any, finish: str = "stop", **changes: Any) -> Reply:
    """An answer, with `changes` to its body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Reply({"choices": [choice], "usage": USAGE} | changes)


class FaultyServer:
    """`plan` is consumed one entry per chat request; after its end every request is answered with `default`.

    Entries: ok, slow, drip, 429, `429:<retry-after>`, 500, hang, half, empty, odd, error200, 401, 404, context,
    refuse-seed, reset, mute,
    `redirect:<address>`,
    thinking (as vLLM shows it), thought (as llama.cpp shows it), or `say:<text>`.
    With `counts` there is a tokenizer endpoint, whose
    faults are in `count_plan`.
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
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        self._note(request)
        entry: dict[str, Any] = {"id": "m", "object": "model"}
        if self.context:
            entry["max_model_len"] = self.context
        return web.json_response({"data": [entry]})

    async def tokenize(self, request: web.Request) -> web.Response:
        """As vLLM, SGLang and llama.cpp's server have it; words count as tokens."""
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

    async def beside(self, _request: web.Request) -> web.Response:
        """Whatever else a server may have beside `/v1`."""
        return web.json_response({"detail": "Not Found"}, status=404)

    def add_routes(self, app: web.Application) -> None:
        """What else it has."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self._note(request)
        step = self.plan.pop(0) if self.plan else self.default
        async with self._busy():
            if callable(step):
                step = step(body) or "ok"
            if isinstance(step, Reply):
                raw = step.body if isinstance(step.body, bytes) else None
                text = None if raw else step.body if isinstance(step.body, str) else json.dumps(step.body)
                return web.Response(body=raw, text=text, status=step.status, headers=step.headers)
            return await self._answer(step, body, request)

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
            yield
        finally:
            self.active -= 1

    async def _answer(self, step: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        statuses = {"500": 500, "401": 401, "404": 404}
        odd = {
            "empty": {"choices": [], "usage": {}},
            "odd": {"choices": ["an answer"]},
            "mute": {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
            "thinking": {
                "choices": [{"message": {"content": None, "reasoning": "hm"}, "finish_reason": "length"}],
                "usage": USAGE,
            },
            "thought": {
                "choices": [{"message": {"content": "", "reasoning_content": "hm"}, "finish_reason": "length"}],
                "usage": USAGE,
            },
            "error200": {"error": {"message": "overloaded"}},
        }
        if step.startswith("429"):
            headers = {"retry-after": step.partition(":")[2] or "0.05"}
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        if step.startswith("redirect:"):
            return web.Response(status=307, headers={"location": step.partition(":")[2]})
        if step in statuses:
            return web.json_response({"error": {"message": f"status {step}"}}, status=statuses[step])
        if step == "context":
            return web.json_response(
                {"error": {"message": "This model's maximum context length is 10 tokens"}}, status=400
            )
        if step == "refuse-seed" and "seed" in body:
            return web.json_response({"error": {"message": "Unsupported parameter: 'seed'"}}, status=400)
        if step in ("hang", "slow"):
            await asyncio.sleep(5 if step == "hang" else 0.2)
        if step == "drip":
            response = web.StreamResponse(headers={"content-type": "application/json"})
            await response.prepare(request)
            for char in json.dumps(self._completion("ok", body)):
                await response.write(char.encode())
                await asyncio.sleep(0.1)
            return response
        if step == "half":
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if step == "reset":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.json_response(odd.get(step) or self._completion(step, body))

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        text = step.removeprefix("say:") if step.startswith("say:") else self._constrained(body) or "a free answer"
        return {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": USAGE,
        }

    def _constrained(self, body: dict[str, Any]) -> str | None:
        """The last option, if the request speaks the dialect that this server honours."""
        if self.honours == "vllm" and "structured_outputs" in body:
            return body["structured_outputs"]["choice"][-1]
        if self.honours == "guided" and "guided_choice" in body:
            return body["guided_choice"][-1]
        if self.honours == "regex" and "regex" in body:
            return body["regex"].strip("()").split("|")[-1].replace("\\", "")
        if self.honours == "grammar" and "grammar" in body:
            return json.loads(body["grammar"].removeprefix("root ::= ").split(" | ")[-1])
        if self.honours == "schema" and "response_format" in body:
            return json.dumps(
                {"label": body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"][-1]}
            )
        return None


Served = TypeVar("Served", bound=FaultyServer)


@contextmanager
def serving(server: Served, port: int = 0) -> Iterator[Served]:
    """Run the server in a thread, on a free port or a given one."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/v1/models", server.models)
        app.router.add_post("/tokenize", server.tokenize)
        app.router.add_post("/v1/chat/completions", server.chat)
        app.router.add_post("/{path:apply-template|completion}", server.beside)
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
