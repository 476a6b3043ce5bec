"""How requests travel: one event loop per process, a server with its connections, and how often a call is retried."""

import asyncio
import json
import math
import os
import random
import re
import secrets
import ssl
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Generator, Hashable, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

import httpx

from promptmii.errors import EndpointError
from promptmii.models.base import Failure, FailureKind
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.refusals import RefusedError, readable, refusal, retry_after, status_of, words_of
from promptmii.models.http.waits import Waits

T = TypeVar("T")

_limits: WeakValueDictionary[tuple[object, ...], asyncio.Semaphore] = WeakValueDictionary()
_lock = threading.Lock()


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start work on the loop; cancelling the future cancels the work."""
    return asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))


def request_limit(urls: tuple[str, ...], concurrency: int) -> asyncio.Semaphore:
    """The limit on requests under way, shared by all models of this process that name the same servers and limit."""
    key = (os.getpid(), urls, concurrency)
    with _lock:
        return _limits.setdefault(key, asyncio.Semaphore(concurrency))


@cache
def _loop(_process: int) -> asyncio.AbstractEventLoop:
    """Of this process: a fork inherits no thread."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_unheard)
    threading.Thread(target=loop.run_forever, name="promptmii-http", daemon=True).start()
    return loop


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of two calls that fail at once, the first ends the run; what the second says is nothing to print."""
    if not isinstance(context.get("exception"), EndpointError):
        loop.default_exception_handler(context)


CONNECT = 10.0
"""Seconds for a connection: a machine that does not answer at all counts as down long before a slow answer does."""
LONG = 600.0
"""Seconds for a step of an up- or download."""
MOST_BYTES = 8 << 20
"""Largest response that is read."""
SHORTEST_SECRET = 12
"""Characters from which a key is masked in answers; shorter ones, such as "none", keep nothing secret."""
NO_V1 = "Does the address lack /v1?"
LISTED = 20
"""Likely tokens that a server is asked to list: the most that OpenAI lists."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Server:
    """An OpenAI-compatible server at one address."""

    def __init__(self, url: str, config: HttpConfig) -> None:
        """Nothing is sent. Raises `ConfigError` or `EndpointError` if key, proxy or certificates cannot be used."""
        self.url = url
        self._base, _, query = url.partition("?")
        self._query = f"?{query}" if query else ""
        self._key = config.key
        self._timeout = config.timeout
        self.answered = False
        """Whether it has completed a chat, so that the key is known to be good."""
        self.listed = LISTED
        """Likely tokens to ask it for."""
        self.waits = Waits(url)
        self._client = _client(url, config)
        self._deferred = config.deferred

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str) -> Any:
        """The decoded answer to a GET of a path beside `/chat/completions`. Raises as `post` does."""
        return await self._send("GET", f"{self._base}{path}{self._query}")

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The decoded answer to a POST.

        Raises `RefusedError` where it failed, and `EndpointError` where every call would.
        """
        if self._deferred and self._deferred.holds(path):
            return self._deferred.answer(path, body)
        return await self._send("POST", f"{self._base}{path}{self._query}", body)

    async def upload(self, path: Path) -> Any:
        """The decoded answer to a file of requests for a batch. Raises as `post` does."""
        headers = {"content-type": f"multipart/form-data; boundary={secrets.token_hex(16)}"}
        with path.open("rb") as file, self._faults():
            response = await self._client.post(
                f"{self._base}/files{self._query}",
                data={"purpose": "batch"},
                files={"file": (path.name, file, "application/jsonl")},
                headers=headers,
                timeout=LONG,
            )
        return self._decoded(response, response.content)

    async def download(self, path: str, target: Path) -> None:
        """Write what a GET gives into a file, of any length. Raises as `post` does."""
        address = f"{self._base}{path}{self._query}"
        with self._faults(), target.open("wb") as file:
            async with self._client.stream("GET", address, timeout=LONG) as response:
                if not response.is_success:
                    raw = await _read(response)
                    raise self._refusal(response, None, raw.decode("utf-8", "replace"))
                async for chunk in response.aiter_bytes():
                    file.write(chunk)

    async def post_beside(self, path: str, body: object) -> Any:
        """As `post`, for what servers offer beside `/v1`."""
        return await self._send("POST", f"{self._base.removesuffix('/v1')}{path}{self._query}", body)

    async def _send(self, method: str, address: str, body: object = None) -> Any:
        # ASCII with escapes, so that half a character in a text cannot break the request.
        content = None if body is None else json.dumps(body).encode()
        with self._faults(), self.waits.for_answer(self._timeout):
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, address, content=content) as response,
            ):
                raw = await _read(response)
        return self._decoded(response, raw)

    @contextmanager
    def _faults(self) -> Generator[None]:
        """Faults of the way there and back as `RefusedError`."""
        try:
            yield
        except (TimeoutError, httpx.TimeoutException) as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise self._unreachable("no connection in time") from error
            raise RefusedError(Failure(FailureKind.TIMEOUT, f"no answer within {self._timeout:g} s")) from error
        except httpx.DecodingError as error:
            raise RefusedError(Failure(FailureKind.BAD_ANSWER, "an answer in a damaged compression")) from error
        except httpx.TransportError as error:
            raise self._unreachable(_cause(error)) from error

    def _unreachable(self, cause: str) -> RefusedError:
        return RefusedError(Failure(FailureKind.CONNECTION, f"no connection to {self.url}: {cause}"))

    def _decoded(self, response: httpx.Response, raw: bytes) -> Any:
        """The JSON of a good answer. Servers quote what they got, so the key is masked before anything reads it."""
        text, body = self._masked(raw.decode("utf-8", "replace")), None
        with suppress(ValueError, RecursionError):
            whole = self._masked(raw.decode(json.detect_encoding(raw))) if response.is_success else text
            body = json.loads(whole, strict=False)  # some servers do not escape the line breaks in a text
        if not response.is_success or (isinstance(body, dict) and body.get("error")):
            raise self._refusal(response, body, text)
        if body is None and text.lstrip().startswith("<"):
            cure = "Is that the address of its API?" if "/v1" in self._base else NO_V1
            raise self._misdirected(f"{self.url} answers with a web page, not JSON: {readable(text)}. {cure}")
        if body is None:
            raise RefusedError(Failure(FailureKind.BAD_ANSWER, f"not JSON in UTF-8: {text[:80]!r}"))
        return body

    def _masked(self, text: str) -> str:
        """The text without the key, however it is escaped."""
        if len(self._key) >= SHORTEST_SECRET:
            for form in (self._key, self._key.replace("/", "\\/"), quote(self._key, safe="")):
                text = text.replace(form, "***")
        return text

    def _refusal(self, response: httpx.Response, body: Any, text: str) -> RefusedError | EndpointError:
        if response.is_redirect:
            place = self._masked(readable(response.headers.get("location", "nowhere")))
            cure = "Redirects are not followed; if you trust that address, give it with --base-url."
            return self._misdirected(f"{self.url} redirects to {place}. {cure}", None)
        said = words_of(body) or readable(text)
        status = status_of(response.status_code, body, said)
        if status in (404, 405):
            known = "/v1" in self._base or re.search("model|deployment", said, re.IGNORECASE)
            cure = "Does the server know the model?" if known else NO_V1
            return self._misdirected(f"{self.url} answers HTTP {status}: {said.rstrip('.')}. {cure}")
        wait = retry_after(response.headers.get("retry-after", ""))
        return refusal(response.status_code, body, text, wait, answered=self.answered)

    def _misdirected(
        self, message: str, kind: FailureKind | None = FailureKind.REQUEST
    ) -> RefusedError | EndpointError:
        """The error for a wrong address; for one text alone if others were answered there."""
        if self.answered:
            return RefusedError(Failure(FailureKind.REQUEST, message), lasting=True)
        return EndpointError(message, kind, lasting=True)


def _client(url: str, config: HttpConfig) -> httpx.AsyncClient:
    parts, key = urlsplit(url), config.key
    try:
        return httpx.AsyncClient(
            headers={"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(config.timeout, connect=min(CONNECT, config.timeout)),
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            follow_redirects=False,
            verify=httpx.create_ssl_context() if parts.scheme == "https" else False,
            trust_env=parts.hostname not in LOOPBACK,  # no proxy leads back to this machine
        )
    except (OSError, ssl.SSLError) as error:
        raise EndpointError(f"The certificates in SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}.") from error
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        proxies = [name for name in os.environ if name.casefold() in ("all_proxy", "http_proxy", "https_proxy")]
        named = ", ".join(proxies) or "the proxy settings"
        raise EndpointError(
            f"The proxy in {named} cannot be used. Unset it, or give http://host:port; for socks5://host:port install "
            "SOCKS support with: pip install 'httpx[socks]'"
        ) from error


async def _read(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > MOST_BYTES:
            message = f"an answer of more than {MOST_BYTES >> 20} MiB"
            raise RefusedError(Failure(FailureKind.BAD_ANSWER, message), lasting=True)
    return bytes(raw)


def _cause(error: BaseException) -> str:
    """Why a connection failed, in words that say what to do."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    text = " ".join(map(str, chain))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted; set SSL_CERT_FILE to the file of its certificate authority"
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.casefold():
        return "it does not speak https; write http:// in its address"
    if "Name or service not known" in text or "getaddrinfo" in text or "name resolution" in text:
        return "no machine of that name is known"
    if "refused" in text.casefold() or "All connection attempts failed" in text:
        return "the connection is refused"
    return f"{type(error).__name__} {error}".strip()


