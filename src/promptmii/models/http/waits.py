"""Nobody waits for a server in silence: a warning says what it waits for, now and then rather than for each call."""

import asyncio
import math
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager


class Waits:
    """For one server, whichever call waits."""

    def __init__(self, url: str, after: float = 5.0, every: float = 30.0) -> None:
        """The first warning comes after `after` seconds of waiting, the next `every` seconds later."""
        self._url = url
        self._after = after
        self._every = every
        self._told = self._answered = -math.inf

    @contextmanager
    def for_answer(self, longest: float) -> Generator[None]:
        """Around a request that may take `longest` seconds. Told if the server answers no other meanwhile either."""
        started, loop = time.monotonic(), asyncio.get_running_loop()

        def tell() -> None:
            nonlocal timer
            timer = loop.call_later(self._every, tell)
            if self._answered < started:
                waited = time.monotonic() - started
                self._tell(f"{self._url} has not answered for {waited:.0f} s; a request may take {longest:g} s.")

        timer = loop.call_later(self._after, tell)
        try:
            yield
            self._answered = time.monotonic()
        finally:
            timer.cancel()

    def pause(self, cause: str, waited: float, pause: float, patience: float) -> None:
        """Before a request is tried again in `pause` seconds, after `waited`."""
        if waited + pause >= self._after:
            self._tell(
                f"{self._url}: {cause.rstrip('.')}. Trying again in {pause:.0f} s, after {waited:.0f} s of "
                f"{patience:.0f} s at most."
            )

    def _tell(self, message: str) -> None:
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            warnings.warn(message, stacklevel=1)
