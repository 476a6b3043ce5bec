"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted APIs.

All requests of a process run on one background event loop, with one limit on those under way.
"""

import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from typing import Any, TypeVar

from promptmii.errors import EndpointError, UnsupportedError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    FailureKind,
    LanguageModel,
    ModelCard,
    Sampling,
    check_options,
    clocked,
)
from promptmii.models.http import constraints, tokens
from promptmii.models.http.completions import Completions
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.llama_server import LLAMA
from promptmii.models.http.prompt_logprobs import VLLM
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.top_logprobs import FIRST
from promptmii.models.http.transport import Outages, Retries, Server, request_limit, submit
from promptmii.models.http.ways import FIRST_TOKENS, Way
from promptmii.models.threads import ending, wait_for

S = TypeVar("S")
T = TypeVar("T")
ASSUMED_CONTEXT = 8192
CLOSING = 1.0
"""Seconds to close connections in."""


class HttpModel(LanguageModel):
    """A model behind HTTP. Use as a context manager, or `close()` it."""

    def __init__(self, name: str, config: HttpConfig | None = None, reference: str | None = None) -> None:
        """`name` as the server knows it, `reference` as the user does. Nothing is sent yet.

        Raises `ConfigError` or `EndpointError` if address, key, proxy or certificates cannot be used.
        """
        self._name = name.removesuffix(FIRST_TOKENS)
        self._ways = (FIRST,) if name != self._name else (LLAMA, VLLM)
        self._reference = reference or f"openai:{name}"
        self._config = config or HttpConfig()
        self._servers = [Server(url, self._config) for url in self._config.urls]
        if self._config.deferred:
            self._config.deferred.attach(self._servers[0], self._config)
        self._slots = self._config.slots or request_limit(self._config.urls, self._config.concurrency)
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._closing = threading.Lock()
        self._lock = threading.Lock()
        self._card: ModelCard | None = None
        self._way: tuple[Way, int] | None = None
        """How likelihoods are had from every server, and the token that closes an answer."""
        self._read: dict[str, Any] = {}
        """Options as the model sees them."""
        self._dialect: constraints.Dialect | None = None
        self._probed = False
        self._warned = False
        self._completions = Completions(self._name)
        self._outages = Outages()
        self._counts = tokens.Memory()

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
        wait([submit(server.close()) for server in self._servers], timeout=CLOSING)

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
        """The first use asks the servers. Raises `EndpointError` if one is not there."""
        if self._closed:
            raise self._was_closed()
        with self._lock:
            if self._card is None:
                lengths = self._run(self._gather(self._context_length, self._servers))
                exact = all(self._run(self._gather(self._counts_tokens, self._servers)))
                self._way = self._found_way(exact=exact)
                where = self._config.served_by or ",".join(self._config.urls)
                said = self._config.context_length or min((length for length in lengths if length), default=None)
                self._card = ModelCard(
                    self._reference,
                    f"{where} {self._name}{f' {self._way[0].name}' if self._way else ''}",
                    said or ASSUMED_CONTEXT,
                    gives_scores=self._way is not None,
                    exact_tokens=exact,
                    concurrency=self._config.concurrency,
                    context_assumed=said is None,
                )
            return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counted by the server if it can (vLLM, SGLang, llama.cpp), else estimated.

        Raises `EndpointError` if it stops counting.
        """
        if not self.card.exact_tokens:
            return [tokens.estimate(text) for text in texts]
        counts = self._counts.known(texts)
        missing = list(dict.fromkeys(text for text in texts if text not in counts))
        fresh = dict(zip(missing, self._run(self._gather(self._count, missing)), strict=True))
        self._counts.keep(fresh)
        counts |= fresh
        return [counts[text] for text in texts]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Raises `EndpointError` when the server is not there or refuses the key."""
        _ = self.card  # asks each server whether it is there, and what it can
        started = time.perf_counter()

        equal: dict[str, list[int]] = {}
        for position, chat in enumerate(chats):
            equal.setdefault(repr(list(chat)), []).append(position)
        places = list(equal.values())
        found = self._run(self._gather(lambda some: self._samples(chats[some[0]], len(some), sampling), places))
        by_place = {i: one for some, own in zip(places, found, strict=True) for i, one in zip(some, own, strict=True)}
        answers = [by_place[i] for i in range(len(chats))]
        if "temperature" in self._completions.dropped and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._reference} refuses `temperature`. It uses its own, so answers differ from run to run.",
                stacklevel=2,
            )
        return clocked(answers, time.perf_counter() - started)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Scores where the server has likelihoods. Raises `UnsupportedError` if nothing holds."""
        check_options(options)
        _ = self.card
        return self._scored(chats, options, *self._way) if self._way else self._constrained(chats, options)

    def _scored(self, chats: Sequence[Chat], options: Sequence[str], way: Way, end: int) -> list[Choice | Failure]:
        started = time.perf_counter()
        answers = self._answers(options, way, end)
        if isinstance(answers, Failure) and way is FIRST and answers.kind is FailureKind.REQUEST:
            raise UnsupportedError(
                f"{self._reference}: {answers.message}. Leave {FIRST_TOKENS} out, or rename the labels."
            )
        if isinstance(answers, Failure):
            return [answers for _ in chats]

        def score(chat: Chat) -> Coroutine[Any, Any, Choice | Failure]:
            server = self._server(chat)
            return self._patiently(server, lambda: way.score(server, self._name, chat, answers))

        return clocked(self._run(self._gather(score, chats)), time.perf_counter() - started)

    def _answers(self, options: Sequence[str], way: Way, end: int) -> Any:
        """The options as this way compares them, or the failure to read one. Each is read once."""
        first = self._servers[0]

        def read(option: str) -> Coroutine[Any, Any, Any]:
            return self._patiently(first, lambda: way.read(first, self._name, option))

        missing = [option for option in options if option not in self._read]
        fresh = self._run(self._gather(read, missing)) if missing else []
        if failure := next((one for one in fresh if isinstance(one, Failure)), None):
            return failure
        self._read |= zip(missing, fresh, strict=True)
        try:
            return way.join(options, [self._read[option] for option in options], end)
        except RefusedError as refused:
            return refused.failure

    def _constrained(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        dialect = self.dialect()
        if dialect is None:
            raise UnsupportedError(
                f"The server behind {self._reference} enforces no choice of labels "
                f"(tried: {', '.join(constraints.Dialect)}). Use --mode generate."
            )
        started = time.perf_counter()
        answers = self._run(self._gather(lambda chat: self._choose(chat, options, dialect), chats))
        return clocked(answers, time.perf_counter() - started)

    def dialect(self) -> constraints.Dialect | None:
        """The constraint that this server really enforces, found by a probe at the first use; `None` for none."""
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

    async def _probe(self) -> constraints.Dialect | None:
        for dialect in constraints.Dialect:
            answer = await self._choose(constraints.PROBE, constraints.PROBE_OPTIONS, dialect)
            if isinstance(answer, Choice):
                return dialect
            if answer.kind not in (FailureKind.BAD_ANSWER, FailureKind.REQUEST):
                message = (
                    f"The server behind {self._reference} did not answer the probe: {answer.kind}: {answer.message}"
                )
                raise EndpointError(message, answer.kind)
        return None

    async def _choose(self, chat: Chat, options: Sequence[str], dialect: constraints.Dialect) -> Choice | Failure:
        sampling = Sampling(max_tokens=constraints.room(options))
        answer = await self._complete(chat, sampling, constraints.fields(dialect, options))
        if isinstance(answer, Failure):
            return answer
        if answer.truncated:
            return Failure(FailureKind.BAD_ANSWER, f"the answer was cut: {answer.text[:80]!r}", answer.usage)
        index = constraints.read(dialect, answer.text, options)
        if index is None:
            message = f"{answer.text[:80]!r} is none of the {len(options)} options"
            return Failure(FailureKind.BAD_ANSWER, message, answer.usage)
        return Choice(index, None, answer.usage)

    async def _complete(self, chat: Chat, sampling: Sampling, extra: Mapping[str, Any]) -> Completion | Failure:
        server = self._server(chat)
        return await self._patiently(server, lambda: self._completions.one(server, chat, sampling, extra, self._card))

    async def _samples(self, chat: Chat, count: int, sampling: Sampling) -> list[Completion | Failure]:
        """Answers to equal chats: in one request where the server can, else the nth with the nth seed."""
        server, ask = self._server(chat), self._completions.several
        found: list[Completion | None] = [None] * count
        if count > 1 and sampling.temperature > 0 and self._completions.gives_several and not self._config.deferred:
            together = await self._patiently(server, lambda: ask(server, chat, sampling, count, self._card))
            found = found if isinstance(together, Failure) else together
        missing = [n for n, one in enumerate(found) if one is None]
        alone = await self._gather(
            lambda n: self._complete(chat, sampling._replace(seed=sampling.seed + n), {}), missing
        )
        asked = dict(zip(missing, alone, strict=True))
        return [one or asked[n] for n, one in enumerate(found)]

    async def _count(self, text: str) -> int:
        server = self._servers[len(text) % len(self._servers)]
        count = await self._patiently(server, lambda: self._ask_count(server, text))
        if isinstance(count, Failure):
            message = f"The server behind {self._reference} stopped counting tokens ({count.kind}: {count.message})."
            raise EndpointError(message, count.kind)
        return count

    async def _counts_tokens(self, server: Server) -> bool:
        try:
            return await self._ask_count(server, "hello") > 0
        except (RefusedError, EndpointError):
            return False

    def _found_way(self, *, exact: bool) -> tuple[Way, int] | None:
        """The way to likelihoods that every server has. Raises `UnsupportedError` for first tokens wanted in vain."""
        why = ""
        for way in self._ways if exact or self._ways == (FIRST,) else ():
            ends = set(self._run(self._gather(lambda server, way=way: self._end_of(server, way), self._servers)))
            if len(ends) == 1 and isinstance(end := next(iter(ends)), int):
                return way, end
            why = next((f" ({end.message})" for end in ends if isinstance(end, Failure)), "")
        if self._ways == (FIRST,):
            message = f"{self._reference}: the server lists no top_logprobs{why}. Leave {FIRST_TOKENS} out."
            raise UnsupportedError(message)
        return None

    async def _end_of(self, server: Server, way: Way) -> int | Failure | None:
        """The token that ends an answer; `None`, or a failure, where the server has no such way."""
        end = await self._patiently(server, lambda: way.probe(server, self._name))
        if not isinstance(end, Failure) or end.kind in (FailureKind.BAD_ANSWER, FailureKind.REQUEST):
            return end
        message = f"The server behind {self._reference} did not answer the probe: {end.kind}: {end.message}"
        raise EndpointError(message, end.kind)

    async def _ask_count(self, server: Server, text: str) -> int:
        answer = await server.post_beside("/tokenize", tokens.count_request(self._name, text))
        count = tokens.read_count(answer)
        if count is None:
            message = f"/tokenize answered {str(answer)[:80]!r} instead of a list of tokens"
            raise RefusedError(Failure(FailureKind.BAD_ANSWER, message))
        return count

    async def _patiently(self, server: Server, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Failure:
        """What a request gives, tried again by kind of fault."""
        retries = Retries(self._config, server, self._outages)
        while True:
            try:
                async with self._slots:
                    if ending():  # the slot came free because another request was cancelled
                        raise asyncio.CancelledError
                    result = await request()
                self._outages.over(server)
                return result
            except RefusedError as refused:
                next_step = retries.after(refused)
            if isinstance(next_step, Failure):
                return next_step
            if retries.puzzled:
                await self._ask_anything(server)
            await asyncio.sleep(next_step)

    async def _ask_anything(self, server: Server) -> None:
        """Find out whether the server answers at all, or fails on one text alone."""
        body = {"model": self._name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        try:
            async with self._slots:
                await server.post("/chat/completions", body)
        except RefusedError as refused:
            if refused.failure.kind is not FailureKind.REQUEST:
                return
        self._outages.over(server)

    def _server(self, chat: Chat) -> Server:
        """Chats that begin alike go to the same server, whose cache then holds the beginning."""
        beginning = chat[0]["content"][:256]
        return self._servers[sum(beginning.encode("utf-8", "surrogatepass")) % len(self._servers)]

    async def _listing(self, server: Server) -> Any:
        """The model list. A server that this run started is waited for: it may be about to be started again."""
        if not self._config.served_by:
            return await server.get("/models")
        listing = await self._patiently(server, lambda: server.get("/models"))
        if isinstance(listing, Failure):
            raise RefusedError(listing)
        return listing

    async def _context_length(self, server: Server) -> int | None:
        """From the model list, if any. Raises `EndpointError` if the server is not there or refuses the key."""
        try:
            listing = await self._listing(server)
        except RefusedError as refused:
            failure = refused.failure
            if failure.kind not in (FailureKind.CONNECTION, FailureKind.TIMEOUT):
                return None  # a server without a model list
            cause = failure.message.rpartition(f"{server.url}: ")[2]
            message = (
                f"No server answers at {server.url}: {cause}. Start it, or correct --base-url (or OPENAI_BASE_URL)."
            )
            raise EndpointError(message, failure.kind) from refused
        except EndpointError as error:
            if error.kind is FailureKind.REQUEST:
                return None
            raise
        return tokens.context_length(listing, self._name)
