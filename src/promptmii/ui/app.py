"""The web application: its routes, and a server for this machine only."""

import logging
import socket
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from promptmii.config import Endpoint
from promptmii.errors import ConfigError, PromptMIIError
from promptmii.models.embedded import EMBEDDED, Embedded
from promptmii.ui import reports, start, trials
from promptmii.ui.context import AppContext
from promptmii.ui.guard import Guard
from promptmii.ui.store import Store
from promptmii.ui.work import Work
from promptmii.workbench.followers import LoadModel, ModelPool

LOOPBACK = "127.0.0.1"
NOT_FOUND = "Not Found"
"""Starlette's message for an unknown path."""


def make_app(
    home: Path,
    token: str,
    *,
    runs: Path = Path("runs"),
    load: LoadModel = Endpoint.load,
    installable: Mapping[str, Embedded] = EMBEDDED,
) -> Starlette:
    """The application. It stores its history in `home` and accepts requests with the token.

    `load` opens models; `installable` are the embedded models it offers. Raises `OutputError` if `home` cannot be
    created.
    """
    store = Store(home)
    routes = [
        Route("/", start.start),
        Route("/data", start.add, methods=["POST"]),
        Route("/data", start.start),  # the address after a refused upload
        Route("/new", start.new),
        Route("/new/columns", start.columns),
        Route("/models/{name}", start.begin_install, methods=["POST"]),
        Route("/models/{name}/events", start.install_events),
        Route("/models/{name}/cancel", start.cancel_install, methods=["POST"]),
        Route("/trials", start.begin_run, methods=["POST"]),
        Route("/trials/{key}", trials.show),
        Route("/trials/{key}/events/{job}", trials.events),
        Route("/trials/{key}/cancel", trials.cancel, methods=["POST"]),
        Route("/trials/{key}/edits", trials.edit, methods=["POST"]),
        Route("/trials/{key}/label", trials.label, methods=["POST"]),
        Route("/trials/{key}/errors", trials.errors),
        Route("/trials/{key}/rows", trials.rows),
        Route("/trials/{key}/export/{target}", trials.export),
        Route("/history", trials.history),
        Route("/reports", reports.reports),
        Route("/reports", reports.draw, methods=["POST"]),
        Route("/reports/files/{path:path}", reports.file),
        Route("/reports/{key}", reports.show),
        Mount("/static", StaticFiles(packages=[("promptmii.ui", "static")])),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={PromptMIIError: _refused, 404: _not_found, Exception: _unexpected},
    )
    app.state.context = AppContext(store, Work(store, ModelPool(load)), runs, installable)
    return app


def _refused(request: Request, error: Exception) -> Response:
    return AppContext.of(request).page("message.html", title="That did not work", message=str(error))


def _unexpected(request: Request, error: Exception) -> Response:
    message = f"{type(error).__name__}: {error}. The terminal that the page was started from shows where."
    return AppContext.of(request).page("message.html", status=500, title="Something went wrong", message=message)


def _not_found(request: Request, error: Exception) -> Response:
    detail = error.detail if isinstance(error, HTTPException) else NOT_FOUND
    message = "There is no such page." if detail == NOT_FOUND else detail
    return AppContext.of(request).page("message.html", status=404, title="Not here", message=message)


def listening_socket(port: int) -> socket.socket:
    """A listening socket for local connections. Port 0 takes a free one. Raises `ConfigError` if the port is in use."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        raise ConfigError(f"The port {port} cannot be used: {error.strerror}. Name another with --port.") from error
    return bound


def serve(app: Starlette, bound: socket.socket) -> None:
    """Serve until the process ends."""
    import uvicorn

    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="off")
    server = uvicorn.Server(config)
    # An open page is cut off when the server ends, which uvicorn would log with tracebacks.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    server.run(sockets=[bound])
