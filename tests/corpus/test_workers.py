"""A bad dataset is dropped; a bug of ours ends the build, with its traceback."""

import multiprocessing
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from tests.corpus.repositories import as_csv, rows

from promptmii.corpus.listing import Candidate
from promptmii.corpus.settings import FetchSettings
from promptmii.corpus.workers import BugError, Reader
from promptmii.errors import OutputError


def candidate(path: Path, content: bytes) -> Candidate:
    path.write_bytes(content)
    return Candidate(name=path.stem, repository=path.stem, revision="1", path=str(path))


GOOD = as_csv(rows("topic", ["a", "b"], 60))


@pytest.mark.slow
def test_one_process_reads_good_and_bad_datasets(tmp_path: Path) -> None:
    reader = Reader(FetchSettings())
    try:
        kept = reader.fetch(candidate(tmp_path / "good.csv", GOOD), tmp_path / "good.gz")
        assert (kept.kept, kept.detail["rows"]) == (True, 60)
        latin = reader.fetch(
            candidate(tmp_path / "latin.csv", "text,label\nschön,ja\n".encode("latin-1")), tmp_path / "x"
        )
        assert (latin.kept, latin.temporary) == (False, False)
        assert "not UTF-8" in latin.reason
        gone = Candidate(name="gone", repository="gone", revision="1", path=str(tmp_path / "gone.csv"))
        assert not reader.fetch(gone, tmp_path / "x").kept
        again = reader.fetch(candidate(tmp_path / "again.csv", GOOD), tmp_path / "again.gz")
        assert again.kept
        assert (tmp_path / "again.gz").read_bytes() == (tmp_path / "good.gz").read_bytes()
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        assert reader.fetch(candidate(tmp_path / "more.csv", GOOD), tmp_path / "more.gz").kept
    finally:
        reader.close()


@pytest.mark.slow
def test_a_bug_is_raised_instead_of_dropping_the_dataset(tmp_path: Path) -> None:
    settings = FetchSettings().model_copy(update={"rows": "many"})  # what validation would refuse
    reader = Reader(settings)
    try:
        with pytest.raises(BugError, match=r"(?s)while reading good.*Traceback.*TypeError"):
            reader.fetch(candidate(tmp_path / "good.csv", GOOD), tmp_path / "good.gz")
    finally:
        reader.close()


@pytest.mark.slow
def test_an_output_that_cannot_be_written_ends_the_build(tmp_path: Path) -> None:
    reader = Reader(FetchSettings())
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            reader.fetch(candidate(tmp_path / "good.csv", GOOD), tmp_path / "missing" / "good.gz")
    finally:
        reader.close()


@pytest.mark.slow
def test_closing_ends_a_fetch_in_another_thread(tmp_path: Path) -> None:
    reader = Reader(FetchSettings())
    slow = candidate(tmp_path / "slow.jsonl", b'{"text": "word", "label": "a"}\n' * 2_000_000)
    caught: list[BaseException] = []

    def fetch() -> None:
        try:
            reader.fetch(slow, tmp_path / "slow.gz")
        except CancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    time.sleep(1.0)
    reader.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(caught) == 1
