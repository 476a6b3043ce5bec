"""Models that know their price or count what passes through them."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from promptmii.models.base import (
    Answer,
    Chat,
    Choice,
    Completion,
    Failure,
    LanguageModel,
    ModelCard,
    Price,
    Sampling,
    Usage,
)


class Priced:
    """A model with a price."""

    def __init__(self, model: LanguageModel, price: Price) -> None:
        self._model = model
        self._price = price
        self.count_tokens = model.count_tokens
        self.generate = model.generate
        self.choose = model.choose
        self.close = model.close

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return replace(self._model.card, price=self._price)


class Metered:
    """A model that adds up what passes through it. Safe to share between threads."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.usage = Usage()
        self.failures = 0

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._model.card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See `LanguageModel`. Not metered: no model runs."""
        return self._model.count_tokens(texts)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        return self._count(self._model.generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`."""
        return self._count(self._model.choose(chats, options))

    def close(self) -> None:
        """See `LanguageModel`."""
        self._model.close()

    def _count(self, answers: list[Answer | Failure]) -> list[Answer | Failure]:
        with self._lock:
            self.usage = sum((answer.usage for answer in answers), self.usage)
            self.failures += sum(isinstance(answer, Failure) for answer in answers)
        return answers
