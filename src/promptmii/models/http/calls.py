"""Runs the requests of one model on the event loop, with retries and within the request limit."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

from promptmii.errors import EndpointError, PromptMIIError
from promptmii.models.base import Chat, Failure, FailureKind
from promptmii.models.http.config import CHAT, HttpConfig
from promptmii.models.http.refusals import DoubtfulError, RefusedError
from promptmii.models.http.retries import Retries
from promptmii.models.http.transport import Server, request_limit, submit
from promptmii.models.threads import ending, wait_for

S = TypeVar("S")
T = TypeVar("T")
CLOSING = 1.0
"""Seconds to wait for connections to close."""


class Calls:
    """The requests of one model to its servers."""

    def __init__(self, model: str, reference: str, config: HttpConfig) -> None:
        """`model` is the name on the servers. Raises `ConfigError` or `EndpointError` as `Server` does."""
        self.servers = [Server(url, config, model) for url in config.urls]
        self._reference = reference
        self._slots = config.slots or request_limit(config.urls, config.concurrency)
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._one_check = asyncio.Lock()
        self._refused: asyncio.Future[EndpointError] | None = None
        """The first lasting error of the calls in flight."""
        self._checks: dict[Server, tuple[float, bool]] = {}
        """When each server was last checked, and whether it refused that."""

    def close(self) -> None:
        """Cancel pending requests and close the connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pending = list(self._pending)
        for future in pending:
            future.cancel()
        wait([submit(server.close()) for server in self.servers], timeout=CLOSING)

    def check_open(self) -> None:
        """Raise `EndpointError` if the model was closed."""
        if self._closed:
            raise EndpointError(f"{self._reference} was closed. Load it again.")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine. Raises `EndpointError` if the model is closed, before or meanwhile."""
        with self._lock:
            if self._closed:
                work.close()
            self.check_open()
            future = submit(work)
            self._pending.add(future)
        try:
            return wait_for(future)
        except CancelledError:
            self.check_open()
            raise
        finally:
            self._pending.discard(future)

    def map(self, call: Callable[[S], Coroutine[Any, Any, T]], items: Sequence[S]) -> list[T]:
        """The results of concurrent calls, in order. Raises as `run` and `gather` do."""
        return self.run(self.gather(call, items))

    async def gather(self, call: Callable[[S], Coroutine[Any, Any, T]], items: Sequence[S]) -> list[T]:
        """The results of concurrent calls, in order. The first `PromptMIIError` cancels the other calls."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call(item)) for item in items]
        except* PromptMIIError as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def answered(self, server: Server, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Failure:
        """The result of a request for an answer to a text, or its failure after all retries.

        A firewall may refuse one text, so a refusal that looks like one of every call ends the run only if the server
        has answered no other text since, and refuses a harmless chat too. It then ends every call of the run that waits
        for a slot or for another try; requests that were sent finish, because they are paid.
        """
        if self._refused is None or self._refused.done():
            self._refused = asyncio.get_running_loop().create_future()
        refused = self._refused
        sent = -math.inf

        async def noted() -> T:
            nonlocal sent
            sent = time.monotonic()
            return await request()

        async def judged() -> T:
            try:
                return await self._limited(noted, refused)
            except DoubtfulError as error:
                final = server.config.deferred or refused.done()
                if final or await self.refuses(server, sent) or not server.answered:
                    raise
                raise error.otherwise from None

        try:
            return await Retries(server).run(judged, lambda: self._check_server(server), refused)
        except EndpointError as error:
            if error.lasting and not refused.done():
                refused.set_result(error)
            raise

    async def refuses(self, server: Server, since: float = 0.0) -> bool:
        """Whether the server refuses the key, the model or the address. Checks it once for all calls in flight.

        An answer or a check since the given time (of `time.monotonic`) decides; by default, any earlier one.
        """
        async with self._one_check:
            if server.last_answer >= since:
                return False
            checked, refused = self._checks.get(server, (-math.inf, False))
            if checked < since:
                try:
                    await self._check_server(server)
                    refused = False
                except EndpointError:
                    refused = True
                self._checks[server] = time.monotonic(), refused
            return refused

    async def retried(self, server: Server, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Failure:
        """The result of a request, or its failure after all retries."""
        return await Retries(server).run(lambda: self._limited(request), lambda: self._check_server(server))

    async def _limited(
        self, request: Callable[[], Coroutine[Any, Any, T]], refused: asyncio.Future[EndpointError] | None = None
    ) -> T:
        """The result of a request, sent when one of the slots is free, unless all calls are `refused` by then."""
        async with self._slots:
            if ending():  # the slot may be free because another request was cancelled
                raise asyncio.CancelledError
            if refused and refused.done():
                raise refused.result()
            return await request()

    async def _check_server(self, server: Server) -> None:
        """Send a harmless chat, to find out if the server is down or fails on one text only."""
        body = {"model": server.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            async with self._slots:
                await server.post(CHAT, body)
        except RefusedError as error:
            if error.failure.kind is not FailureKind.REQUEST:
                return
        server.mark_answered()
        server.mark_up()

    def server_for(self, chat: Chat) -> Server:
        """The server for a chat. Chats with the same prefix go to the same server, which then has it in its cache."""
        prefix = chat[0]["content"][:256]
        return self.servers[sum(prefix.encode("utf-8", "surrogatepass")) % len(self.servers)]
