"""OpenAI's Batch API: requests that are answered within a day, at half the price.

A model makes its requests as usual, but they are collected in files and uploaded as batches instead of sent. Once the
answers have arrived, the model repeats the requests and gets those answers. Batched and direct requests are identical.
"""

import json
import sqlite3
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from promptmii.errors import EndpointError, OutputError, PromptMIIError, UnsupportedError
from promptmii.files import private_file, write_text
from promptmii.models.base import Failure, FailureKind, Price, Usage, most_tokens
from promptmii.models.http.config import CHAT
from promptmii.models.http.refusals import RefusedError, error_message, refusal
from promptmii.models.http.retries import Retries
from promptmii.models.http.transport import Server, submit
from promptmii.models.threads import wait_for
from promptmii.task import content_key

T = TypeVar("T")
MOST_REQUESTS, MOST_BYTES = 50_000, 190 << 20
"""Maximum size of one file; the API takes 200 MB."""
ANSWERS = "answers.sqlite"
WINDOW = "24h"
FINAL = ("completed", "expired", "cancelled", "failed")
"""States of a batch in which no more answers come."""


@dataclass(frozen=True)
class Batch:
    """A file of requests, and the state of its batch."""

    file: str
    requests: int
    file_id: str | None = None
    batch_id: str | None = None
    done: int = 0
    collected: bool = False


