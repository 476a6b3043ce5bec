"""Two wrappers that are models themselves: one counts what is spent, one remembers answers on disk."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from promptmii.errors import OutputError
from promptmii.models.base import Chat, Choice, Completion, Failure, LanguageModel, ModelCard, Sampling, Usage
from promptmii.task import content_key

Answer = TypeVar("Answer", Completion, Choice)


class Metered:
    """A model that adds up what passes through it. Safe to share between threads."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.usage = Usage()
        self.seconds = 0.0
        """Wall time inside the model; calls that overlap count once each."""
        self.failures = 0

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._model.card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `LanguageModel`. Not metered: no model runs."""
        return self._model.count_tokens(texts)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        return self._count(lambda: self._model.generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`."""
        return self._count(lambda: self._model.choose(chats, options))

    def _count(self, call: Callable[[], list[Answer | Failure]]) -> list[Answer | Failure]:
        start = time.perf_counter()
        answers = call()
        spent = time.perf_counter() - start
        with self._lock:
            self.seconds += spent
            self.usage = sum((answer.usage for answer in answers), self.usage)
            self.failures += sum(isinstance(answer, Failure) for answer in answers)
        return answers


class Cached:
    """A model whose answers are kept in one SQLite file and never asked for twice. Failures are not kept.

    The key holds the endpoint and revision, the whole chat, the options or every sampling parameter, and the ordinal among equal
    chats of a batch, so that k samples of one chat stay k samples. Safe for several threads and processes.
    """

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        """Raises `OutputError` when the folder or the file in it cannot be used."""
        self._model = model
        self._lock = threading.Lock()
        path = folder / "answers.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"The answer cache {path} cannot be used: {error}. Delete the file, or name another folder with --cache."
            ) from error

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._model.card

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `LanguageModel`. Not cached."""
        return self._model.count_tokens(texts)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        if sampling.temperature <= 0 or len({content_key(list(chat)) for chat in chats}) == len(chats):
            return self._through(chats, ["generate", *sampling], lambda part: self._model.generate(part, sampling), _completion)
        # Samples of equal chats are only comparable when drawn in one batch: all of them are known, or all are drawn.
        return self._through(chats, ["generate", *sampling], lambda _: self._model.generate(chats, sampling), _completion, whole=True)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`."""
        return self._through(chats, ["choose", *options], lambda part: self._model.choose(part, options), _choice)

    def _through(
        self,
        chats: Sequence[Chat],
        what: Sequence[object],
        ask: Callable[[Sequence[Chat]], list[Answer | Failure]],
        read: Callable[[dict[str, Any]], Answer],
        *,
        whole: bool = False,
    ) -> list[Answer | Failure]:
        keys = self._keys(chats, what)
        known = self._known(keys, read)
        missing = [i for i, key in enumerate(keys) if key not in known]
        if whole and missing:
            missing = list(range(len(chats)))
        fresh = dict(zip(missing, ask([chats[i] for i in missing]), strict=True)) if missing else {}
        self._store([(keys[i], answer) for i, answer in fresh.items()])
        return [fresh[i] if i in fresh else known[key] for i, key in enumerate(keys)]

    def _keys(self, chats: Sequence[Chat], what: Sequence[object]) -> list[str]:
        seen: dict[str, int] = {}
        keys: list[str] = []
        for chat in chats:
            base = content_key([self.card.reference, self.card.revision, list(what), list(chat)])
            seen[base] = seen.get(base, 0) + 1
            keys.append(f"{base}-{seen[base]}")
        return keys

    def _known(self, keys: Sequence[str], read: Callable[[dict[str, Any]], Answer]) -> dict[str, Answer]:
        with self._lock:
            found = {key: self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys}
        return {key: read(json.loads(row[0])) for key, row in found.items() if row is not None}

    def _store(self, answers: Sequence[tuple[str, Answer | Failure]]) -> None:
        rows = [(key, json.dumps(asdict(answer))) for key, answer in answers if not isinstance(answer, Failure)]
        try:
            with self._lock:
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise OutputError(f"The answer cache cannot be written: {error}.") from error


def _from_cache(usage: Sequence[int]) -> Usage:
    """What a remembered answer costs: no call, and all of its prompt cached."""
    prompt = Usage(*usage).prompt_tokens
    return Usage(calls=0, prompt_tokens=prompt, cached_tokens=prompt)


def _completion(answer: dict[str, Any]) -> Completion:
    return Completion(answer["text"], answer["truncated"], _from_cache(answer["usage"]))


def _choice(answer: dict[str, Any]) -> Choice:
    scores = answer["scores"]
    return Choice(answer["index"], None if scores is None else tuple(scores), _from_cache(answer["usage"]))
