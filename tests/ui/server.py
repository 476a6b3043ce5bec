"""Serve the page on a real port, for a real browser."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from promptmii.models.embedded import EMBEDDED, Embedded
from promptmii.ui.app import listening_socket, make_app
from promptmii.workbench.followers import LoadModel

TOKEN = "a-token-for-tests"


@contextmanager
def serving(
    home: Path, models: LoadModel, runs: Path = Path("no-runs"), installable: Mapping[str, Embedded] = EMBEDDED
) -> Iterator[str]:
    """Serve within the context, and yield the address without the token."""
    bound = listening_socket(0)
    app = make_app(home, TOKEN, runs=runs, load=models, installable=installable)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(5)
