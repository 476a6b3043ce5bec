"""A chat server on loopback that misbehaves: slow answers, and faults drawn at random at a given rate."""

import asyncio
import email.utils
import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

LABELS_BLOCK = re.compile(r"labels, and nothing else:\n(.*?)\n\nInput: ", re.DOTALL)


def intended(prompt: str) -> str:
    """The good answer to a prompt: one of its labels, or an instruction."""
    digest = int(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(), 16)
    if found := LABELS_BLOCK.search(prompt):
        labels = [line.removeprefix("- ") for line in found[1].split("\n")]
        return labels[digest % len(labels)]
    return f"Read the text and decide. Variant {digest % 100_000}."


def completion(content: Any, finish: str = "stop", **usage: Any) -> dict[str, Any]:
    """The body of a good answer."""
    counts = {"prompt_tokens": 40, "completion_tokens": 3} | usage
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    return {"choices": [choice], "usage": counts}


def failing(status: int, **headers: str) -> Callable[[str], web.Response]:
    """An error with a status."""
    return lambda _: web.json_response({"error": {"message": "try again"}}, status=status, headers=headers)


def text(body: str, **options: Any) -> web.Response:
    """The body unchanged, declared as JSON."""
    return web.Response(text=body, content_type="application/json", **options)


def garbled(answer: str) -> web.Response:
    """An answer that contains bytes that are not UTF-8."""
    body = json.dumps(completion("@")).encode().replace(b'"@"', b'"\xff' + answer.encode() + b'"')
    return web.Response(body=body, content_type="application/json")


PAST = email.utils.formatdate(0, usegmt=True)
FAULTS: dict[str, Callable[[str], web.Response]] = {
    "429": failing(429),
    "429, retry after 0": failing(429, **{"retry-after": "0"}),
    "429, retry in the past": failing(429, **{"retry-after": PAST}),
    "429, odd retry-after": failing(429, **{"retry-after": "nan"}),
    "500": failing(500),
    "503": failing(503),
    "408": failing(408),
    "400": failing(400),
    "502 in HTML": lambda _: web.Response(text="<html>Bad Gateway</html>", status=502, content_type="text/html"),
    "half of the JSON": lambda a: text(json.dumps(completion(a))[:50]),
    "empty body": lambda _: text(""),
    "no choices": lambda _: web.json_response({"choices": []}),
    "choices of a wrong type": lambda a: web.json_response({"choices": {"0": a}}),
    "error in HTTP 200": lambda _: web.json_response({"error": {"message": "backend died", "code": 500}}),
    "no content": lambda _: web.json_response(completion(None)),
    "empty content": lambda _: web.json_response(completion("")),
    "cut by length": lambda a: web.json_response(completion(a[: len(a) // 2], "length")),
    "content filter": lambda _: web.json_response(completion("", "content_filter")),
    "no UTF-8": garbled,
    "half a character": lambda a: text(json.dumps(completion("\ud800" + a))),
    "deep JSON": lambda _: text('{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "damaged gzip": lambda _: web.Response(body=b"\x1f\x8b no", headers={"content-encoding": "gzip"}),
}
"""Faults in place of an answer; each function gets the good answer. `hang` and `reset` act on the connection."""
KINDS = (*FAULTS, "hang", "reset")


class Server:
    """`latency` is the range of seconds that an answer takes; `rate` is the share of calls that meet a fault."""

    def __init__(self, seed: int, latency: tuple[float, float] = (0.0, 0.01), rate: float = 0.0) -> None:
        self.latency = latency
        self.rate = rate
        self.asked: Counter[str] = Counter()
        """The number of times each chat request came, by its body."""
        self.faults: Counter[str] = Counter()
        self.active = self.peak = 0
        self.url = ""
        self._random = random.Random(seed)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "max_model_len": 8192}]})

    async def chat(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.asked[hashlib.sha256(raw).hexdigest()] += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self._random.uniform(*self.latency))
            return await self._answer(json.loads(raw)["messages"][-1]["content"], request)
        finally:
            self.active -= 1

    async def _answer(self, prompt: str, request: web.Request) -> web.Response:
        answer = intended(prompt)
        if self._random.random() >= self.rate:
            return web.json_response(completion(answer))
        kind = self._random.choice(KINDS)
        self.faults[kind] += 1
        if kind in FAULTS:
            return FAULTS[kind](answer)
        if kind == "hang":
            await asyncio.sleep(5)
        elif request.transport:
            request.transport.abort()
        return web.json_response(completion(answer))


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run the server in a thread, on a free port of loopback."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/v1/models", server.models)
        app.router.add_post("/v1/chat/completions", server.chat)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
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
