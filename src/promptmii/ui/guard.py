"""Access control: only a browser on this machine that was opened with the printed address may use the page.

There are three checks. The host name must be local (against DNS rebinding), the request must not come from another site
(against cross-site posts), and it needs the token of this server process, which other users of the machine do not know.
"""

import hashlib
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
)
REPORTS = "/reports/files/"
"""Reports have their own, stricter policy."""


class Guard:
    """Middleware that checks every request."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        # Browsers send a cookie to every port of a host, so each server process uses its own cookie name.
        self._cookie = f"promptmii-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on and add security headers to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := _refusal(scope["method"], headers):
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        url = URL(scope=scope)
        token = dict(pair.split("=", 1) for pair in url.query.split("&") if "=" in pair).get("token", "")
        if token and secrets.compare_digest(token.encode(), self._token.encode()):
            response = RedirectResponse(url.path, 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            await response(scope, receive, send)
            return
        if not self._has_cookie(scope):
            message = "This page opens with the address that `promptmii ui` prints, which holds a key of its own."
            await PlainTextResponse(message, 403)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response_headers = MutableHeaders(scope=message)
                response_headers["X-Content-Type-Options"] = "nosniff"
                response_headers["Referrer-Policy"] = "same-origin"
                response_headers["Cross-Origin-Resource-Policy"] = "same-origin"
                if not url.path.startswith(REPORTS):
                    response_headers["Content-Security-Policy"] = POLICY
                if not url.path.startswith("/static/"):
                    response_headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _has_cookie(self, scope: Scope) -> bool:
        # Not http.cookies, which reads none if another program on this machine has set one that it finds invalid.
        cookie = HTTPConnection(scope).cookies.get(self._cookie, "")
        return secrets.compare_digest(cookie.encode(), self._token.encode())


def _refusal(method: str, headers: Headers) -> str:
    """Why the request is refused, or an empty string."""
    host = headers.get("host", "")
    if (urlsplit(f"//{host}").hostname or "") not in OWN_NAMES:
        return "This page answers to localhost only."
    origin = headers.get("origin")
    other_origin = origin is not None and urlsplit(origin).netloc != host
    other_site = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if method not in SAFE and (other_origin or other_site):
        return "Another site sent this. Nothing was done."
    return ""
