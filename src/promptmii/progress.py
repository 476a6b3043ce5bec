"""How far long work is, for whoever waits for it.

Every function that may take long has a parameter `progress`, by default `QUIET`. It begins steps and advances them, and
never prints. The command line listens with a bar, a program with any class that has these three methods.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

Unit = Literal["rows", "tokens", "bytes", "cells", "drafts", "steps", "datasets", "tasks"]


class Progress(Protocol):
    """One step at a time: beginning a step ends the one before it."""

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        """Begin a step of `total` units; `None` when nobody knows how many."""
        ...

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        """`amount` more units of the step are finished; `done` names what was finished, `money` is what it cost."""
        ...

    def note(self, message: str) -> None:
        """Something the user should read now, such as a failed cell or a wait for a server."""
        ...


class Quiet:
    """Nobody listens."""

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        """See `Progress`."""

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:
        """See `Progress`."""

    def note(self, message: str) -> None:
        """See `Progress`."""


QUIET = Quiet()


_on_token: ContextVar[Callable[[], None]] = ContextVar("on_token", default=lambda: None)


def token_written() -> None:
    """Engines that write token by token call this after each."""
    _on_token.get()()


@contextmanager
def each_token(act: Callable[[], None]) -> Generator[None]:
    """While this lasts, `act` is called for every token that an engine writes in this thread."""
    before = _on_token.set(act)
    try:
        yield
    finally:
        _on_token.reset(before)
