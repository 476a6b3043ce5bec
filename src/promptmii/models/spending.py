"""A limit on the cost of calls. Cached answers are free, so a rerun continues where the limit stopped it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from promptmii.errors import EndpointError, SpendingLimitError
from promptmii.models.base import (
    TEMPLATE_MARGIN,
    Answer,
    Chat,
    Choice,
    Completion,
    Failure,
    LanguageModel,
    Price,
    Sampling,
    Usage,
    most_tokens,
)
from promptmii.models.http.constraints import token_limit
from promptmii.models.threads import ending
from promptmii.models.wrappers import Priced

CHECK = 0.1
"""Seconds between checks for cancellation while a thread waits."""


class SpendingLimit:
    """A limit on the total cost of several models. Thread-safe."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._spent = 0.0
        self._reserved = 0.0
        self._active_calls = 0
        self._stop_reason = ""
        self._changed = threading.Condition()

    def reserve(self, cost: float) -> None:
        """Reserve the cost of a call. If too little money is left, wait for the active calls, to keep their answers.

        Raises `SpendingLimitError` if the call might exceed the limit, or if the cost of an earlier call is unknown.
        """
        with self._changed:
            while self._active_calls and (self._stop_reason or self._spent + self._reserved + cost > self._limit):
                self._changed.wait(CHECK)
                if ending():
                    raise CancelledError
            if not self._stop_reason and self._spent + cost > self._limit:
                self._stop_reason = (
                    f"Stopped at --max-cost {self._limit:g}: {self._spent:.6f} was spent, and the next call may cost "
                    f"{cost:.6f}. Answers in a cache or an output file are kept; run the same command with a higher "
                    "limit to continue."
                )
            if self._stop_reason:
                raise SpendingLimitError(self._stop_reason)
            self._reserved += cost
            self._active_calls += 1

    def settle(self, reserved: float, paid: float | None, reference: str) -> None:
        """Replace a reservation with the actual cost, `None` if the model did not report its usage."""
        with self._changed:
            self._active_calls -= 1
            self._reserved = self._reserved - reserved if self._active_calls else 0.0  # avoids accumulated rounding
            self._spent += paid or 0.0
            if paid is None:
                self._stop_reason = (
                    f"--max-cost cannot be enforced: {reference} does not report the tokens of its calls. "
                    "Leave --max-cost out, or use another server."
                )
            self._changed.notify_all()


class Limited(Priced):
    """A priced model that stops making calls once a spending limit is reached."""

    def __init__(self, model: LanguageModel, price: Price, limit: SpendingLimit) -> None:
        super().__init__(model, price)
        self._limit = limit

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Raises `SpendingLimitError`."""
        return self._within_limit(chats, sampling.max_tokens, lambda: self._model.generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Raises `SpendingLimitError`."""
        longest = token_limit(options) if options else 0
        return self._within_limit(chats, longest, lambda: self._model.choose(chats, options))

    def _within_limit(
        self, chats: Sequence[Chat], max_tokens: int, call: Callable[[], list[Answer | Failure]]
    ) -> list[Answer | Failure]:
        prompts = sum(TEMPLATE_MARGIN + most_tokens(message["content"]) for chat in chats for message in chat)
        reserved = self._price.of(Usage(len(chats), prompts, max_tokens * len(chats))) or 0.0
        self._limit.reserve(reserved)
        paid: float | None = 0.0
        try:
            answers = call()
            paid = self._paid(answers, reserved)
        except EndpointError:
            paid = reserved if len(chats) > 1 else 0.0  # some of several may have been answered
            raise
        finally:
            self._limit.settle(reserved, paid, self._model.card.reference)
        return answers

    def _paid(self, answers: Sequence[Completion | Choice | Failure], reserved: float) -> float | None:
        """The cost of the answers: `None` if one has no usage. A failure without usage costs all that was reserved."""
        unknown = [isinstance(answer, Failure) and self._price.of(answer.usage) is None for answer in answers]
        known = [answer.usage for answer, missing in zip(answers, unknown, strict=True) if not missing]
        paid = self._price.of(sum(known, Usage()))
        return paid if paid is None or not any(unknown) else max(paid, reserved)
