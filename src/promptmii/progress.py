"""Progress reports of long-running functions.

Every function that may take long has a `progress` parameter, by default `QUIET`. It reports steps there and never
prints. The command line shows a progress bar; a program can pass any class with the three methods of `Progress`.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

Unit = Literal["rows", "tokens", "bytes", "cells", "drafts", "steps", "datasets", "tasks"]


class Progress(Protocol):
    """Receives progress, one step at a time. A new step ends the previous one. By default, the methods do nothing."""

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        """Begin a step of `total` units, or `None` if unknown."""

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        """Report `amount` more finished units of the step. `done` describes them, `money` is their cost."""

    def note(self, message: str) -> None:
        """Report something the user should read now, such as a failed cell or a wait for a server."""


class Quiet(Progress):
    """Ignores progress."""


QUIET = Quiet()


_on_token: ContextVar[Callable[[], None]] = ContextVar("on_token", default=lambda: None)


def token_written() -> None:
    """Report a token. Engines that write token by token call this after each one."""
    _on_token.get()()


@contextmanager
def each_token(callback: Callable[[], None]) -> Generator[None]:
    """Within the context, call `callback` for every token that an engine writes in this thread."""
    previous = _on_token.set(callback)
    try:
        yield
    finally:
        _on_token.reset(previous)
