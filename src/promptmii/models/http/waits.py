"""Warnings about waiting for a server, limited so that many waiting calls cause few warnings."""

import asyncio
import math
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager


class Waits:
    """The waits of all calls to one server."""

    def __init__(self, url: str, after: float = 5.0, every: float = 30.0) -> None:
        """Warn after `after` seconds of waiting, then at most once per `every` seconds."""
        self._url = url
        self._after = after
        self._every = every
        self._last_warning = self._last_answer = -math.inf

    @contextmanager
    def for_answer(self, timeout: float) -> Generator[None]:
        """Warn while the request inside is slow, unless the server answers other requests meanwhile."""
        started, loop = time.monotonic(), asyncio.get_running_loop()

        def check() -> None:
            nonlocal timer
            timer = loop.call_later(self._every, check)
            if self._last_answer < started:
                waited = time.monotonic() - started
                self._warn(f"{self._url} has not answered for {waited:.0f} s; a request may take {timeout:g} s.")

        timer = loop.call_later(self._after, check)
        try:
            yield
            self._last_answer = time.monotonic()
        finally:
            timer.cancel()

    def pause(self, cause: str, waited: float, pause: float, patience: float, *, others_answered: bool) -> None:
        """Warn about a long pause before a retry; `waited` is the time since the first failure."""
        if waited + pause >= self._after:
            others = "Other calls are answered. " if others_answered else ""
            passed = f", of which {waited:.0f} have passed" if waited >= 1 and not others_answered else ""
            self._warn(
                f"{self._url}: {cause.rstrip('.')}. {others}This call is tried again in {pause:.0f} s; it fails after "
                f"{patience:.0f} s{passed}."
            )

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now - self._last_warning >= self._every:
            self._last_warning = now
            warnings.warn(message, stacklevel=1)
