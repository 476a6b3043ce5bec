"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted APIs.

One async client on one background event loop, so that it works from scripts, threads and notebooks alike, with one limit on the
requests under way. Retries are ours rather than the client library's, so that waiting and giving up follow the kind of error.
"""

import asyncio
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from typing import Any, TypeVar

import httpx
import openai

from promptmii.errors import EndpointError, UnsupportedError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    FailureKind,
    ModelCard,
    Sampling,
    check_options,
    clocked,
)
from promptmii.models.http import constraints as constraint
from promptmii.models.http import tokens as server_tokens
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.loop import request_limit, submit
from promptmii.models.http.responses import RefusedError, read_completion, refusal, refused_key
from promptmii.models.threads import ending, wait_for

S = TypeVar("S")
T = TypeVar("T")
ASSUMED_CONTEXT = 8192
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent to servers that count tokens: vLLM, SGLang and llama.cpp, whose defaults (`generation_config.json`; top_k 40) would have a say."""
WAITED_FOR = {FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER}
"""Faults that pass by themselves: the server is restarted, or has too much to do."""
TRIED_AGAIN = {FailureKind.TIMEOUT, FailureKind.BAD_ANSWER}
"""Faults that may be chance, but not for long."""
TRIES = 3
LONGEST_PAUSE = 30.0
"""Seconds between two tries, half as many more at most by chance, unless the server asks for more."""
CLOSING = 1.0
"""Seconds to close connections in."""
CONNECT = 10.0
"""Seconds for a connection: a machine that does not answer at all counts as down long before a slow answer does."""


