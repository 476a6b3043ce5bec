"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted APIs.

One async client on one background event loop, so that it works from scripts, threads and notebooks alike, with one limit on the
requests under way. Retries are ours rather than the client library's, so that waiting and giving up follow the kind of error.
"""

import asyncio
import email.utils
import itertools
import os
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import openai

from promptmii.errors import EndpointError, UnsupportedError
from promptmii.models import constraint
from promptmii.models.base import Chat, Choice, Completion, Failure, FailureKind, ModelCard, Sampling, Usage, check_options, clocked
from promptmii.models.server_tokens import TokenCounts, estimate

T = TypeVar("T")
ASSUMED_CONTEXT = 8192
HOSTED = "https://api.openai.com/v1"
WAITED_FOR = {FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER}
"""Faults that pass by themselves: the server is restarted, or has too much to do."""
TRIED_AGAIN = {FailureKind.TIMEOUT, FailureKind.BAD_ANSWER}
"""Faults that may be chance, but not for long."""
TRIES = 3
LONGEST_PAUSE = 30.0
"""Seconds between two tries, unless the server asks for more."""


@dataclass(frozen=True)
class HttpConfig:
    """How to reach a server. The key is kept out of `repr`, errors, caches and artefacts."""

    base_url: str | None = None
    """Several, comma-separated, share one limit; a chat prefix always goes to the same one. `None`: OPENAI_BASE_URL, or the hosted API."""
    api_key: str | None = field(default=None, repr=False)
    """`None`: OPENAI_API_KEY."""
    concurrency: int = 16
    timeout: float = 120.0
    """Seconds for one request."""
    patience: float = 300.0
    """Seconds that a call waits for a server that is down, busy or failing, before it counts as failed."""
    backoff: float = 0.5
    """Seconds before the second try; doubled each time, unless the server says when to come back."""
    context_length: int | None = None

    @property
    def urls(self) -> list[str]:
        """The servers' addresses."""
        given = self.base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
        return [url.strip().rstrip("/") for url in given.split(",") if url.strip()]