WAITED_FOR = {FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER}
"""Faults that pass by themselves: the server is restarted, or has too much to do."""
TRIED_AGAIN = {FailureKind.TIMEOUT, FailureKind.BAD_ANSWER}
"""Faults that may be chance, but not for long."""
TRIES = 3
OWN = 6
"""Server errors after which a call fails by itself, if the server answers others meanwhile: it is about the text."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries, before chance adds up to half; a server may ask for more."""


class Outages:
    """Since when each server has been out, whichever call noticed it.

    So calls that come late to a server that is gone do not each wait for it anew.
    """

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}
        self._answered: dict[Hashable, float] = {}

    def over(self, server: Hashable) -> None:
        """It has answered."""
        self._since.pop(server, None)
        self._answered[server] = time.monotonic()

    def answered(self, server: Hashable, since: float) -> bool:
        """Whether it has answered any call since then."""
        return self._answered.get(server, -math.inf) > since

    def since(self, server: Hashable, now: float) -> float:
        """When it stopped answering."""
        return self._since.setdefault(server, now)


class Retries:
    """Of one call. Patience runs from its first fault, however long it queued before, or from its server's outage."""

    def __init__(self, config: HttpConfig, server: Server, outages: Outages) -> None:
        self._config = config
        self._server = server
        self._outages = outages
        self._faults: Counter[FailureKind] = Counter()
        self._since = math.inf

    @property
    def puzzled(self) -> bool:
        """Enough server errors in a row, and no other call to tell whether the server answers at all."""
        return self._faults[FailureKind.SERVER] >= OWN and not self._outages.answered(self._server, self._since)

    def after(self, refused: RefusedError) -> float | Failure:
        """Seconds until the next try, or the failure that ends the call."""
        now = time.monotonic()
        failure = refused.failure
        self._faults[failure.kind] += 1
        self._since = min(self._since, now)
        out_since = self._outages.since(self._server, now) if failure.kind in WAITED_FOR else now
        waited = now - min(self._since, out_since)
        own = self._faults[FailureKind.SERVER] > OWN and self._outages.answered(self._server, self._since)
        pause = (
            None if refused.lasting or own else self._pause(failure.kind, refused.wait, self._config.patience - waited)
        )
        if pause is not None:
            self._server.waits.pause(failure.message, waited, pause, self._config.patience)
            return pause
        return replace(failure, message=f"{failure.message} (for {waited:.0f} s)") if waited >= 1 else failure

    def _pause(self, kind: FailureKind, asked: float | None, left: float) -> float | None:
        """The longer of the growing back-off and what the server asks for; both by chance a little longer."""
        chance = random.random()
        grown = min(self._config.backoff * 2.0 ** min(self._faults.total() - 1, 16), LONGEST_PAUSE) * (0.5 + chance)
        if kind in TRIED_AGAIN:
            return grown if self._faults[kind] < TRIES else None
        pause = max(min(grown, left), (asked or 0.0) + (chance * self._config.backoff if asked else 0.0))
        return pause if kind in WAITED_FOR and 0 < left >= (asked or 0.0) else None
