"""Requests that are answered within a day, at half the price: OpenAI's Batch API.

A model makes its requests as ever. Here they are kept instead of sent, go up as a file, and are looked up once the
answers are there; so a request of a batch is byte for byte the one that would have been sent directly.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from promptmii.errors import EndpointError, UnsupportedError
from promptmii.files import private_file, write_text
from promptmii.models.base import Failure, FailureKind, Price, Usage, most_tokens
from promptmii.models.http.config import CHAT, HttpConfig
from promptmii.models.http.refusals import RefusedError, refusal, words_of
from promptmii.models.http.transport import Outages, Retries, Server, submit
from promptmii.models.threads import wait_for
from promptmii.task import content_key

T = TypeVar("T")
MOST_REQUESTS, MOST_BYTES = 50_000, 190 << 20
"""Of one file; the API takes 200 MB."""
WINDOW = "24h"
OVER = ("completed", "expired", "cancelled", "failed")
"""States in which nothing more comes."""


@dataclass(frozen=True)
class Batch:
    """A file of requests on its way."""

    file: str
    requests: int
    file_id: str | None = None
    batch_id: str | None = None
    done: int = 0
    collected: bool = False


class Deferred:
    """The requests of one run, their batches and their answers, in a folder. Until `begin`, all go out directly."""

    def __init__(self) -> None:
        self.usage = Usage()
        """The most that the requests kept since `begin` can consume."""
        self._folder = Path()
        self._db: sqlite3.Connection | None = None
        self._server: Server | None = None
        self._config = HttpConfig()
        self._sizes: list[tuple[int, int]] = []

    def attach(self, server: Server, config: HttpConfig) -> None:
        """Where batches go."""
        self._server, self._config = server, config

    def check(self) -> None:
        """Raise `UnsupportedError` if the server has no Batch API."""
        try:
            self._ask(lambda server: server.get("/batches?limit=1"))
        except EndpointError as error:
            if error.kind != FailureKind.REQUEST:
                raise
            raise UnsupportedError(f"There is no Batch API: {error} Leave --batch-api out.") from error

    def begin(self, folder: Path) -> None:
        """From now on keep requests in `folder`, and answer those whose answers are there."""
        self._folder = folder
        self._db = sqlite3.connect(
            private_file(folder / "answers.sqlite"), check_same_thread=False, isolation_level=None
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, status INTEGER, body TEXT)")
        self._db.execute("CREATE TEMPORARY TABLE kept (key TEXT PRIMARY KEY)")

    def close(self) -> None:
        """Close the file of answers."""
        if self._db:
            self._db.close()
            self._db = None

    def holds(self, path: str) -> bool:
        """Requests to this path are kept."""
        return self._db is not None and path == CHAT

    def answer(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request. Raises `RefusedError` where there is none yet, and keeps the request."""
        assert self._db
        key = content_key(body)[:40]
        found = self._db.execute("SELECT status, body FROM answers WHERE key = ?", (key,)).fetchone()
        if found is None:
            if self._db.execute("INSERT OR IGNORE INTO kept VALUES (?)", (key,)).rowcount:
                self._keep(path, key, body)
            raise RefusedError(Failure(FailureKind.UNANSWERED, "it waits for its batch"), lasting=True)
        status, said = found[0], json.loads(found[1])
        if status == 200:
            return said
        if not status:
            raise RefusedError(
                Failure(FailureKind.UNANSWERED, words_of(said) or "the batch ended before"), lasting=True
            )
        refused = refusal(status, said, found[1])
        if isinstance(refused, EndpointError):
            raise RefusedError(Failure(FailureKind.REQUEST, str(refused)), lasting=True)
        raise RefusedError(refused.failure, lasting=True, body=refused.body)

    def _keep(self, path: str, key: str, body: Mapping[str, Any]) -> None:
        line = json.dumps({"custom_id": key, "method": "POST", "url": self._path(path), "body": body}) + "\n"
        if not self._sizes or self._sizes[-1][0] >= MOST_REQUESTS or self._sizes[-1][1] + len(line) > MOST_BYTES:
            self._sizes.append((0, 0))
            self._file(len(self._sizes)).unlink(missing_ok=True)
        number, size = self._sizes[-1]
        self._sizes[-1] = number + 1, size + len(line)
        with self._file(len(self._sizes)).open("a", encoding="utf-8") as file:
            file.write(line)
        prompt = sum(map(most_tokens, (message["content"] for message in body["messages"])))
        written = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        self.usage += Usage(1, prompt, written)

    def _file(self, number: int) -> Path:
        return self._folder / f"requests-{number}.jsonl"

    def most_money(self, price: Price) -> float:
        """What the kept requests cost at most."""
        return price.of(self.usage) or 0.0

    @property
    def batches(self) -> list[Batch]:
        """Those of this run, as far as they have come."""
        path = self._folder / "batches.json"
        return [Batch(**one) for one in json.loads(path.read_text("utf-8"))] if path.exists() else []

    def _save(self, batches: list[Batch]) -> None:
        write_text(self._folder / "batches.json", json.dumps([asdict(one) for one in batches], indent=2), force=True)

    def submit(self) -> list[Batch]:
        """Send what was kept, or go on with sending, each step on the disk before the next. Raises `EndpointError`."""
        batches = self.batches
        if not batches:
            batches = [Batch(self._file(n).name, size[0]) for n, size in enumerate(self._sizes, 1)]
            self._save(batches)
        for n, batch in enumerate(batches):
            if batch.file_id is None:
                batches[n] = batch = replace(batch, file_id=self._uploaded(self._folder / batch.file))
                self._save(batches)
            if batch.batch_id is None:
                made = self._ask(lambda server, one=batch: self._created(server, str(one.file_id)))
                batches[n] = replace(batch, batch_id=made)
                self._save(batches)
        return batches

    def _uploaded(self, path: Path) -> str:
        return self._ask(lambda server: server.upload(path))["id"]

    async def _created(self, server: Server, file_id: str) -> str:
        """The batch of a file: one that was made and not noted, or a new one. As a whole it can be tried again."""
        listed = (await server.get("/batches?limit=100")).get("data") or []
        known = next((one["id"] for one in listed if one.get("input_file_id") == file_id), None)
        body = {"input_file_id": file_id, "endpoint": self._path(CHAT), "completion_window": WINDOW}
        return known or (await server.post("/batches", body))["id"]

    def _path(self, path: str) -> str:
        return urlsplit(self._server.url).path.rstrip("/") + path if self._server else path

    def collect(self) -> list[Batch]:
        """Ask how far each batch has come, and fetch the answers of those that are over.

        Raises `EndpointError`, also where a batch was refused as a whole: it alone is then submitted again.
        """
        batches = self.batches
        refusals: list[str] = []
        for n, batch in enumerate(batches):
            if batch.collected:
                continue
            said = self._ask(lambda server, one=batch: server.get(f"/batches/{one.batch_id}"))
            counts = said.get("request_counts") or {}
            batches[n] = batch = replace(batch, done=int(counts.get("completed") or 0) + int(counts.get("failed") or 0))
            if said.get("status") in OVER:
                for name in ("output_file_id", "error_file_id"):
                    if said.get(name):
                        self._fetch(said[name])
                refused = said["status"] == "failed"
                batches[n] = Batch(batch.file, batch.requests) if refused else replace(batch, collected=True)
                refusals += [_refusal(batch, said)] * refused
            self._save(batches)
        if refusals:
            raise EndpointError(
                f"{' '.join(refusals)} Run the same command again to submit it anew.", FailureKind.REQUEST
            )
        return batches

    def _fetch(self, file_id: str) -> None:
        assert self._db
        path = self._folder / "fetched.jsonl"
        self._ask(lambda server: server.download(f"/files/{file_id}/content", path))
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", _answers(path))
        path.unlink()

    def forget(self) -> None:
        """Batches and answers have done their work."""
        if self._db:
            self._db.execute("DELETE FROM answers")
        for path in (self._folder / "batches.json", *self._folder.glob("requests-*.jsonl")):
            path.unlink(missing_ok=True)

    def _ask(self, request: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        return wait_for(submit(self._patiently(request)))

    async def _patiently(self, request: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        assert self._server
        retries = Retries(self._config, self._server, Outages())
        while True:
            try:
                return await request(self._server)
            except RefusedError as refused:
                step = retries.after(refused)
                if isinstance(step, Failure):
                    raise EndpointError(
                        f"The Batch API at {self._server.url} does not answer: {step.kind}: {step.message}. "
                        "Nothing is lost; run the same command again.",
                        step.kind,
                    ) from refused
            await asyncio.sleep(step)


def _answers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Key, status and body of each line; status 0 for a request that was never made."""
    with path.open(encoding="utf-8") as file:
        for line in filter(str.strip, file):
            row = json.loads(line)
            response = row.get("response")
            if response:
                yield row["custom_id"], int(response["status_code"]), json.dumps(response.get("body"))
            else:
                yield row["custom_id"], 0, json.dumps(row.get("error"))


def _refusal(batch: Batch, said: Mapping[str, Any]) -> str:
    reasons = (said.get("errors") or {}).get("data") or []
    return f"The server refused the batch {batch.batch_id}: {words_of(reasons) or 'no reason given'}."
