"""Many threads that ask, one that computes.

A thread that computes with torch on a processor gets helpers of its own, one per core, and as soon as there are more of them than cores
they sleep between any two operations: a batch then takes up to three times as long. So threads that are started here hand such
work to the thread that waits for them.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Desk(threading.local):
    """Of a thread that `on_threads` started: where it hands work in."""

    inbox: "queue.SimpleQueue[Any] | None" = None


_desk = _Desk()


def compute(work: Callable[[], T]) -> T:
    """What `work` gives: done in this thread, or, where `on_threads` started it, in the one that waits for it."""
    if _desk.inbox is None:
        return work()
    reply: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
    _desk.inbox.put(lambda: reply.put(_done(work)))
    return reply.get().result()


def on_threads(work: Callable[[T], R], given: Sequence[T], threads: int) -> Iterator[tuple[int, R]]:
    """`work` on each of `given`, several at once: position and result, as they finish.

    An error of one thread is raised here, and ends the others after what they are at.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    inbox: queue.SimpleQueue[Callable[[], tuple[int, R] | None]] = queue.SimpleQueue()
    stopped = threading.Event()
    for position in range(len(given)):
        waiting.put(position)

    def loop() -> None:
        _desk.inbox = inbox
        while not stopped.is_set():
            try:
                position = waiting.get_nowait()
            except queue.Empty:
                return
            done = _done(lambda position=position: work(given[position]))
            inbox.put(lambda position=position, done=done: (position, done.result()))

    # Daemons, so that an interrupted program does not wait for answers that nobody will read.
    for _ in range(min(threads, len(given))):
        threading.Thread(target=loop, daemon=True).start()
    left = len(given)
    try:
        while left:
            finished = inbox.get()()
            if finished:
                left -= 1
                yield finished
    finally:
        stopped.set()


def _done(work: Callable[[], T]) -> Future[T]:
    """Its result, or the error that it ended with: an interrupt, too, is raised where the result is read."""
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
    return future
