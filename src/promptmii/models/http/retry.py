"""How long a call waits, and how often it is tried again, by kind of fault."""

import math
import random
import time
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

from promptmii.models.base import Failure, FailureKind
from promptmii.models.http.config import HttpConfig
from promptmii.models.http.refusals import RefusedError

WAITED_FOR = {FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER}
"""Faults that pass by themselves: the server is restarted, or has too much to do."""
TRIED_AGAIN = {FailureKind.TIMEOUT, FailureKind.BAD_ANSWER}
"""Faults that may be chance, but not for long."""
TRIES = 3
LONGEST_PAUSE = 30.0
"""Seconds between two tries, half as many more at most by chance, unless the server asks for more."""


class Outages:
    """When each server that does not answer was first found so, by any call.

    So calls that come late to a server that is gone do not each wait for it anew.
    """

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}

    def over(self, server: Hashable) -> None:
        """It has answered."""
        self._since.pop(server, None)

    def since(self, server: Hashable, now: float) -> float:
        """When it stopped answering."""
        return self._since.setdefault(server, now)


class Retries:
    """Of one call. Patience runs from its first fault, however long it queued before, or from its server's outage."""

    def __init__(self, config: HttpConfig, server: Hashable, outages: Outages) -> None:
        self._config = config
        self._server = server
        self._outages = outages
        self._faults: Counter[FailureKind] = Counter()
        self._since = math.inf

    def after(self, refused: RefusedError) -> float | Failure:
        """Seconds until the next try, or the failure that ends the call."""
        now = time.monotonic()
        failure = refused.failure
        self._faults[failure.kind] += 1
        self._since = min(self._since, now)
        out_since = self._outages.since(self._server, now) if failure.kind in WAITED_FOR else now
        waited = now - min(self._since, out_since)
        pause = None if refused.lasting else self._pause(failure.kind, refused.wait, self._config.patience - waited)
        if pause is not None:
            return pause
        return replace(failure, message=f"{failure.message} (for {waited:.0f} s)") if waited >= 1 else failure

    def _pause(self, kind: FailureKind, asked: float | None, left: float) -> float | None:
        """The longer of the growing back-off and what the server asks for; both by chance a little longer."""
        chance = random.random()
        grown = min(self._config.backoff * 2.0 ** min(self._faults.total() - 1, 16), LONGEST_PAUSE) * (0.5 + chance)
        if kind in TRIED_AGAIN:
            return grown if self._faults[kind] < TRIES else None
        pause = max(min(grown, left), (asked or 0.0) + (chance * self._config.backoff if asked else 0.0))
        return pause if kind in WAITED_FOR and 0 < left >= (asked or 0.0) else None
