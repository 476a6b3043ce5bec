"""A limit on the money that calls may cost. Answers that are kept already cost nothing, so a rerun goes on."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from promptmii.errors import SpendingLimitError
from promptmii.models.base import (
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
from promptmii.models.threads import ending
from promptmii.models.wrappers import Priced

TEMPLATE = 64
"""Tokens that a chat template adds at most."""
CHECK = 0.1
"""Seconds between two looks at whether a waiting thread is to end."""


class SpendingLimit:
    """What several models together may cost. Safe to share between threads."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._spent = 0.0
        self._reserved = 0.0
        self._under_way = 0
        self._stop = ""
        self._changed = threading.Condition()

    def reserve(self, money: float) -> None:
        """Set money aside for a call. Waits for calls under way if it is short, so that all their answers are kept.

        Raises `SpendingLimitError` if the call might exceed the limit, or if an earlier call cost nobody knows what.
        """
        with self._changed:
            while self._under_way and (self._stop or self._spent + self._reserved + money > self._most):
                self._changed.wait(CHECK)
                if ending():
                    raise CancelledError
            if not self._stop and self._spent + money > self._most:
                self._stop = (
                    f"Stopped at --max-cost {self._most:g}: {self._spent:.6f} was spent, and the next call may cost "
                    f"{money:.6f}. All answers are kept; run the same command with a higher limit to continue."
                )
            if self._stop:
                raise SpendingLimitError(self._stop)
            self._reserved += money
            self._under_way += 1

    def settle(self, reserved: float, paid: float | None, reference: str) -> None:
        """Replace a reservation by what was paid; `None` if the model did not say."""
        with self._changed:
            self._under_way -= 1
            self._reserved = self._reserved - reserved if self._under_way else 0.0  # no rounding is left over
            self._spent += paid or 0.0
            if paid is None:
                self._stop = (
                    f"--max-cost cannot be kept: {reference} does not report the tokens of its calls. "
                    "Leave --max-cost out, or use another server."
                )
            self._changed.notify_all()


class Limited(Priced):
    """A priced model that asks nothing more once a limit is reached."""

    def __init__(self, model: LanguageModel, price: Price, limit: SpendingLimit) -> None:
        super().__init__(model, price)
        self._limit = limit

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Raises `SpendingLimitError`."""
        return self._within(chats, sampling.max_tokens, lambda: self._model.generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Raises `SpendingLimitError`."""
        return self._within(
            chats, max(map(most_tokens, options), default=0), lambda: self._model.choose(chats, options)
        )

    def _within(
        self, chats: Sequence[Chat], length: int, ask: Callable[[], list[Answer | Failure]]
    ) -> list[Answer | Failure]:
        prompts = sum(TEMPLATE + most_tokens(message["content"]) for chat in chats for message in chat)
        reserved = self._price.of(Usage(len(chats), prompts, length * len(chats))) or 0.0
        self._limit.reserve(reserved)
        paid: float | None = 0.0
        try:
            answers = ask()
            paid = self._price.of(sum((answer.usage for answer in answers), Usage()))
        finally:
            self._limit.settle(reserved, paid, self._model.card.reference)
        return answers
