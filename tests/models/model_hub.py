"""A loopback hub with one tiny model."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from promptmii.models.embedded import Embedded

PART = 1 << 20
DATA = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(3 * PART // 32 + 999))
TINY = Embedded(
    name="tiny",
    title="Tiny",
    licence="CC0-1.0",
    size=len(DATA),
    sha256=hashlib.sha256(DATA).hexdigest(),
    file="tiny.gguf",
    wheels=tuple(f"promptmii-tiny-part{number}==1.0" for number in range(1, 5)),
    part=PART,
    repository="owner/tiny",
)


@dataclass
class Hub:
    """Serves `data`; it may ignore ranges, stop after `most` bytes, or send slowly."""

    data: bytes = DATA
    ranges: bool = True
    most: int = len(DATA)
    pause: float = 0.0
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        requested = handler.headers.get("Range", "bytes=0-")
        self.requests.append(f"{handler.path} {requested}")
        start = int(requested.removeprefix("bytes=").rstrip("-")) if self.ranges else 0
        handler.send_response(206 if self.ranges else 200)
        handler.send_header("Content-Length", str(len(self.data) - start))
        handler.end_headers()
        body = self.data[start : start + self.most]
        for offset in range(0, len(body), 1 << 16):
            handler.wfile.write(body[offset : offset + (1 << 16)])
            time.sleep(self.pause)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):  # the client has gone
                hub.answer(self)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
