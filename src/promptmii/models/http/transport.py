"""Sends requests: one event loop per process, and a `Server` with its connections."""

import asyncio
import json
import math
import os
import re
import ssl
import threading
import time
from collections.abc import Coroutine, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import proxy_bypass
from weakref import WeakValueDictionary

import httpx

from promptmii.errors import EndpointError
from promptmii.models.base import FailureKind
from promptmii.models.http.answers import join_stream
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.refusals import (
    DoubtfulError,
    RefusedError,
    bad_answer,
    effective_status,
    error_message,
    plain_line,
    refusal,
    retry_after,
)
from promptmii.models.http.waits import Waits

T = TypeVar("T")

CONNECT = 10.0
"""Seconds to connect. Short, so that an unreachable machine is detected quickly, even if answers may take long."""
TRANSFER = 600.0
"""Timeout of each step of an upload or download, in seconds."""
MOST_BYTES = 8 << 20
"""Maximum size of a response."""
SHORTEST_KEY = 12
"""Keys of at least this length are masked in answers; shorter ones, such as "none", are placeholders."""
NO_V1 = "Does the address lack /v1?"
TOP_LOGPROBS = 20
"""Alternative tokens to request; OpenAI's maximum."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_limits: WeakValueDictionary[tuple[object, ...], asyncio.Semaphore] = WeakValueDictionary()
_lock = threading.Lock()


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the event loop. Cancelling the future cancels it."""
    with _lock:  # or else two threads might each start a loop, and connections belong to one
        loop = _loop(os.getpid())
    return asyncio.run_coroutine_threadsafe(work, loop)


def request_limit(urls: tuple[str, ...], concurrency: int) -> asyncio.Semaphore:
    """The limit on concurrent requests, shared by all models of this process with the same servers and limit."""
    key = (os.getpid(), urls, concurrency)
    with _lock:
        return _limits.setdefault(key, asyncio.Semaphore(concurrency))


@cache
def _loop(_process: int) -> asyncio.AbstractEventLoop:
    """The event loop of this process; a forked process needs its own, because it inherits no threads."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_ignore_endpoint_errors)
    threading.Thread(target=loop.run_forever, name="promptmii-http", daemon=True).start()
    return loop


def _ignore_endpoint_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep errors of abandoned calls out of the log: if two calls fail at once, the first ends the run."""
    if not isinstance(context.get("exception"), EndpointError):
        loop.default_exception_handler(context)


