"""One background event loop for the requests of all models, for use from scripts, threads and notebooks alike.

It lives as long as the process: nobody can wait for a loop that has stopped.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_limits: WeakValueDictionary[tuple[object, ...], asyncio.Semaphore] = WeakValueDictionary()
_lock = threading.Lock()


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start work on the loop; cancelling the future cancels the work."""
    return asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))


def request_limit(urls: tuple[str, ...], concurrency: int) -> asyncio.Semaphore:
    """The limit on requests under way, shared by all models of this process that name the same servers and limit."""
    key = (os.getpid(), urls, concurrency)
    with _lock:
        return _limits.setdefault(key, asyncio.Semaphore(concurrency))


@cache
def _loop(_process: int) -> asyncio.AbstractEventLoop:
    """Of this process: a fork inherits no thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="promptmii-http", daemon=True).start()
    return loop
