"""The event loop that all requests run on, and the requests themselves."""

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from tests.models.faulty_server import KEY, FaultyServer, serving

from promptmii.errors import EndpointError
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import Server, submit


@pytest.mark.slow
def test_the_error_of_an_abandoned_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise EndpointError("no money left") from None

    future = submit(fail())
    submit(asyncio.sleep(0.05)).result()
    future.cancel()
    del future
    for _ in range(5):  # the loop drops the call a few iterations later
        submit(asyncio.sleep(0.02)).result()
        gc.collect()
    assert "no money left" not in caplog.text


class Files(FaultyServer):
    """Lists batches, and refuses to send a file, quoting the key."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/batches", self.batches)
        app.router.add_get("/v1/files/f/content", self.content)

    async def batches(self, request: web.Request) -> web.Response:
        return web.json_response(dict(request.query))

    async def content(self, request: web.Request) -> web.Response:
        message = f"{request.headers['authorization']} may not read f"
        return web.json_response({"error": {"message": message}}, status=400)


def test_the_query_of_a_path_is_joined_to_that_of_the_address() -> None:
    with serving(Files()) as running:
        server = Server(f"{running.url}?api-version=1", HttpConfig(api_key=KEY), "m")
        assert submit(server.get("/batches?limit=1")).result() == {"limit": "1", "api-version": "1"}
        submit(server.close()).result()


def test_the_error_of_a_download_holds_its_message_but_not_the_key(tmp_path: Path) -> None:
    with serving(Files()) as running:
        server = Server(running.url, HttpConfig(api_key=KEY), "m")
        with pytest.raises(RefusedError) as caught:
            submit(server.download("/files/f/content", tmp_path / "f")).result()
        submit(server.close()).result()
    assert str(caught.value) == "HTTP 400: Bearer *** may not read f"


RACE = """
import asyncio, sys, threading
from promptmii.models.http.transport import submit

async def loop():
    return asyncio.get_running_loop()

def work():
    together.wait()
    loops.add(submit(loop()).result())

sys.setswitchinterval(1e-6)
loops, together = set(), threading.Barrier(16)
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(loops))
"""


@pytest.mark.slow
def test_threads_that_call_first_at_once_share_the_loop() -> None:
    assert subprocess.check_output([sys.executable, "-c", RACE], text=True).strip() == "1"