class _RefusedError(Exception):
    """A call that gave no answer, on its way up; `wait` is the pause in seconds that the server asks for."""

    def __init__(self, failure: Failure, wait: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.wait = wait


class HttpModel:
    """A model behind HTTP. Use as a context manager, or `close()` it."""

    def __init__(self, name: str, config: HttpConfig | None = None) -> None:
        """`name` as the server knows it. Nothing is sent before the first use of `card` or an answer."""
        self._name = name
        self._config = config or HttpConfig()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="promptmii-http", daemon=True)
        self._thread.start()
        key = self._config.api_key or os.environ.get("OPENAI_API_KEY") or "none"
        self._clients = [
            openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=self._config.timeout) for url in self._config.urls
        ]
        self._slots = asyncio.Semaphore(self._config.concurrency)
        self._lock = threading.Lock()
        self._card: ModelCard | None = None
        self._dialect: constraint.Dialect | None = None
        self._probed = False
        self._dropped: set[str] = set()
        """Request fields that this server refuses, found out once."""
        self._counts = TokenCounts(name, self._clients)

    def __enter__(self) -> "HttpModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and stop the background loop."""
        if self._loop.is_closed():
            return
        self._run(self._close_clients())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`. The first use asks the server for its context length. Raises `EndpointError` when it is not there."""
        with self._lock:
            if self._card is None:
                length = self._run(self._context_length())
                exact = self._run(self._counts.probe())
                revision = f"{','.join(self._config.urls)} {self._name}"
                reference = f"openai:{self._name}"
                self._card = ModelCard(
                    reference, revision, length, gives_scores=False, exact_tokens=exact, concurrency=self._config.concurrency
                )
            return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counted by the server where it has an endpoint for it (vLLM, llama.cpp), else estimated. Raises `EndpointError`."""
        return self._run(self._gather([self._counts(text) for text in texts])) if self.card.exact_tokens else [*map(estimate, texts)]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`. Raises `EndpointError` when the server is not there or refuses the key."""
        started = time.perf_counter()
        work = [self._complete(chat, sampling._replace(seed=sampling.seed + i), {}) for i, chat in _numbered(chats)]
        return clocked(self._run(self._gather(work)), time.perf_counter() - started)

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
        return clocked(self._run(self._gather([self._choose(chat, options, dialect) for chat in chats])), time.perf_counter() - started)

    def dialect(self) -> constraint.Dialect | None:
        """The constraint that this server really enforces, found by a probe at the first use; `None` where none holds."""
        _ = self.card
        with self._lock:
            if not self._probed:
                self._dialect = self._run(self._probe())
                self._probed = True
            return self._dialect

    async def _gather(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """All answers in order. The first error that no call could survive ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in work]
        except* EndpointError as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _probe(self) -> constraint.Dialect | None:
        for dialect in constraint.Dialect:
            answer = await self._choose(constraint.PROBE, constraint.PROBE_OPTIONS, dialect)
            if isinstance(answer, Choice):
                return dialect
            if answer.kind not in (FailureKind.BAD_ANSWER, FailureKind.REQUEST):
                raise EndpointError(f"The server behind openai:{self._name} did not answer the probe: {answer.kind}: {answer.message}")
        return None

    async def _choose(self, chat: Chat, options: Sequence[str], dialect: constraint.Dialect) -> Choice | Failure:
        room = 16 + max(len(option.encode()) for option in options)
        answer = await self._complete(chat, Sampling(max_tokens=room), constraint.fields(dialect, options))
        if isinstance(answer, Failure):
            return answer
        index = constraint.read(dialect, answer.text, options)
        if index is None:
            return Failure(FailureKind.BAD_ANSWER, f"{answer.text[:80]!r} is none of the {len(options)} options", answer.usage)
        return Choice(index, None, answer.usage)

    async def _complete(self, chat: Chat, sampling: Sampling, extra: dict[str, Any]) -> Completion | Failure:
        """One answer, with retries by kind of error."""
        deadline = time.monotonic() + self._config.patience
        for attempt in itertools.count(1):
            try:
                async with self._slots:
                    return await self._request(chat, sampling, extra)
            except _RefusedError as refused:
                grown = min(self._config.backoff * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE) * (0.5 + random.random())
                pause = grown if refused.wait is None else refused.wait
                kind = refused.failure.kind
                again = attempt < TRIES if kind in TRIED_AGAIN else kind in WAITED_FOR and time.monotonic() + pause < deadline
                if not again:
                    return refused.failure
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _request(self, chat: Chat, sampling: Sampling, extra: dict[str, Any]) -> Completion:
        body = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "max_tokens": sampling.max_tokens,
        } | extra
        if "max_tokens" in self._dropped:
            body["max_completion_tokens"] = body["max_tokens"]
        body = {name: value for name, value in body.items() if name not in self._dropped}
        try:
            answer = await self._client(chat).post(
                "/chat/completions", cast_to=httpx.Response, body={"model": self._name, "messages": list(chat)} | body
            )
        except openai.APIStatusError as error:
            if self._drop(error, body):
                return await self._request(chat, sampling, extra)
            raise _refusal(error, self._name) from error
        except openai.APITimeoutError as error:
            raise _RefusedError(Failure(FailureKind.TIMEOUT, f"no answer within {self._config.timeout:g} s")) from error
        except openai.APIConnectionError as error:
            raise _RefusedError(Failure(FailureKind.CONNECTION, f"the connection broke: {type(error.__cause__).__name__}")) from error
        return _read(answer)

    def _drop(self, error: openai.APIStatusError, body: dict[str, Any]) -> bool:
        """Some hosted models refuse `seed`, `temperature` or `max_tokens`: leave out, from then on, what a 400 names."""
        if error.status_code != 400:
            return False
        named = [name for name in ("max_tokens", "seed", "top_p", "temperature") if name in body and f"'{name}'" in str(error)]
        self._dropped.update(named[:1])
        return bool(named)

    def _client(self, chat: Chat) -> openai.AsyncOpenAI:
        """Chats that begin alike go to the same server, whose cache then holds the beginning."""
        beginning = chat[0]["content"][:256]
        return self._clients[sum(beginning.encode()) % len(self._clients)]

    async def _context_length(self) -> int:
        """From the server's model list where it says; every server must answer."""
        lengths = [await self._describe(client) for client in self._clients]
        known = [length for length in lengths if length]
        return self._config.context_length or (min(known) if known else ASSUMED_CONTEXT)

    async def _describe(self, client: openai.AsyncOpenAI) -> int | None:
        try:
            listing = (await client.get("/models", cast_to=httpx.Response)).json()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise _refused_key(self._name) from error
            return None  # a server without a model list
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"No server answers at {client.base_url} ({type(error.__cause__).__name__}). "
                "Start it, or correct --base-url (or OPENAI_BASE_URL)."
            ) from error
        except ValueError:
            return None
        for entry in listing.get("data", []) if isinstance(listing, dict) else []:
            if isinstance(entry, dict) and entry.get("id") == self._name:
                length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx_train")
                return int(length) if length else None
        return None


