"""Where requests run: one event loop on a background thread, with one limit on the requests under way."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class Lane:
    """Shared by all models of a process that reach the same servers with the same limit, so that the limit holds for them together."""

    _open: ClassVar[dict[tuple[tuple[str, ...], int], "Lane"]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[tuple[str, ...], int]) -> None:
        """Use `join`."""
        self._key = key
        self._users = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="promptmii-http", daemon=True)
        self._thread.start()
        self.slots = asyncio.Semaphore(key[1])

    @classmethod
    def join(cls, urls: tuple[str, ...], limit: int) -> "Lane":
        """The lane to these servers; `leave` it afterwards."""
        with cls._guard:
            lane = cls._open.get((urls, limit)) or cls((urls, limit))
            cls._open[urls, limit] = lane
            lane._users += 1
            return lane

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def leave(self) -> None:
        """The last one out stops the loop."""
        with self._guard:
            self._users -= 1
            if self._users:
                return
            del self._open[self._key]
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
