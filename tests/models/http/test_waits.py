"""Warnings while calls wait for a server."""

import asyncio
import warnings

import pytest

from promptmii.models.http.waits import Waits

URL = "http://elsewhere.test/v1"


async def answer(waits: Waits, seconds: float) -> None:
    with waits.for_answer(120.0):
        await asyncio.sleep(seconds)


def test_a_slow_request_causes_warnings_until_it_is_answered() -> None:
    with pytest.warns(UserWarning, match=f"{URL} has not answered for 0 s; a request may take 120 s") as caught:
        asyncio.run(answer(Waits(URL, after=0.05, every=0.1), 0.4))
    assert 2 <= len(caught) <= 4


def test_many_slow_requests_cause_one_warning() -> None:
    async def many() -> None:
        waits = Waits(URL, after=0.05)
        await asyncio.gather(*(answer(waits, 0.3) for _ in range(20)))

    with pytest.warns(UserWarning, match="has not answered") as caught:
        asyncio.run(many())
    assert len(caught) == 1


def test_no_warning_while_the_server_answers_other_calls() -> None:
    async def busy() -> None:
        waits = Waits(URL, after=0.2)
        slow = asyncio.create_task(answer(waits, 0.4))
        await asyncio.sleep(0.05)
        await answer(waits, 0.05)
        await slow

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(busy())


@pytest.mark.parametrize(
    ("answered", "trying"),
    [
        (True, "Other calls are answered. This call is tried again in 60 s; it fails after 300 s."),
        (False, "This call is tried again in 60 s; it fails after 300 s, of which 1 have passed."),
    ],
)
def test_a_long_pause_causes_one_warning_with_its_cause_and_duration(answered: bool, trying: str) -> None:
    def pauses() -> None:
        waits = Waits(URL)
        waits.pause(
            "HTTP 429: slow down.", waited=1.0, pause=1.0, patience=300.0, others_answered=answered
        )  # too short
        waits.pause("HTTP 429: slow down.", waited=1.0, pause=60.0, patience=300.0, others_answered=answered)
        waits.pause(
            "HTTP 429: slow down.", waited=61.0, pause=60.0, patience=300.0, others_answered=True
        )  # too soon after the last warning

    with pytest.warns(UserWarning, match="HTTP 429") as caught:
        pauses()
    message = f"{URL}: HTTP 429: slow down. {trying}"
    assert [str(warning.message) for warning in caught] == [message]