def _numbered(chats: Sequence[Chat]) -> list[tuple[int, Chat]]:
    """Each chat with its ordinal among equal ones, so that samples of one chat differ and others do not depend on the batch."""
    seen: dict[str, int] = {}
    numbered: list[tuple[int, Chat]] = []
    for chat in chats:
        key = repr(list(chat))
        numbered.append((seen.get(key, 0), chat))
        seen[key] = seen.get(key, 0) + 1
    return numbered


def _refused_key(name: str) -> EndpointError:
    return EndpointError(f"The server behind openai:{name} refuses the key. Set OPENAI_API_KEY to a valid one.")


def _refusal(error: openai.APIStatusError, name: str) -> _RefusedError | EndpointError:
    """What an HTTP status means. A refused key or an unknown model can work for no call, so these are errors."""
    status, message = error.status_code, str(error.message)[:300]
    if status in (401, 403):
        return _refused_key(name)
    if status == 404:
        return EndpointError(f"The server does not know the model {name!r}: {message}")
    if status == 400 and any(word in message.casefold() for word in ("context length", "context size", "too long", "maximum context")):
        return _RefusedError(Failure(FailureKind.CONTEXT, message))
    if status == 429:
        return _RefusedError(Failure(FailureKind.RATE_LIMIT, message), _retry_after(error.response))
    if status >= 500 or status == 408:
        return _RefusedError(Failure(FailureKind.SERVER, f"HTTP {status}: {message}"), _retry_after(error.response))
    return _RefusedError(Failure(FailureKind.REQUEST, f"HTTP {status}: {message}"))


def _retry_after(response: Any) -> float | None:
    given = response.headers.get("retry-after")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        moment = email.utils.parsedate_tz(given)
        if moment is None:
            return None  # neither seconds nor a date: wait as if nothing had been said
        seconds = email.utils.mktime_tz(moment) - time.time()
    return min(max(seconds, 0.0), 120.0)


def _read(response: httpx.Response) -> Completion:
    """The completion in a response. Raises `_RefusedError` on half a JSON, an error body under HTTP 200, or no choice."""
    try:
        body: Any = response.json()
    except ValueError as error:
        raise _RefusedError(Failure(FailureKind.BAD_ANSWER, f"not JSON: {response.text[:80]!r}")) from error
    if not isinstance(body, dict) or body.get("error"):
        raise _RefusedError(Failure(FailureKind.SERVER, f"an error under HTTP 200: {str(body)[:200]}"))
    choices: list[dict[str, Any]] = body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    text = message.get("content")
    if not isinstance(text, str):
        thought = message.get("reasoning_content") or message.get("reasoning")
        reason = "only thinking, and no answer: switch thinking off" if thought else "an answer without text"
        raise _RefusedError(Failure(FailureKind.BAD_ANSWER, reason))
    usage = body.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    counts = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, details.get("cached_tokens") or 0)
    return Completion(text, choices[0].get("finish_reason") == "length", Usage(1, *counts))
