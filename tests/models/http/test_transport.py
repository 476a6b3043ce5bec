"""The event loop that all requests run on."""

import asyncio
import gc

import pytest

from promptmii.errors import EndpointError
from promptmii.models.http.transport import submit


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
