"""Requests that wait for a batch."""

from contextlib import closing
from pathlib import Path

import pytest
from tests.models.batch_server import BatchServer
from tests.models.faulty_server import connect, serving

from promptmii.errors import OutputError
from promptmii.models.base import Chat, Completion, Sampling
from promptmii.models.http.deferred import Deferred

CHATS: list[Chat] = [[{"role": "user", "content": f"Ticket {i}"}] for i in range(8)]


def test_all_answers_of_a_file_are_stored_in_one_transaction(tmp_path: Path) -> None:
    def transactions() -> int:
        """SQLite counts them in the header of the file."""
        return int.from_bytes((tmp_path / "answers.sqlite").read_bytes()[24:28], "big")

    deferred = Deferred()
    with serving(BatchServer()) as server, connect(server, deferred=deferred) as model:
        model.generate(CHATS[:1], Sampling(9))
        deferred.begin(tmp_path)
        model.generate(CHATS, Sampling(9))
        deferred.submit()
        server.complete("batch_1")
        before = transactions()
        deferred.collect()
        assert transactions() == before + 1
        assert all(isinstance(answer, Completion) for answer in model.generate(CHATS, Sampling(9)))
    deferred.close()


def test_a_request_that_cannot_be_stored_is_one_error(tmp_path: Path) -> None:
    deferred = Deferred()
    with serving(BatchServer()) as server, connect(server, deferred=deferred) as model:
        model.generate(CHATS[:1], Sampling(9))
        deferred.begin(tmp_path)
        (tmp_path / "requests-1.jsonl").mkdir()
        with pytest.raises(OutputError, match=r"The batches cannot be kept in .*: (Is a directory|Operation not perm)"):
            model.generate(CHATS, Sampling(9))
    deferred.close()


def test_a_damaged_file_of_answers_is_named(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_text("no database " * 100)
    deferred = Deferred()
    with closing(deferred), pytest.raises(OutputError, match=r"answers\.sqlite: file is not a database"):
        deferred.begin(tmp_path)