class HttpModel:
    """A model behind HTTP. Use as a context manager, or `close()` it."""

    def __init__(self, name: str, config: HttpConfig | None = None, reference: str | None = None) -> None:
        """`name` as the server knows it, `reference` as the user does. Nothing is sent before the first use of `card` or an answer."""
        self._name = name
        self._reference = reference or f"openai:{name}"
        self._config = config or HttpConfig()
        limit = openai.Timeout(self._config.timeout, connect=min(CONNECT, self._config.timeout))
        self._clients = [
            openai.AsyncOpenAI(
                base_url=url,
                api_key=self._config.key or "none",
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=limit),
            )
            for url in self._config.urls
        ]
        self._slots = request_limit(self._config.urls, self._config.concurrency)
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._card: ModelCard | None = None
        self._dialect: constraint.Dialect | None = None
        self._probed = False
        self._dropped: set[str] = set()
        """Request fields that this server refuses, found out once."""
        self._silent: dict[openai.AsyncOpenAI, float] = {}
        """When each server that does not answer was first found so."""
        self._counts = server_tokens.Memory()

    def __enter__(self) -> "HttpModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is under way and close the connections."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            pending = list(self._pending)
        for future in pending:
            future.cancel()
        wait([submit(self._close_clients())], timeout=CLOSING)

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work on the event loop. Raises `EndpointError` when the model is, or gets, closed."""
        with self._closing:
            if self._closed:
                work.close()
                raise self._was_closed()
            future = submit(work)
            self._pending.add(future)
        try:
            return wait_for(future)
        except CancelledError:
            if self._closed:
                raise self._was_closed() from None
            raise
        finally:
            self._pending.discard(future)

    def _was_closed(self) -> EndpointError:
        return EndpointError(f"{self._reference} was closed. Load it again.")

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`. The first use asks the server for its context length. Raises `EndpointError` when it is not there."""
        if self._closed:
            raise self._was_closed()
        with self._lock:
            if self._card is None:
                said = self._run(self._context_length())
                exact = self._run(self._counts_tokens())
                revision = f"{','.join(self._config.urls)} {self._name}"
                self._card = ModelCard(
                    self._reference,
                    revision,
                    said or ASSUMED_CONTEXT,
                    gives_scores=False,
                    exact_tokens=exact,
                    concurrency=self._config.concurrency,
                    context_assumed=said is None,
                )
            return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counted by the server where it can (vLLM, SGLang, llama.cpp), else estimated. Raises `EndpointError` when it stops counting."""
        if not self.card.exact_tokens:
            return [server_tokens.estimate(text) for text in texts]
        counts = self._counts.known(texts)
        missing = list(dict.fromkeys(text for text in texts if text not in counts))
        fresh = dict(zip(missing, self._run(self._gather(self._count, missing)), strict=True))
        self._counts.keep(fresh)
        counts |= fresh
        return [counts[text] for text in texts]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`. Raises `EndpointError` when the server is not there or refuses the key."""
        _ = self.card  # says whether the server counts tokens
        started = time.perf_counter()

        def write(numbered: tuple[int, Chat]) -> Coroutine[Any, Any, Completion | Failure]:
            return self._complete(numbered[1], sampling._replace(seed=sampling.seed + numbered[0]), {})

        return clocked(self._run(self._gather(write, _numbered(chats))), time.perf_counter() - started)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`, without scores. Raises `UnsupportedError` where no constraint holds."""
        check_options(options)
        dialect = self.dialect()
        if dialect is None:
            raise UnsupportedError(
                f"The server behind openai:{self._name} enforces no choice of labels "
                f"(tried: {', '.join(constraint.Dialect)}). Use --mode generate."
            )
        started = time.perf_counter()
        answers = self._run(self._gather(lambda chat: self._choose(chat, options, dialect), chats))
        return clocked(answers, time.perf_counter() - started)

    def dialect(self) -> constraint.Dialect | None:
        """The constraint that this server really enforces, found by a probe at the first use; `None` where none holds."""
        _ = self.card
        with self._lock:
            if not self._probed:
                self._dialect = self._run(self._probe())
                self._probed = True
            return self._dialect

    async def _gather(self, ask: Callable[[S], Coroutine[Any, Any, T]], given: Sequence[S]) -> list[T]:
        """All answers in order. The first error that no call could survive ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(one)) for one in given]
        except* EndpointError as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _probe(self) -> constraint.Dialect | None:
        for dialect in constraint.Dialect:
            answer = await self._choose(constraint.PROBE, constraint.PROBE_OPTIONS, dialect)
            if isinstance(answer, Choice):
                return dialect
            if answer.kind not in (FailureKind.BAD_ANSWER, FailureKind.REQUEST):
                message = (
                    f"The server behind openai:{self._name} did not answer the probe: {answer.kind}: {answer.message}"
                )
                raise EndpointError(message, answer.kind)
        return None

    async def _choose(self, chat: Chat, options: Sequence[str], dialect: constraint.Dialect) -> Choice | Failure:
        sampling = Sampling(max_tokens=constraint.room(options))
        answer = await self._complete(chat, sampling, constraint.fields(dialect, options))
        if isinstance(answer, Failure):
            return answer
        index = constraint.read(dialect, answer.text, options)
        if index is None:
            return Failure(
                FailureKind.BAD_ANSWER, f"{answer.text[:80]!r} is none of the {len(options)} options", answer.usage
            )
        return Choice(index, None, answer.usage)

    async def _complete(self, chat: Chat, sampling: Sampling, extra: dict[str, Any]) -> Completion | Failure:
        client = self._client(chat)
        return await self._patiently(client, lambda: self._request(client, chat, sampling, extra))

    async def _count(self, text: str) -> int:
        client = self._clients[len(text) % len(self._clients)]
        count = await self._patiently(client, lambda: self._ask_count(client, text))
        if isinstance(count, Failure):
            message = f"The server behind openai:{self._name} stopped counting tokens ({count.kind}: {count.message})."
            raise EndpointError(message, count.kind)
        return count

    async def _counts_tokens(self) -> bool:
        """Every server has a tokenizer endpoint."""
        try:
            return all([await self._ask_count(client, "hello") for client in self._clients])
        except (RefusedError, EndpointError):
            return False

    async def _ask_count(self, client: openai.AsyncOpenAI, text: str) -> int:
        address = server_tokens.address(str(client.base_url))
        answer = await self._post(client, address, server_tokens.fields(self._name, text))
        count = server_tokens.read(answer)
        if count is None:
            raise RefusedError(
                Failure(FailureKind.BAD_ANSWER, f"{address} answered {answer.text[:80]!r} instead of a list of tokens")
            )
        return count

    async def _patiently(
        self, client: openai.AsyncOpenAI, request: Callable[[], Coroutine[Any, Any, T]]
    ) -> T | Failure:
        """What a request gives, tried again by kind of fault.

        Patience runs from the call's first fault, however long it waited for a slot, or from when its server stopped answering anyone:
        calls that come late to a server that is gone do not each wait for it anew.
        """
        faults: Counter[FailureKind] = Counter()
        since = math.inf
        while True:
            try:
                async with self._slots:
                    if ending():  # the slot came free because another request was cancelled
                        raise asyncio.CancelledError
                    result = await request()
                self._silent.pop(client, None)
                return result
            except RefusedError as refused:
                now = time.monotonic()
                failure = refused.failure
                faults[failure.kind] += 1
                since = min(since, now)
                waited = now - min(since, self._silent.setdefault(client, now) if failure.kind in WAITED_FOR else now)
                pause = self._pause(refused, faults, self._config.patience - waited)
                if pause is None:
                    return (
                        replace(failure, message=f"{failure.message} (for {waited:.0f} s)") if waited >= 1 else failure
                    )
            await asyncio.sleep(pause)

    def _pause(self, refused: RefusedError, faults: Counter[FailureKind], left: float) -> float | None:
        """Seconds until the next try, with `left` seconds of patience; `None` where there is none."""
        kind = refused.failure.kind
        grown = min(self._config.backoff * 2.0 ** min(faults.total() - 1, 16), LONGEST_PAUSE) * (0.5 + random.random())
        if kind in TRIED_AGAIN:
            return grown if faults[kind] < TRIES and not refused.lasting else None
        pause = min(grown, left) if refused.wait is None else refused.wait
        return pause if kind in WAITED_FOR and 0 < left >= pause else None

    async def _request(
        self, client: openai.AsyncOpenAI, chat: Chat, sampling: Sampling, extra: dict[str, Any]
    ) -> Completion:
        body = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "max_tokens": sampling.max_tokens,
        } | extra
        if self._card and self._card.exact_tokens:
            body |= NEUTRAL
        if "max_tokens" in self._dropped:
            body["max_completion_tokens"] = body["max_tokens"]
        body = {name: value for name, value in body.items() if name not in self._dropped}
        try:
            answer = await self._post(client, "/chat/completions", {"model": self._name, "messages": list(chat)} | body)
        except RefusedError as refused:
            if self._drop(refused.failure, body):
                return await self._request(client, chat, sampling, extra)
            raise
        return read_completion(answer)

    async def _post(self, client: openai.AsyncOpenAI, address: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return await client.post(address, cast_to=httpx.Response, body=body)
        except openai.APIStatusError as error:
            raise refusal(error, self._name) from error
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            if isinstance(error, openai.APITimeoutError) and cause != "ConnectTimeout":
                raise RefusedError(
                    Failure(FailureKind.TIMEOUT, f"no answer within {self._config.timeout:g} s")
                ) from error
            raise RefusedError(
                Failure(FailureKind.CONNECTION, f"no connection to {client.base_url}: {cause}")
            ) from error

    def _drop(self, failure: Failure, body: dict[str, Any]) -> bool:
        """Some models refuse `seed`, `temperature` or `max_tokens`: leave out, from then on, what a refusal names."""
        droppable = [*NEUTRAL, "max_tokens", "seed", "top_p", "temperature"]
        named = [name for name in droppable if name in body and f"'{name}'" in failure.message]
        if failure.kind is not FailureKind.REQUEST or not named:
            return False
        self._dropped.add(named[0])
        return True

    def _client(self, chat: Chat) -> openai.AsyncOpenAI:
        """Chats that begin alike go to the same server, whose cache then holds the beginning."""
        beginning = chat[0]["content"][:256]
        return self._clients[sum(beginning.encode()) % len(self._clients)]

    async def _context_length(self) -> int | None:
        """As the user says, or the server's model list; `None` where neither does. Every server must answer."""
        lengths = [await self._describe(client) for client in self._clients]
        known = [length for length in lengths if length]
        return self._config.context_length or min(known, default=None)

    async def _describe(self, client: openai.AsyncOpenAI) -> int | None:
        try:
            listing = (await client.get("/models", cast_to=httpx.Response)).json()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise refused_key(self._name) from error
            return None  # a server without a model list
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"No server answers at {client.base_url} ({type(error.__cause__).__name__}). "
                "Start it, or correct --base-url (or OPENAI_BASE_URL).",
                FailureKind.CONNECTION,
            ) from error
        except ValueError:
            return None
        return server_tokens.context_length(listing, self._name)


def _numbered(chats: Sequence[Chat]) -> list[tuple[int, Chat]]:
    """Each chat with its ordinal among equal ones, so that samples of one chat differ and others do not depend on the batch."""
    seen: dict[str, int] = {}
    numbered: list[tuple[int, Chat]] = []
    for chat in chats:
        key = repr(list(chat))
        numbered.append((seen.get(key, 0), chat))
        seen[key] = seen.get(key, 0) + 1
    return numbered
