"""Who may use the page: the browser that was opened with its address, on this machine.

Three fences. A name that is not this machine's is refused (DNS rebinding); a request that another page sent is refused
(cross-site posts); and every request needs the token of this start, which other users of the machine do not know.
"""

import hashlib
import secrets
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
)
REPORTS = "/reports/files/"
"""Reports bring their own, stricter policy."""


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        # Browsers send a cookie to every port of a machine, so each start uses another name.
        self._cookie = f"promptmii-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with headers that keep everything foreign out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := _refusal(scope["method"], headers):
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        url = URL(scope=scope)
        given = dict(pair.split("=", 1) for pair in url.query.split("&") if "=" in pair).get("token", "")
        if given and secrets.compare_digest(given.encode(), self._token.encode()):
            response = RedirectResponse(url.path, 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            await response(scope, receive, send)
            return
        if not self._knows(headers):
            message = "This page opens with the address that `promptmii ui` prints, which holds a key of its own."
            await PlainTextResponse(message, 403)(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added["X-Content-Type-Options"] = "nosniff"
                added["Referrer-Policy"] = "same-origin"
                added["Cross-Origin-Resource-Policy"] = "same-origin"
                if not url.path.startswith(REPORTS):
                    added["Content-Security-Policy"] = POLICY
                if not url.path.startswith("/static/"):
                    added["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, guarded)

    def _knows(self, headers: Headers) -> bool:
        cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), self._token.encode())


def _refusal(method: str, headers: Headers) -> str:
    """Why a request is refused; empty if it is not."""
    host = headers.get("host", "")
    if (urlsplit(f"//{host}").hostname or "") not in OWN_NAMES:
        return "This page answers to localhost only."
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if method not in SAFE and (foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")):
        return "Another site sent this. Nothing was done."
    return ""
