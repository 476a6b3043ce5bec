"""Work from many threads is done in the one that waits, and nothing of it is lost."""

import threading
import time

import pytest

from promptmii.models.turns import compute, on_threads


def test_what_is_computed_is_computed_where_somebody_waits() -> None:
    def work(number: int) -> tuple[int, threading.Thread, threading.Thread]:
        return compute(lambda: number * number), threading.current_thread(), compute(threading.current_thread)

    found = dict(on_threads(work, range(20), 5))
    assert [found[number][0] for number in range(20)] == [number * number for number in range(20)]
    assert {thread for _, _, thread in found.values()} == {threading.main_thread()}
    assert threading.main_thread() not in {thread for _, thread, _ in found.values()}


def test_without_threads_it_is_computed_at_once() -> None:
    assert compute(lambda: compute(threading.current_thread)) is threading.current_thread()
    assert list(on_threads(lambda number: number, (), 3)) == []


def test_several_wait_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)
    assert len(list(on_threads(lambda _: together.wait(), range(4), 4))) == 4


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_out_and_ends_the_others(kind: type[BaseException]) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            compute(lambda: fail(kind))
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(kind, match="here"):
        list(on_threads(work, range(1000), 2))
    assert len(done) < 100


def fail(kind: type[BaseException]) -> None:
    raise kind("here")
