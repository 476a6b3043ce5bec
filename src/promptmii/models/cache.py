"""Answers kept on disk, each before the next is asked for."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from promptmii.errors import OutputError
from promptmii.files import private_file, private_folder
from promptmii.models.base import Answer, Chat, Choice, Completion, Failure, LanguageModel, Sampling
from promptmii.models.threads import parallel
from promptmii.models.wrappers import Wrapper
from promptmii.task import content_key

ANSWERS = "answers.sqlite"
PATIENCE = 30.0
"""Seconds to wait for another process that writes the file."""
_COMPLETION, _CHOICE = TypeAdapter(Completion), TypeAdapter(Choice)


class Cached(Wrapper):
    """A model whose answers are kept in one SQLite file and never paid twice.

    Failures and cut answers are not kept. A kept answer has the usage of the call that made it, so costs do not depend
    on what ran before. The key holds reference and revision, the whole chat, the options or every sampling
    parameter, and the ordinal among equal chats of a batch, so k samples of one chat stay k samples. Safe for several
    threads and processes.
    """

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        """Raises `OutputError` if the folder or the file in it cannot be used."""
        super().__init__(model)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._path = folder / ANSWERS
        try:
            private_folder(folder)
            self._db = _open(private_file(self._path))
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        super().close()
        with self._lock:  # SQLite must not be closed under a thread that uses it
            self._db.close()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        # Samples of equal chats are only comparable when drawn in one batch: all of them are known, or all are drawn.
        whole = sampling.temperature > 0 and len({content_key(list(chat)) for chat in chats}) < len(chats)
        what: list[object] = ["generate", *(value for value in sampling if value is not None)]
        return self._through(chats, what, lambda part: self._model.generate(part, sampling), _COMPLETION, whole)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        # Where threads must wait for the model anyway, they wait here, and find the answers to equal questions.
        with nullcontext() if self.card.concurrency > 1 else self._turn:
            return self._through(chats, ["choose", *options], lambda part: self._model.choose(part, options), _CHOICE)

    def _through(
        self,
        chats: Sequence[Chat],
        what: Sequence[object],
        ask: Callable[[Sequence[Chat]], list[Answer | Failure]],
        kind: TypeAdapter[Answer],
        whole: bool = False,
    ) -> list[Answer | Failure]:
        """Each known answer, and those that `ask` gives to the others; if `whole`, one missing asks for all again."""
        keys = self._keys(chats, what)
        known = self._known(keys, kind)
        missing = [i for i, key in enumerate(keys) if key not in known]
        if whole and missing:
            missing = list(range(len(chats)))
        one_by_one = self.card.concurrency > 1 and not whole
        parts = [[i] for i in missing] if one_by_one else [missing] if missing else []
        threads = min(self.card.concurrency, len(parts))

        def answer(part: Sequence[int]) -> list[Answer | Failure]:
            """Kept by the thread that asked, before it asks again: a kill loses only what is under way."""
            answers = [_shared(answer, threads) for answer in ask([chats[i] for i in part])]
            self._store([(keys[i], answer) for i, answer in zip(part, answers, strict=True)])
            return answers

        fresh: dict[int, Answer | Failure] = {}
        for position, answers in parallel(answer, parts, threads):
            fresh.update(zip(parts[position], answers, strict=True))
        return [fresh[i] if i in fresh else known[key] for i, key in enumerate(keys)]

    def _keys(self, chats: Sequence[Chat], what: Sequence[object]) -> list[str]:
        seen: dict[str, int] = {}
        keys: list[str] = []
        for chat in chats:
            base = content_key([self.card.reference, self.card.revision, list(what), list(chat)])
            seen[base] = seen.get(base, 0) + 1
            keys.append(f"{base}-{seen[base]}")
        return keys

    def _unusable(self, error: Exception) -> OutputError:
        cure = "Delete the file, or name another folder with --cache."
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            cure = "Make room and run the same command again: what is in it is kept."
        return OutputError(f"The answer cache {self._path} cannot be used: {error}. {cure}")

    def _known(self, keys: Sequence[str], kind: TypeAdapter[Answer]) -> dict[str, Answer]:
        try:
            with self._lock:
                found = {
                    key: self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys
                }
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return {key: answer for key, row in found.items() if row and (answer := _read(row[0], kind))}

    def _store(self, answers: Sequence[tuple[str, Answer | Failure]]) -> None:
        rows = [(key, json.dumps(asdict(answer))) for key, answer in answers if _is_whole(answer)]
        try:
            with self._lock:
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error


def forget(folder: Path) -> None:
    """Delete the kept answers in a folder. Raises `OutputError`."""
    for path in (folder / f"{ANSWERS}{suffix}" for suffix in ("", "-wal", "-shm")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be deleted: {error.strerror or error}.") from error


def _open(path: Path) -> sqlite3.Connection:
    """The cache file. Two processes that make it at once: SQLite does not wait here by itself, so it is tried again."""
    db = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False, isolation_level=None)
    last = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")  # survives a kill of the process, without a disk flush per answer
            db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
            return db
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                db.close()
                raise
            time.sleep(0.05)


def _is_whole(answer: Completion | Choice | Failure) -> bool:
    return not isinstance(answer, Failure) and not (isinstance(answer, Completion) and answer.truncated)


def _read(row: str, kind: TypeAdapter[Answer]) -> Answer | None:
    """A kept answer; `None` for a damaged one, which is asked for again."""
    try:
        return kind.validate_json(row)
    except ValidationError:
        return None


def _shared(answer: Answer | Failure, threads: int) -> Answer | Failure:
    """An answer with its part of the time in which `threads` of them were made."""
    return replace(answer, usage=replace(answer.usage, seconds=answer.usage.seconds / threads))