class Deferred:
    """The requests, batches and answers of one run, stored in a folder. Until `begin`, requests are sent directly."""

    def __init__(self) -> None:
        self.usage = Usage()
        """Upper bound for the usage of the requests collected since `begin`."""
        self._folder = Path()
        self._db: sqlite3.Connection | None = None
        self._server: Server | None = None
        self._files: list[tuple[int, int]] = []
        """Requests and bytes in each file."""

    def attach(self, server: Server) -> None:
        """Set the server that runs the batches."""
        self._server = server

    def check(self) -> None:
        """Raise `UnsupportedError` if the server has no Batch API."""
        try:
            self._call(lambda server: server.get("/batches?limit=1"))
        except EndpointError as error:
            if error.kind != FailureKind.REQUEST:
                raise
            raise UnsupportedError(f"There is no Batch API: {error} Leave out --batch-api.") from error

    def begin(self, folder: Path) -> None:
        """From now on, answer requests from `folder`, and collect those that have no answer yet.

        Raises `OutputError` if the file of answers in it cannot be used.
        """
        self._folder = folder
        with self._storage_errors():
            path = private_file(folder / ANSWERS)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, status INTEGER, body TEXT)")
            self._db.execute("CREATE TEMPORARY TABLE collected (key TEXT PRIMARY KEY)")

    def close(self) -> None:
        """Close the database of answers."""
        if self._db:
            self._db.close()
            self._db = None

    def collects(self, path: str) -> bool:
        """Requests to this path are collected instead of sent."""
        return self._db is not None and path == CHAT

    def answer(self, body: Mapping[str, Any]) -> Any:
        """The answer to a chat completion request. If there is none yet, collect the request; raise `RefusedError`.

        Raises `OutputError` if the request cannot be stored.
        """
        assert self._db
        key = content_key(body)[:40]
        with self._storage_errors():
            row = self._db.execute("SELECT status, body FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None and self._db.execute("INSERT OR IGNORE INTO collected VALUES (?)", (key,)).rowcount:
                self._collect(key, body)
        if row is None:
            raise RefusedError(FailureKind.UNANSWERED, "its batch is not finished", lasting=True)
        status, text = row
        answer = json.loads(text)
        if status == 200:
            return answer
        if not status:
            message = error_message(answer) or "the batch ended first"
            raise RefusedError(FailureKind.UNANSWERED, message, lasting=True)
        error = refusal(status, answer, text)
        if isinstance(error, EndpointError):
            error = RefusedError(FailureKind.REQUEST, str(error))
        error.lasting = True
        raise error

    def _collect(self, key: str, body: Mapping[str, Any]) -> None:
        line = json.dumps({"custom_id": key, "method": "POST", "url": self._endpoint, "body": body}) + "\n"
        if not self._files or self._files[-1][0] >= MOST_REQUESTS or self._files[-1][1] + len(line) > MOST_BYTES:
            self._files.append((0, 0))
            self._request_file(len(self._files)).unlink(missing_ok=True)
        requests, size = self._files[-1]
        self._files[-1] = requests + 1, size + len(line)
        with self._request_file(len(self._files)).open("a", encoding="utf-8") as file:
            file.write(line)
        prompt = sum(most_tokens(message["content"]) for message in body["messages"])
        completion = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        self.usage += Usage(1, prompt, completion)

    def _request_file(self, number: int) -> Path:
        return self._folder / f"requests-{number}.jsonl"

    def most_money(self, price: Price) -> float:
        """The highest possible cost of the collected requests."""
        return price.of(self.usage) or 0.0

    @property
    def batches(self) -> list[Batch]:
        """The batches of this run, in their last known state."""
        path = self._folder / "batches.json"
        return [Batch(**batch) for batch in json.loads(path.read_text("utf-8"))] if path.exists() else []

    def _save(self, batches: list[Batch]) -> None:
        content = json.dumps([asdict(batch) for batch in batches], indent=2)
        write_text(self._folder / "batches.json", content, force=True)

    def submit(self) -> list[Batch]:
        """Submit the collected requests, or continue an interrupted submission. Raises `EndpointError`.

        Saves each step before the next.
        """
        batches = self.batches
        if not batches:
            batches = [Batch(self._request_file(n).name, requests) for n, (requests, _) in enumerate(self._files, 1)]
            self._save(batches)
        for n, batch in enumerate(batches):
            if batch.file_id is None:
                uploaded = self._call(lambda server, batch=batch: server.upload(self._folder / batch.file))
                batches[n] = batch = replace(batch, file_id=uploaded["id"])
                self._save(batches)
            if batch.batch_id is None:
                batch_id = self._call(lambda server, batch=batch: self._create(server, str(batch.file_id)))
                batches[n] = replace(batch, batch_id=batch_id)
                self._save(batches)
        return batches

    async def _create(self, server: Server, file_id: str) -> str:
        """Create the batch of a file, unless an interrupted call already did. Safe to retry."""
        listing = (await server.get("/batches?limit=100")).get("data") or []
        existing = next((batch["id"] for batch in listing if batch.get("input_file_id") == file_id), None)
        body = {"input_file_id": file_id, "endpoint": self._endpoint, "completion_window": WINDOW}
        return existing or (await server.post("/batches", body))["id"]

    @property
    def _endpoint(self) -> str:
        assert self._server
        return urlsplit(self._server.url).path.rstrip("/") + CHAT

    def collect(self) -> list[Batch]:
        """Update the state of each batch, and fetch the answers of those that have ended.

        Raises `EndpointError`, also if the server rejected a whole batch; the next `submit` sends that batch again.
        Raises `OutputError` if the answers cannot be stored.
        """
        batches = self.batches
        rejections: list[str] = []
        for n, batch in enumerate(batches):
            if batch.collected:
                continue
            state = self._call(lambda server, batch=batch: server.get(f"/batches/{batch.batch_id}"))
            counts = state.get("request_counts") or {}
            done = int(counts.get("completed") or 0) + int(counts.get("failed") or 0)
            batches[n] = replace(batch, done=done)
            if state.get("status") in FINAL:
                for name in ("output_file_id", "error_file_id"):
                    if state.get(name):
                        self._fetch(state[name])
                batches[n] = replace(batches[n], collected=True)
            if state.get("status") == "failed":
                batches[n] = Batch(batch.file, batch.requests)
                reason = error_message((state.get("errors") or {}).get("data")) or "no reason given"
                rejections.append(f"The server refused the batch {batch.batch_id}: {reason}.")
            self._save(batches)
        if rejections:
            raise EndpointError(
                f"{' '.join(rejections)} Run the same command again to submit it again.", FailureKind.REQUEST
            )
        return batches

    def _fetch(self, file_id: str) -> None:
        assert self._db
        path = self._folder / "fetched.jsonl"
        with self._storage_errors():
            self._call(lambda server: server.download(f"/files/{file_id}/content", path))
        with self._storage_errors(), self._db:
            self._db.execute("BEGIN")  # or else each of up to 50,000 answers is flushed to disk on its own
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", _answers(path))
        path.unlink()

    @contextmanager
    def _storage_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                f"The answers of the batches cannot be kept in {self._folder / ANSWERS}: {error}. Make room, or delete "
                "the file if it is damaged, and run the same command again."
            ) from error
        except PromptMIIError:
            raise
        except OSError as error:
            raise OutputError(
                f"The batches cannot be kept in {self._folder}: {error.strerror or error}. Make room, and run the same "
                "command again."
            ) from error

    def forget(self) -> None:
        """Delete the batches and their answers after use."""
        if self._db:
            self._db.execute("DELETE FROM answers")
        for path in (self._folder / "batches.json", *self._folder.glob("requests-*.jsonl")):
            path.unlink(missing_ok=True)

    def _call(self, request: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        """The result of a request, with retries. Raises `EndpointError`."""
        assert self._server
        server = self._server
        result = wait_for(submit(Retries(server).run(lambda: request(server))))
        if isinstance(result, Failure):
            raise EndpointError(
                f"The Batch API at {server.url} does not answer: {result.kind}: {result.message}. "
                "Nothing is lost; run the same command again.",
                result.kind,
            )
        return result


def _answers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Key, status and body of each line; status 0 for a request that was never executed."""
    with path.open(encoding="utf-8") as file:
        for line in filter(str.strip, file):
            row = json.loads(line)
            response = row.get("response") or {"status_code": 0, "body": row.get("error")}
            yield row["custom_id"], int(response["status_code"]), json.dumps(response.get("body"))
