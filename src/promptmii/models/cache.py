"""A persistent cache of answers. Each answer is on disk before the next request is made."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from promptmii.errors import OutputError
from promptmii.files import no_room, private_file, private_folder
from promptmii.models.base import Answer, Chat, Choice, Completion, Failure, LanguageModel, Sampling
from promptmii.models.threads import parallel
from promptmii.models.wrappers import Wrapper
from promptmii.task import content_key

ANSWERS = "answers.sqlite"
PATIENCE = 30.0
"""Seconds to wait while another process writes to the file."""
_COMPLETION, _CHOICE = TypeAdapter(Completion), TypeAdapter(Choice)


class Cached(Wrapper):
    """A model whose answers are cached in an SQLite file, so that none is paid for twice. Thread- and process-safe.

    Failures are not cached, and truncated answers only if they are samples: new ones would differ, and a search could
    not continue where it was killed. A cached answer keeps the usage of the original call, so costs do not depend on
    earlier runs. The key consists of the model's reference and revision, the whole chat, the options or all sampling
    parameters, and the position of a sample among those of equal chats of a batch, so that k samples of one chat
    remain distinct. Other equal chats of a batch are asked once.

    `open` or the first call opens the file, or raises `OutputError` if it cannot be used.
    """

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        super().__init__(model)
        self._lock = threading.Lock()
        """Held while the file is used: SQLite must not be closed meanwhile."""
        self._turn = threading.Lock()
        self._path = folder / ANSWERS
        self._opened: sqlite3.Connection | None = None

    @property
    def _db(self) -> sqlite3.Connection:
        """The open file. The caller holds the lock."""
        if self._opened is None:
            private_folder(self._path.parent)
            self._opened = _open(private_file(self._path))
        return self._opened

    def open(self) -> Self:
        """Open the file before anything is paid for. If it cannot be used, close the model and raise `OutputError`."""
        try:
            with self._lock:
                _ = self._db
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._unusable(error) from error
        return self

    def close(self) -> None:
        super().close()
        with self._lock:
            if self._opened:
                self._opened.close()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        request: list[object] = ["generate", *(value for value in sampling if value is not None)]
        sampled = sampling.temperature > 0
        return self._answers(
            chats, request, lambda batch: self._model.generate(batch, sampling), _COMPLETION, sampled=sampled
        )

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        if not chats:  # asks whether the model can choose
            return self._model.choose(chats, options)
        # A local model serves one thread at a time. Waiting here lets other threads find equal questions in the cache.
        with self._turn if self.card.batches else nullcontext():
            return self._answers(chats, ["choose", *options], lambda batch: self._model.choose(batch, options), _CHOICE)

    def _answers(
        self,
        chats: Sequence[Chat],
        request: list[object],
        ask: Callable[[Sequence[Chat]], list[Answer | Failure]],
        kind: TypeAdapter[Answer],
        *,
        sampled: bool = False,
    ) -> list[Answer | Failure]:
        """Take answers from the cache and get the others from `ask`.

        If `sampled`, equal chats get different answers, and truncated ones are cached too.
        """
        keys = self._keys(chats, request, numbered=sampled)
        cached = self._lookup(keys, kind)
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        missing = sorted(i for key, i in first.items() if key not in cached)
        # Samples of equal chats must come from one batch: take all of them from the cache, or draw all again.
        whole = any(not key.endswith("-1") for key in keys)
        if whole and missing:
            missing = list(range(len(chats)))
        one_by_one = not self.card.batches and not whole
        batches = [[i] for i in missing] if one_by_one else [missing] if missing else []
        threads = min(self.card.concurrency, len(batches))

        def answer(batch: Sequence[int]) -> list[Answer | Failure]:
            """Ask and store at once, so that a killed process loses only the requests in flight."""
            answers = [  # requests that run at once share the time
                replace(answer, usage=replace(answer.usage, seconds=answer.usage.seconds / threads))
                for answer in ask([chats[i] for i in batch])
            ]
            pairs = zip((keys[i] for i in batch), answers, strict=True)
            self._store([(key, answer) for key, answer in pairs if _is_final(answer, truncated=sampled)])
            return answers

        known: dict[str, Answer | Failure] = {**cached}
        for number, answers in parallel(answer, batches, threads):
            known |= zip((keys[i] for i in batches[number]), answers, strict=True)
        return [known[key] for key in keys]

    def _keys(self, chats: Sequence[Chat], request: list[object], *, numbered: bool) -> list[str]:
        seen: Counter[str] = Counter()
        keys: list[str] = []
        for chat in chats:
            key = content_key([self.card.reference, self.card.revision, request, list(chat)])
            seen[key] += 1
            keys.append(f"{key}-{seen[key] if numbered else 1}")
        return keys

    def _unusable(self, error: Exception) -> OutputError:
        cure = "Delete the file, or choose another folder with --cache."
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) or no_room(error):
            cure = "Make room and run the same command again; the cached answers are kept."
        return OutputError(f"The answer cache {self._path} cannot be used: {error}. {cure}")

    def _lookup(self, keys: Sequence[str], kind: TypeAdapter[Answer]) -> dict[str, Answer]:
        query = "SELECT answer FROM answers WHERE key = ?"
        try:
            with self._lock:
                rows = {key: self._db.execute(query, (key,)).fetchone() for key in keys}
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        answers = {key: _parse(row[0], kind) for key, row in rows.items() if row}
        return {key: answer for key, answer in answers.items() if answer}

    def _store(self, answers: Sequence[tuple[str, Answer | Failure]]) -> None:
        rows = [(key, json.dumps(asdict(answer))) for key, answer in answers]
        try:
            with self._lock:
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error


def forget(folder: Path) -> None:
    """Delete the cached answers in a folder. Raises `OutputError`."""
    for path in (folder / f"{ANSWERS}{suffix}" for suffix in ("", "-wal", "-shm")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be deleted: {error.strerror or error}.") from error


def _open(path: Path) -> sqlite3.Connection:
    """Open the cache file. Retries while another process creates it, because SQLite does not wait for that."""
    db = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False, isolation_level=None)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")  # survives a killed process without a disk flush per answer
            db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
            return db
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                db.close()
                raise
            time.sleep(0.05)


def _is_final(answer: Completion | Choice | Failure, *, truncated: bool) -> bool:
    return not isinstance(answer, Failure) and (truncated or not (isinstance(answer, Completion) and answer.truncated))


def _parse(stored: str, kind: TypeAdapter[Answer]) -> Answer | None:
    """A cached answer, or `None` if it is damaged."""
    try:
        return kind.validate_json(stored)
    except ValidationError:
        return None
