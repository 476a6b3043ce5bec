"""Any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, hosted APIs."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
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
    Usage,
    check_options,
    clocked,
)
from promptmii.models.http import constraints, tokens
from promptmii.models.http.calls import Calls
from promptmii.models.http.completions import Completions
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.likelihoods import LikelihoodProtocol
from promptmii.models.http.llama_server import LLAMA
from promptmii.models.http.prompt_logprobs import VLLM
from promptmii.models.http.refusals import DoubtfulError, RefusedError
from promptmii.models.http.retries import LOADING, Inquiry, charged, known
from promptmii.models.http.top_logprobs import FIRST
from promptmii.models.http.transport import Server
from promptmii.models.references import FIRST_TOKENS
from promptmii.task import content_key

T = TypeVar("T")
ASSUMED_CONTEXT = 8192
REMEMBERED = 20_000
"""Maximum number of cached token counts."""
UNSUPPORTED = (FailureKind.BAD_ANSWER, FailureKind.REQUEST)
"""Failures of a probe which mean that the server lacks the feature."""


class HttpModel(LanguageModel):
    """A model behind HTTP. Use it as a context manager, or `close()` it."""

    def __init__(self, name: str, config: HttpConfig | None = None, reference: str | None = None) -> None:
        """`name` is the model's name on the server, `reference` the user's name for it. Sends nothing yet.

        Raises `ConfigError` or `EndpointError` if address, key, proxy or certificates cannot be used.
        """
        self._name = name.removesuffix(FIRST_TOKENS)
        self._first_tokens = name != self._name
        self._reference = reference or f"openai:{name}"
        self._config = config or HttpConfig()
        self._calls = Calls(self._name, self._reference, self._config)
        if self._config.deferred:
            self._config.deferred.attach(self._calls.servers[0])
        self._lock = threading.Lock()
        self._card: ModelCard | None = None
        self._scoring: tuple[LikelihoodProtocol, int] | None = None
        """The likelihood protocol of the servers, and the token that ends an answer."""
        self._encoded: dict[str, Any] = {}
        """Options as encoded by the likelihood protocol."""
        self._dialect: constraints.Dialect | None = None
        self._probed = False
        self._last_probe = ""
        """Why the last probe for a dialect failed."""
        self._completions = Completions()
        self._counts: dict[str, int] = {}
        """Token counts by `content_key`, so that long texts take no more memory than short ones."""

    def __enter__(self) -> "HttpModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel pending requests and close the connections."""
        self._calls.close()

    @property
    def card(self) -> ModelCard:
        """Queries the servers on first use. Raises `EndpointError` if one of them does not answer."""
        self._calls.check_open()
        with self._lock:
            if self._card is None:
                lengths = self._calls.map(self._context_length, self._calls.servers)
                exact = all(self._calls.map(self._counts_tokens, self._calls.servers))
                self._scoring = self._find_likelihoods(exact=exact)
                where = self._config.served_by or ",".join(self._config.urls)
                length = self._config.context_length or min((length for length in lengths if length), default=None)
                self._card = self._completions.card = ModelCard(
                    self._reference,
                    f"{where} {self._name}{f' {self._scoring[0].name}' if self._scoring else ''}",
                    length or ASSUMED_CONTEXT,
                    gives_scores=self._scoring is not None,
                    exact_tokens=exact,
                    batches=False,
                    concurrency=self._config.concurrency,
                    context_assumed=length is None,
                )
            return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counted by servers that can (vLLM, SGLang, llama.cpp), else estimated.

        Raises `EndpointError` if a server stops counting.
        """
        if not self.card.exact_tokens:
            return [tokens.estimate(text) for text in texts]
        counts, keys = self._counts, [content_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in counts}
        if missing:
            fresh = self._calls.map(self._count, [*missing.values()])
            counts = counts | dict(zip(missing, fresh, strict=True))  # a copy: several threads may count
            self._counts = dict([*counts.items()][-REMEMBERED:])
        return [counts[key] for key in keys]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Raises `EndpointError` if the server does not answer or refuses the key."""
        _ = self.card  # finds out what the servers can do
        started = time.perf_counter()
        keys = [repr(list(chat)) for chat in chats]
        counts, chat_of = Counter(keys), dict(zip(keys, chats, strict=True))
        samples = self._calls.map(lambda key: self._samples(chat_of[key], counts[key], sampling), [*counts])
        unused = {key: iter(answers) for key, answers in zip(counts, samples, strict=True)}
        return clocked([next(unused[key]) for key in keys], time.perf_counter() - started)

    async def _samples(self, chat: Chat, count: int, sampling: Sampling) -> list[Completion | Failure]:
        """`count` answers to one chat: from one request if the server supports that, else from one request per seed."""
        server = self._calls.server_for(chat)
        samples: list[Completion | None] = [None] * count
        spent = Usage()
        if count > 1 and sampling.temperature > 0 and self._completions.multiple and not self._config.deferred:
            result = await self._calls.answered(
                server, lambda: self._completions.several(server, chat, sampling, count)
            )
            if isinstance(result, Failure):
                if result.kind is FailureKind.CONTEXT:  # the prompt of each sample is the same
                    return [result, *[replace(result, usage=Usage())] * (count - 1)]
                spent = known(result.usage)
            else:
                samples = result
        missing = [n for n, sample in enumerate(samples) if sample is None]
        single = await self._calls.gather(
            lambda n: self._complete(chat, sampling._replace(seed=sampling.seed + n), {}), missing
        )
        remaining = iter(charged(single, spent))
        return [sample or next(remaining) for sample in samples]

    async def _complete(self, chat: Chat, sampling: Sampling, extra: Mapping[str, Any]) -> Completion | Failure:
        server = self._calls.server_for(chat)
        return await self._calls.answered(server, lambda: self._completions.single(server, chat, sampling, extra))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Scored if the server reports likelihoods, else constrained. Raises `UnsupportedError` if neither works."""
        check_options(options)
        _ = self.card
        return self._scored(chats, options, *self._scoring) if self._scoring else self._constrained(chats, options)

    def _scored(
        self, chats: Sequence[Chat], options: Sequence[str], protocol: LikelihoodProtocol, end: int
    ) -> list[Choice | Failure]:
        started = time.perf_counter()
        encoded = self._encode(options, protocol, end)
        if isinstance(encoded, Failure):
            if self._first_tokens and encoded.kind is FailureKind.REQUEST:
                raise UnsupportedError(
                    f"{self._reference}: {encoded.message}. Leave {FIRST_TOKENS} out, or rename the labels."
                )
            return [encoded for _ in chats]

        async def score(server: Server, chat: Chat) -> Choice:
            choice = await protocol.score(server, chat, encoded)
            self._completions.check(server, chat, choice.usage)
            return choice

        def retried(chat: Chat) -> Coroutine[Any, Any, Choice | Failure]:
            server = self._calls.server_for(chat)
            return self._calls.answered(server, lambda: score(server, chat))

        return clocked(self._calls.map(retried, chats), time.perf_counter() - started)

    def _encode(self, options: Sequence[str], protocol: LikelihoodProtocol, end: int) -> Any:
        """The options as `protocol.score` takes them, or a failure. Each option is encoded only once."""
        server = self._calls.servers[0]

        def encode(option: str) -> Coroutine[Any, Any, Any]:
            return self._calls.answered(server, lambda: protocol.encode(server, option))

        missing = [option for option in options if option not in self._encoded]
        results = self._calls.map(encode, missing) if missing else []
        for result in results:
            if isinstance(result, Failure):
                return result
        self._encoded |= zip(missing, results, strict=True)
        try:
            return protocol.combine(options, [self._encoded[option] for option in options], end)
        except RefusedError as error:
            return error.failure

    def _constrained(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        dialect = self.dialect()
        if dialect is None:
            raise UnsupportedError(
                f"The server behind {self._reference} does not restrict answers to the labels "
                f"(tried: {', '.join(constraints.Dialect)}; the last answer: {self._last_probe.rstrip('.')}). "
                "Use --mode generate."
            )
        started = time.perf_counter()
        answers = self._calls.map(lambda chat: self._choose(chat, options, dialect), chats)
        return clocked(answers, time.perf_counter() - started)

    async def _choose(self, chat: Chat, options: Sequence[str], dialect: constraints.Dialect) -> Choice | Failure:
        sampling = Sampling(max_tokens=constraints.token_limit(options))
        answer = await self._complete(chat, sampling, constraints.fields(dialect, options))
        if isinstance(answer, Failure):
            return answer
        if answer.truncated:
            return Failure(FailureKind.BAD_ANSWER, f"the answer was truncated: {answer.text[:80]!r}", answer.usage)
        index = constraints.read(dialect, answer.text, options)
        if index is None:
            message = f"{answer.text[:80]!r} is not one of the {len(options)} options"
            return Failure(FailureKind.BAD_ANSWER, message, answer.usage)
        return Choice(index, None, answer.usage)

    def dialect(self) -> constraints.Dialect | None:
        """The kind of constraint that the server enforces, if any. Probes for it on first use."""
        _ = self.card
        with self._lock:
            if not self._probed:
                self._dialect = self._calls.run(self._find_dialect())
                self._probed = True
            return self._dialect

    async def _find_dialect(self) -> constraints.Dialect | None:
        for dialect in constraints.Dialect:
            answer = await self._choose(constraints.PROBE, constraints.PROBE_OPTIONS, dialect)
            if isinstance(answer, Choice):
                return dialect
            if answer.kind not in UNSUPPORTED:
                raise self._failed("did not answer the probe for choose (--mode generate needs none)", answer)
            self._last_probe = answer.message
        return None

    def _find_likelihoods(self, *, exact: bool) -> tuple[LikelihoodProtocol, int] | None:
        """The likelihood protocol that all servers speak, and the token that ends an answer.

        Raises `UnsupportedError` if first tokens were requested and a server does not list them.
        """
        protocols = (FIRST,) if self._first_tokens else (LLAMA, VLLM) if exact else ()
        reason = ""
        for protocol in protocols:
            results = self._calls.map(
                lambda server, protocol=protocol: self._probe(server, protocol), self._calls.servers
            )
            end = results[0]
            if isinstance(end, int) and all(result == end for result in results):
                return protocol, end
            reason = next((f" ({result.message})" for result in results if isinstance(result, Failure)), "")
        if self._first_tokens:
            message = f"{self._reference}: the server lists no top_logprobs{reason}. Leave {FIRST_TOKENS} out."
            raise UnsupportedError(message)
        return None

    async def _probe(self, server: Server, protocol: LikelihoodProtocol) -> int | Failure | None:
        """The token that ends an answer; a failure or `None` if the server does not speak the protocol.

        Raises `EndpointError` if the server refuses every call, as with a bad key or an empty account.
        """
        try:
            end = await self._calls.retried(server, lambda: protocol.probe(server))
        except EndpointError as error:
            if self._first_tokens or (not isinstance(error, DoubtfulError) and await self._refuses_chats(server)):
                raise
            return None  # it has no such endpoint, or none for this key
        if isinstance(end, Failure) and end.kind not in UNSUPPORTED:
            raise self._failed("did not answer the probe", end)
        return end

    async def _refuses_chats(self, server: Server) -> bool:
        """Whether the server refuses even a harmless chat. A Batch API is not asked for one."""
        return not self._config.deferred and await self._calls.refuses(server)

    def _failed(self, problem: str, failure: Failure) -> EndpointError:
        message = f"The server behind {self._reference} {problem}: {failure.kind}: {failure.message}"
        return EndpointError(message, failure.kind)

    async def _count(self, text: str) -> int:
        servers = self._calls.servers
        server = servers[len(text) % len(servers)]
        encoded = await self._calls.answered(server, lambda: tokens.encode(server, text))
        if isinstance(encoded, Failure):
            raise self._failed("stopped counting tokens", encoded)
        return len(encoded)

    async def _counts_tokens(self, server: Server) -> bool:
        try:
            encoded = await self._asked(server, lambda: tokens.encode(server, "hello"))
        except EndpointError as error:
            if error.kind is FailureKind.SERVER:
                raise
            return False
        return not isinstance(encoded, Failure) and bool(encoded)

    async def _asked(self, server: Server, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Failure:
        """The answer to a question about what a server can do. Raises `EndpointError` if it never loads its model."""
        result = await Inquiry(server).run(request)
        if isinstance(result, Failure) and LOADING in result.message:
            raise self._failed("did not load its model", result)
        return result

    async def _context_length(self, server: Server) -> int | None:
        """The length in the model list, if any.

        Raises `EndpointError` if the server does not answer or does not know the key.
        """
        # A server that this run started may be restarting, so it is waited for.
        ask = self._calls.retried if self._config.served_by else self._asked
        try:
            listing = await ask(server, lambda: server.get("/models"))
        except EndpointError as error:
            if error.kind is FailureKind.REQUEST:
                return None  # it has no model list
            if isinstance(error, DoubtfulError) and not await self._refuses_chats(server):
                return None  # it has one that this key may not read
            raise
        if not isinstance(listing, Failure):
            return tokens.context_length(listing, self._name)
        if listing.kind not in (FailureKind.CONNECTION, FailureKind.TIMEOUT):
            return None  # the server has no model list
        cause = listing.message.rpartition(f"{server.url}: ")[2]
        message = f"No server answers at {server.url}: {cause}. Start it, or correct --base-url (or OPENAI_BASE_URL)."
        raise EndpointError(message, listing.kind)
