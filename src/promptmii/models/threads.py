"""Run work on several threads that end together.

`parallel` yields results as they finish. When it ends (exhausted, closed, by an error or by Ctrl-C), it cancels what
its threads are waiting for and joins them, so that they do not use anything after it is closed. Only if a server begins
to refuse every call, the work in progress is finished first, because its answers are paid.

Each thread that computes with torch on a CPU gets its own pool of helper threads, one per core; with more helpers than
cores, a batch takes up to three times as long. So a function decorated with `in_calling_thread` runs in the thread
that called `parallel`.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from promptmii.errors import EndpointError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
GRACE = 1.0
"""Seconds to wait for threads to end. They are daemons, so a stuck one cannot keep the program alive."""


class _Group:
    """The threads of one `parallel` call."""

    def __init__(self, outer: "_Group | None") -> None:
        self.inbox: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._outer = outer
        self._stopped = False
        self._lock = threading.Lock()
        self._cancels: set[Callable[[], object]] = set()

    @property
    def stopped(self) -> bool:
        return self._stopped or (self._outer is not None and self._outer.stopped)

    @contextmanager
    def cancelled_by(self, cancel: Callable[[], object]) -> Generator[None]:
        """Let `stop` call `cancel` inside this context. Raises `CancelledError` if the group has stopped."""
        with self._lock:
            if self.stopped:
                raise CancelledError
            self._cancels.add(cancel)
        try:
            yield
        finally:
            with self._lock:
                self._cancels.discard(cancel)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel()
        self.inbox.put(_cancelled)


_current: ContextVar[_Group | None] = ContextVar("group", default=None)
"""The group of the current thread, or of an event-loop task started by it."""


def ending() -> bool:
    """Return whether this thread or task should start no more work."""
    group = _current.get()
    return group is not None and group.stopped


def wait_for(future: Future[T]) -> T:
    """The future's result. Cancels it and raises `CancelledError` if this thread's group stops."""
    group = _current.get()
    try:
        with group.cancelled_by(future.cancel) if group else nullcontext():
            return future.result()
    except BaseException:
        future.cancel()
        raise


def in_calling_thread(work: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run in the thread that called `parallel`, or in the current one if there is no group."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        group = _current.get()
        if group is None:
            return work(*args, **kwargs)
        reply: Future[R] = Future()
        group.inbox.put(lambda: _answer(reply, partial(work, *args, **kwargs)))
        return wait_for(reply)

    return run


def parallel(work: Callable[[T], R], items: Sequence[T], threads: int) -> Generator[tuple[int, R]]:
    """Do `work` on each item, up to `threads` at once; yield each position and result as it finishes.

    The first error ends all work. After a lasting `EndpointError`, no work starts, and it is raised once the work in
    progress is finished. A single item, or `threads=1`, runs in this thread.
    """
    if min(threads, len(items)) <= 1:
        yield from enumerate(map(work, items))
        return
    outer = _current.get()
    group = _Group(outer)
    positions = itertools.count()
    refusals: list[EndpointError] = []

    def loop() -> None:
        _current.set(group)
        while not group.stopped and not refusals and (position := next(positions)) < len(items):
            outcome: Future[R] = Future()
            try:
                outcome.set_result(work(items[position]))
            except BaseException as error:
                outcome.set_exception(error)
            failure = outcome.exception()
            if isinstance(failure, EndpointError) and failure.lasting:
                refusals.append(failure)
            else:
                group.inbox.put(lambda position=position, outcome=outcome: (position, outcome.result()))
        group.inbox.put(ended)

    def ended() -> None:
        nonlocal running
        running -= 1

    workers = [threading.Thread(target=loop, daemon=True) for _ in range(min(threads, len(items)))]
    running = len(workers)
    with outer.cancelled_by(group.stop) if outer else nullcontext():
        try:
            for worker in workers:
                worker.start()
            while running:
                if finished := group.inbox.get()():
                    yield finished
        finally:
            group.stop()
            deadline = time.monotonic() + GRACE
            for worker in workers:
                if worker.ident is not None:
                    worker.join(max(0.0, deadline - time.monotonic()))
    if refusals:
        raise refusals[0]


def _answer(reply: Future[T], work: Callable[[], T]) -> None:
    if not reply.set_running_or_notify_cancel():
        return
    try:
        reply.set_result(work())
    except Exception as error:  # raise it in the thread that waits for the reply
        reply.set_exception(error)
    except BaseException:  # raise an interrupt in this thread, which received it
        reply.set_exception(CancelledError())
        raise


def _cancelled() -> None:
    raise CancelledError