class Server:
    """An OpenAI-compatible server at one address, with the model to ask there."""

    def __init__(self, url: str, config: HttpConfig, model: str) -> None:
        """`model` is the model's name there. Sends nothing.

        Raises `ConfigError` or `EndpointError` if key, proxy or certificates cannot be used.
        """
        self.url = url
        self.config = config
        self.model = model
        self._base, _, query = url.partition("?")
        self._query = query
        self._key = config.key
        self.last_answer = -math.inf
        """When the server last completed a chat, so the key was valid."""
        self.down_since = math.inf
        """Start of the current outage. Shared by all calls, so that later ones do not wait just as long again."""
        self.last_success = self.last_fault = -math.inf
        self.top_logprobs = TOP_LOGPROBS
        self.waits = Waits(url)
        self._verify = _certificates() if urlsplit(url).scheme == "https" else False
        self._clients = [_client(url, config, self._verify)]
        self._idle = [*self._clients]

    def mark_up(self) -> None:
        """Note that a request succeeded."""
        self.down_since, self.last_success = math.inf, time.monotonic()

    @property
    def answered(self) -> bool:
        """The server has completed a chat."""
        return self.last_answer > -math.inf

    def mark_answered(self) -> None:
        """Note that the server completed a chat."""
        self.last_answer = time.monotonic()

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    @contextmanager
    def _client(self) -> Generator[httpx.AsyncClient]:
        """A client for one request at a time: the free one that was used last, whose connection is still open.

        With one client for all, httpx looks at every connection for every request, which takes longer than the rest.
        """
        if self._idle:
            client = self._idle.pop()
        else:
            client = _client(self.url, self.config, self._verify)
            self._clients.append(client)
        try:
            yield client
        finally:
            self._idle.append(client)

    async def get(self, path: str) -> Any:
        """GET a path below the address, and return the decoded answer. Raises as `post` does."""
        return await self._send("GET", self._address(path))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST, and return the decoded answer. Raises `RefusedError`, or `EndpointError` if every call would fail."""
        deferred = self.config.deferred
        if deferred and deferred.collects(path):
            return deferred.answer(body)
        return await self._send("POST", self._address(path), body)

    async def post_outside_v1(self, path: str, body: object) -> Any:
        """Like `post`, for paths outside `/v1`."""
        return await self._send("POST", self._address(path, self._base.removesuffix("/v1")), body)

    def _address(self, path: str, base: str | None = None) -> str:
        """The address of a path, which may have a query, with the query of the server's address."""
        joint = "&" if "?" in path else "?"
        return f"{self._base if base is None else base}{path}{joint + self._query if self._query else ''}"

    async def upload(self, path: Path) -> Any:
        """Upload a file of batch requests, and return the decoded answer. Raises as `post` does."""
        with path.open("rb") as file, self._transport_errors(), self._client() as client:
            response = await client.post(
                self._address("/files"),
                data={"purpose": "batch"},
                files={"file": (path.name, file, "application/jsonl")},
                timeout=TRANSFER,
            )
        return self._decode(response, response.content)

    async def download(self, path: str, target: Path) -> None:
        """GET a file of any size, and save it. Raises as `post` does."""
        with self._transport_errors(), target.open("wb") as file, self._client() as client:
            async with client.stream("GET", self._address(path), timeout=TRANSFER) as response:
                if not response.is_success:
                    self._decode(response, await _read(response))  # raises the error
                async for chunk in response.aiter_bytes():
                    file.write(chunk)

    async def _send(self, method: str, address: str, body: object = None) -> Any:
        # json.dumps escapes to ASCII, so a lone surrogate in a text cannot break the request.
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with self._transport_errors(), self.waits.for_answer(self.config.timeout), self._client() as client:
            async with (
                asyncio.timeout(self.config.timeout),
                client.stream(method, address, content=content, headers=headers) as response,
            ):
                raw = await _read(response)
        return self._decode(response, raw)

    @contextmanager
    def _transport_errors(self) -> Generator[None]:
        """Turn timeouts and connection errors into `RefusedError`."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise self._unreachable("connection timed out") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RefusedError(FailureKind.TIMEOUT, f"no answer within {self.config.timeout:g} s") from error
        except httpx.DecodingError as error:
            raise bad_answer("an answer with damaged compression") from error
        except httpx.ProxyError as error:
            raise (
                self._proxy_refuses(str(error)) if "407" in str(error) else self._unreachable(_cause(error))
            ) from error
        except httpx.TransportError as error:
            raise self._unreachable(_cause(error)) from error

    def _unreachable(self, cause: str) -> RefusedError:
        if proxy := _proxy_variable(self.url):
            cause += f" (the request goes through the proxy in {proxy})"
        return RefusedError(FailureKind.CONNECTION, f"no connection to {self.url}: {cause}")

    def _proxy_refuses(self, message: str) -> EndpointError:
        """The error for a proxy that wants a password."""
        return EndpointError(
            f"The proxy in {_proxy_variable(self.url) or 'front of the server'} refuses the request: "
            f"{message.rstrip('.')}. Give its user name and password as http://user:password@host:port.",
            FailureKind.AUTH,
            lasting=True,
        )

    def _decode(self, response: httpx.Response, raw: bytes) -> Any:
        """The JSON of a successful answer. Masks the key first, because servers quote the requests they get."""
        text, body = self._masked(raw.decode("utf-8", "replace")), None
        with suppress(ValueError, RecursionError):
            source = self._masked(raw.decode(json.detect_encoding(raw))) if response.is_success else text
            body = json.loads(source, strict=False)  # some servers do not escape line breaks
        if body is None:
            body = join_stream(text)
        if not response.is_success or (isinstance(body, dict) and body.get("error")):
            raise self._error(response, body, text)
        if body is None and text.lstrip().startswith("<"):
            fix = "Is that the address of its API?" if "/v1" in self._base else NO_V1
            raise _wrong_address(f"{self.url} answers with a web page, not JSON: {plain_line(text)}. {fix}")
        if body is None:
            raise bad_answer(f"not JSON in UTF-8: {text[:80]!r}")
        return body

    def _masked(self, text: str) -> str:
        """The text without the key, in any form of escaping."""
        if len(self._key) >= SHORTEST_KEY:
            for form in (self._key, self._key.replace("/", "\\/"), quote(self._key, safe="")):
                text = text.replace(form, "***")
        return text

    def _error(self, response: httpx.Response, body: Any, text: str) -> RefusedError | EndpointError:
        if response.is_redirect:
            target = self._masked(plain_line(response.headers.get("location", "nowhere")))
            fix = "Redirects are not followed; if you trust that address, give it with --base-url."
            return _wrong_address(f"{self.url} redirects to {target}. {fix}", None)
        message = error_message(body) or plain_line(text)
        if response.status_code == 407:
            return self._proxy_refuses(f"HTTP 407: {message}")
        status = effective_status(response.status_code, body, message)
        if status in (404, 405, 410):
            right_path = "/v1" in self._base or re.search("model|deployment", message, re.IGNORECASE)
            fix = "Does the server know the model?" if right_path else NO_V1
            return _wrong_address(f"{self.url} answers HTTP {status}: {message.rstrip('.')}. {fix}")
        wait = retry_after(response.headers.get("retry-after", ""))
        return refusal(response.status_code, body, text, wait)


def _wrong_address(message: str, kind: FailureKind | None = FailureKind.REQUEST) -> DoubtfulError:
    return DoubtfulError(message, kind, RefusedError(FailureKind.REQUEST, message, lasting=True))


def _certificates() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise EndpointError(f"The certificates in SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}.") from error


def _client(url: str, config: HttpConfig, verify: ssl.SSLContext | bool) -> httpx.AsyncClient:
    key = config.key
    try:
        return httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.timeout, connect=min(CONNECT, config.timeout)),
            follow_redirects=False,
            verify=verify,
            trust_env=urlsplit(url).hostname not in LOOPBACK,  # a proxy cannot reach this machine's loopback
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        proxies = [name for name in os.environ if name.casefold() in ("all_proxy", "http_proxy", "https_proxy")]
        source = ", ".join(proxies) or "the proxy settings"
        exceptions = any(name.casefold() == "no_proxy" and value for name, value in os.environ.items())
        hint = " Or correct NO_PROXY: it takes hosts, but no IPv6 networks." if exceptions else ""
        raise EndpointError(
            f"The proxy in {source} cannot be used. Unset it, or give http://host:port; for socks5://host:port install "
            f"SOCKS support with: pip install 'httpx[socks]'.{hint}"
        ) from error


def _proxy_variable(url: str) -> str | None:
    """The environment variable whose proxy serves an address, if any."""
    parts = urlsplit(url)
    if parts.hostname in LOOPBACK or proxy_bypass(parts.netloc):
        return None
    wanted = (f"{parts.scheme}_proxy", "all_proxy")
    return next((name for key in wanted for name in os.environ if name.casefold() == key and os.environ[name]), None)


async def _read(response: httpx.Response) -> bytes:
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise bad_answer(f"an answer of more than {MOST_BYTES >> 20} MiB", lasting=True)
    return bytes(raw)


def _cause(error: BaseException) -> str:
    """Why a connection failed, with the fix if it is known."""
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
        return "the host name is unknown"
    if "refused" in text.casefold() or "All connection attempts failed" in text:
        return "connection refused"
    return f"{type(error).__name__} {error}".strip()
