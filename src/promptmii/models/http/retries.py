"""Decides when, and for how long, a failed request is retried."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar, cast

from promptmii.errors import EndpointError
from promptmii.models.base import OUTAGES, Choice, Completion, Failure, FailureKind, Usage
from promptmii.models.http.refusals import RefusedError
from promptmii.models.http.transport import Server

T = TypeVar("T")

FLUKES = {FailureKind.TIMEOUT, FailureKind.BAD_ANSWER}
"""The next answer may be fine. Tried `TRIES` times."""
TEMPORARY = OUTAGES - FLUKES
"""The server is down, restarting or overloaded. Retried for as long as `patience` lasts."""
TRIES = 3
SUSPECT_AFTER = 6
"""Server errors of a call after which its text is suspected: it fails as soon as the server answers another call."""
LOADING = "Loading model"
"""What llama.cpp's server answers until it has loaded its model."""
LONGEST_PAUSE = 30.0
"""Maximum back-off in seconds, before up to half of it is added at random; a server may ask for more."""


def known(usage: Usage) -> Usage:
    """The usage of a failed try, or nothing if the server did not report it."""
    return Usage() if usage.prompt_tokens is None or usage.completion_tokens is None else usage


def charged(result: T, spent: Usage) -> T:
    """The answer, or the first of several, with what earlier tries spent, because a bad answer is billed too.

    A result without usage stays as it is.
    """
    if not spent.calls:
        return result
    if isinstance(result, Completion | Choice | Failure):
        return cast("T", replace(result, usage=spent + result.usage))
    if isinstance(result, list):
        samples = cast("list[object]", result)
        first = next((n for n, sample in enumerate(samples) if sample is not None), None)
        return cast("T", [charged(sample, spent) if n == first else sample for n, sample in enumerate(samples)])
    return result


class Retries:
    """The retries of one call. Its patience counts from its first fault, or from the start of the server's outage."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config
        self._faults: Counter[FailureKind] = Counter()
        self._first_fault = math.inf
        self._spent = Usage()
        """Used by earlier tries, as far as the server reported it."""

    async def run(
        self,
        request: Callable[[], Coroutine[Any, Any, T]],
        check_server: Callable[[], Coroutine[Any, Any, None]] | None = None,
        refused: asyncio.Future[EndpointError] | None = None,
    ) -> T | Failure:
        """The result of the request, or the failure after all retries.

        `check_server` finds out if the server answers at all. It is called if no other call has shown that. `refused`
        ends a pause, since the next try would fail too.
        """
        while True:
            try:
                result = await request()
                self._server.mark_up()
                return charged(result, self._spent)
            except RefusedError as error:
                pause, usage = self._pause_or_failure(error), error.failure.usage
            if isinstance(pause, Failure):
                return charged(pause, self._spent)
            self._spent += known(usage)
            suspect = self._faults[FailureKind.SERVER] >= SUSPECT_AFTER
            if suspect and check_server and not self._server_answers():
                await check_server()
            await (asyncio.wait([refused], timeout=pause) if refused else asyncio.sleep(pause))

    def _server_answers(self) -> bool:
        """The server has answered another call since this one first failed."""
        return self._server.last_success > self._first_fault

    def _pause_or_failure(self, error: RefusedError) -> float | Failure:
        now = time.monotonic()
        failure = error.failure
        self._faults[failure.kind] += 1
        self._first_fault = min(self._first_fault, now)
        waited = now - self._first_fault
        if failure.kind in TEMPORARY:
            if now - self._server.last_fault > self._config.patience:  # an earlier outage, whose end no call has seen
                self._server.down_since = now
            self._server.down_since, self._server.last_fault = min(self._server.down_since, now), now
            waited = now - min(self._first_fault, self._server.down_since)
        patience = self._config.patience
        caused_by_text = self._faults[FailureKind.SERVER] > SUSPECT_AFTER and self._server_answers()
        if not error.lasting and not caused_by_text:
            pause = self._pause(failure.kind, error.wait, patience - waited)
            if pause is not None:
                self._server.waits.pause(
                    failure.message, waited, pause, patience, others_answered=self._server_answers()
                )
                return pause
        message = failure.message
        if error.wait and error.wait > patience:
            message += f"; the server asks for a pause of {error.wait:,.0f} s, more than the patience of {patience:g} s"
        return replace(failure, message=f"{message} (for {waited:.0f} s)" if waited >= 1 else message)

    def _pause(self, kind: FailureKind, requested: float | None, remaining: float) -> float | None:
        """Seconds until the next try: the back-off, or a longer pause that the server requests, each with some jitter.

        `None` if there is no next try.
        """
        jitter = random.random()
        backoff = self._config.backoff * 2.0 ** min(self._faults.total() - 1, 16)
        backoff = min(backoff, LONGEST_PAUSE) * (0.5 + jitter)
        if kind in FLUKES:
            return backoff if self._faults[kind] < TRIES else None
        if kind not in TEMPORARY or remaining <= 0 or remaining < (requested or 0.0):
            return None
        pause = min(backoff, remaining)
        return max(pause, requested + jitter * self._config.backoff) if requested else pause


class Inquiry(Retries):
    """The retries of a request that asks what a server can do. They are few, because a refusal is an answer too.

    A server that loads its model is waited for, but not one that has never answered.
    """

    def _pause_or_failure(self, error: RefusedError) -> float | Failure:
        kind = error.failure.kind
        present = kind is not FailureKind.CONNECTION or self._server.last_success > -math.inf
        passing = kind in TEMPORARY and present and self._faults.total() < TRIES - 1
        if passing or LOADING in error.failure.message:
            return super()._pause_or_failure(error)
        return error.failure
