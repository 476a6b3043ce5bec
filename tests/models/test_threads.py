"""Work from several threads runs in the calling thread, and all of them end together."""

import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest

from promptmii.errors import EndpointError
from promptmii.models.llama.engine import threads
from promptmii.models.threads import ending, in_calling_thread, parallel, wait_for


def test_work_handed_over_runs_in_the_calling_thread() -> None:
    def work(number: int) -> tuple[int, threading.Thread, threading.Thread]:
        return (
            in_calling_thread(lambda: number * number)(),
            threading.current_thread(),
            in_calling_thread(threading.current_thread)(),
        )

    results = dict(parallel(work, range(20), 5))
    assert [results[number][0] for number in range(20)] == [number * number for number in range(20)]
    assert {caller for _, _, caller in results.values()} == {threading.main_thread()}
    assert threading.main_thread() not in {worker for _, worker, _ in results.values()}


def test_without_other_threads_work_runs_at_once() -> None:
    assert in_calling_thread(in_calling_thread(threading.current_thread))() is threading.current_thread()
    assert list(parallel(lambda number: number, (), 3)) == []


def test_several_threads_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4, timeout=10)
    assert len(list(parallel(lambda _: barrier.wait(), range(4), 4))) == 4


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_is_raised_and_ends_the_other_threads(kind: type[BaseException]) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            in_calling_thread(fail)(kind)
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(kind, match="here"):
        list(parallel(work, range(1000), 2))
    assert len(done) < 100


def test_a_refusal_lets_work_in_progress_finish_and_starts_no_more() -> None:
    both_started = threading.Barrier(2, timeout=10)
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        if number in (3, 4):
            both_started.wait()
        if number == 3:
            raise EndpointError("refused", lasting=True)
        if number == 4:
            time.sleep(0.1)
        return number

    finished: list[int] = []
    with pytest.raises(EndpointError, match="refused"):
        finished.extend(number for _, number in parallel(work, range(1000), 2))
    assert sorted(finished) == [0, 1, 2, 4]
    assert sorted(started) == [0, 1, 2, 3, 4]


def fail(kind: type[BaseException]) -> None:
    raise kind("here")


def test_closing_cancels_what_threads_wait_for_and_leaves_no_thread_running() -> None:
    before = set(threading.enumerate())
    pending: list[Future[None]] = [Future() for _ in range(3)]

    def inner(future: Future[None]) -> None:
        wait_for(future)

    def outer(number: int) -> int:
        if number:
            list(parallel(inner, pending, 3))
        return number

    results = parallel(outer, range(4), 4)
    assert next(results) == (0, 0)
    while sum(thread not in before for thread in threading.enumerate()) < 3 + 3 * 3:
        time.sleep(0.01)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 0.9
    assert set(threading.enumerate()) == before
    assert all(future.cancelled() for future in pending)


def test_an_ending_thread_starts_no_more_work() -> None:
    started = threading.Event()
    outcomes: list[type[BaseException]] = []

    def work(number: int) -> int:
        if number:
            started.set()
            while not ending():
                time.sleep(0.001)
            for call in (in_calling_thread(lambda: 1), lambda: wait_for(Future())):
                try:
                    call()
                except CancelledError as error:
                    outcomes.append(type(error))
        return number

    results = parallel(work, range(2), 2)
    next(results)
    started.wait(10)
    results.close()
    assert outcomes == [CancelledError] * 2


def test_llama_cpp_uses_as_many_threads_as_its_container_has_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    unlimited = threads(limit)
    for content, expected in (("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", unlimited)):
        limit.write_text(content)
        assert threads(limit) == expected
    limit.write_text(f"{10**9} 100000\n")
    assert threads(limit) == unlimited
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(limit) == 3
