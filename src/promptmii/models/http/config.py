"""How to reach servers. Addresses are printed and stored, so one that contains a password is refused."""

import os
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.models.http.deferred import Deferred

_SECRET = re.compile(r"(key|token|secret|password|pwd|credential|auth|code|sig)[^=&]*=", re.IGNORECASE)
_ENDPOINT = re.compile(r"/chat/completions$|(?<=/v1)/(completions|responses|models)$")
"""The path of an endpoint, which users copy with the address."""
CHAT = "/chat/completions"
HOSTED = "https://api.openai.com/v1"


def checked_address(address: str) -> str:
    """The address without quotes, trailing slashes, and the path of an endpoint such as `/chat/completions`.

    Raises `ConfigError` if it is invalid or contains a password.
    """
    address = address.strip().strip("'\"").rstrip("/")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{_masked(address)!r} is not the address of a server: {error}.") from None
    if parts.username is not None or parts.password is not None or _SECRET.search(parts.query):
        raise ConfigError(
            f"The address of {parts.hostname or 'the server'} holds a user name or password, or a key in its query. "
            "Keys belong in OPENAI_API_KEY, which is never stored."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or re.search(r"\s", address):
        shown = _masked(re.sub("#.+", "#...", address))
        raise ConfigError(f"{shown!r} is not the address of a server; expected http://host:port/v1.")
    return urlunsplit(parts._replace(path=_ENDPOINT.sub("", parts.path.rstrip("/")).rstrip("/")))


def _masked(address: str) -> str:
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def addresses(base_url: str | None) -> tuple[str, ...]:
    """The addresses in a comma-separated list, else in OPENAI_BASE_URL, else the hosted API. Raises `ConfigError`.

    An empty list is an error: from a variable without a value, it must not send texts to the hosted API.
    """
    listed = (os.environ.get("OPENAI_BASE_URL") or HOSTED) if base_url is None else base_url
    checked = tuple(checked_address(address) for address in listed.split(",") if address.strip())
    if not checked:
        raise ConfigError(f"{listed!r} is not the address of a server; expected http://host:port/v1.")
    return checked


@dataclass(frozen=True)
class HttpConfig:
    """How to reach a server. The key is kept out of `repr`, errors, caches and artefacts."""

    base_url: str | None = None
    """One address, or several separated by commas; `None`: OPENAI_BASE_URL, or else the hosted API.

    Several servers share one request limit, and chats with the same prefix go to the same server.
    """
    api_key: str | None = field(default=None, repr=False)
    """`None`: OPENAI_API_KEY. Empty: no key is sent."""
    concurrency: int = 16
    timeout: float = 120.0
    """Seconds for one request."""
    patience: float = 300.0
    """Seconds that a call waits for a server that is down, busy or failing, before it fails."""
    backoff: float = 0.5
    """Seconds before the first retry; doubled each time, unless the server sends Retry-After."""
    context_length: int | None = None
    served_by: str = ""
    """The engine, if this run started the server; revisions name it instead of the random port."""
    deferred: "Deferred | None" = None
    """Collects chat completion requests for the Batch API."""
    slots: AbstractAsyncContextManager[None] | None = None
    """Limits requests across processes; `concurrency` then only sizes the thread and connection pools."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers' addresses. Raises `ConfigError`, also for the hosted API without the key that it needs."""
        found = addresses(self.base_url)
        if found == (HOSTED,) and self.base_url is None and not self.key:
            raise ConfigError(
                f"Without an address, openai: models are those of {HOSTED}, which needs a key. Set OPENAI_API_KEY, or "
                "give the address of your server with --base-url or OPENAI_BASE_URL."
            )
        return found

    @property
    def key(self) -> str:
        """The key to send; empty for none. Raises `ConfigError` for a character that no key contains."""
        key = os.environ.get("OPENAI_API_KEY", "") if self.api_key is None else self.api_key
        key = re.sub(r"(?i)^bearer\s+", "", key.strip().strip("'\""))
        for position, char in enumerate(key, 1):
            if not "!" <= char <= "~":
                raise ConfigError(
                    f"The API key holds U+{ord(char):04X} at position {position}, which no key contains. "
                    "Copy it again into OPENAI_API_KEY."
                )
        return key
