"""Wrappers that give a model a price, a usage meter, progress reports or dynamic batching."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

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
from promptmii.progress import QUIET, Progress, each_token
from promptmii.task import content_key


class Wrapper(LanguageModel):
    """A `LanguageModel` that passes every call on to another. Subclasses override the methods that they change."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    @property
    def card(self) -> ModelCard:
        return self._model.card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._model.count_tokens(texts)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        return self._model.generate(chats, sampling)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        return self._model.choose(chats, options)

    def close(self) -> None:
        self._model.close()


class Priced(Wrapper):
    """A model with a price."""

    def __init__(self, model: LanguageModel, price: Price) -> None:
        super().__init__(model)
        self._price = price

    @property
    def card(self) -> ModelCard:
        return replace(self._model.card, price=self._price)


class Metered(Wrapper):
    """A model that adds up the usage of its answers. Thread-safe."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self._lock = threading.Lock()
        self.usage = Usage()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        return self._count(super().generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        return self._count(super().choose(chats, options))

    def _count(self, answers: list[Answer | Failure]) -> list[Answer | Failure]:
        with self._lock:
            self.usage = sum((answer.usage for answer in answers), self.usage)
        return answers


ROWS = 16
"""Minimum chats per batch; a model that takes several requests at once gets eight times that many."""

LONG = 32
"""From this token limit on, an answer is a text rather than a label."""

_reporting = threading.Lock()
"""Held while a model reports progress: several models may share one `Progress`, which is not thread-safe."""


def watched(model: LanguageModel, progress: Progress) -> LanguageModel:
    """A model that reports progress; the model itself if `QUIET`, because one large batch is slightly faster."""
    return model if progress is QUIET else Watched(model, progress)


class Watched(Wrapper):
    """Splits calls into batches and advances the current progress step by one per answer."""

    def __init__(self, model: LanguageModel, progress: Progress) -> None:
        super().__init__(model)
        self._progress = progress

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Samples are not split into batches, because equal chats get different samples only within one batch."""
        if len(chats) == 1 and sampling.max_tokens >= LONG:
            return self._write(chats, sampling)
        size = len(chats) if sampling.temperature else self._size()
        return self._batches(lambda batch: self._model.generate(batch, sampling), chats, size)

    def _write(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """Write one long text. If the engine reports its tokens, they become a progress step of their own."""
        started = False

        def on_token() -> None:
            nonlocal started
            with _reporting:
                if not started:
                    self._progress.step("Writing", sampling.max_tokens, "tokens")
                    started = True
                self._progress.advance()

        with each_token(on_token):
            answers = self._model.generate(chats, sampling)
        if not started:
            with _reporting:
                self._progress.advance(money=self._cost(answers))
        return answers

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        return self._batches(lambda batch: self._model.choose(batch, options), chats, self._size())

    def _size(self) -> int:
        return max(ROWS, 8 * self._model.card.concurrency)

    def _batches(
        self, call: Callable[[Sequence[Chat]], list[Answer | Failure]], chats: Sequence[Chat], size: int
    ) -> list[Answer | Failure]:
        answers: list[Answer | Failure] = []
        for start in range(0, max(len(chats), 1), max(size, 1)):  # an empty batch asks whether the model can answer
            batch = call(chats[start : start + size])
            answers += batch
            with _reporting:
                self._progress.advance(len(batch), money=self._cost(batch))
        return answers

    def _cost(self, answers: Sequence[Completion | Choice | Failure]) -> float | None:
        price = self._model.card.price
        return price.of(sum((answer.usage for answer in answers), Usage())) if price else None


LINGER = 0.05
"""Seconds to wait for other threads to join a batch; each one that joins restarts the wait."""


@dataclass
class _Call:
    chats: list[Chat]
    sampling: Sampling
    answers: Future[list[Completion | Failure]] = field(default_factory=Future[list[Completion | Failure]])


class Batched(Wrapper):
    """Dynamic batching: concurrent `generate` calls from several threads become one batch.

    On most machines, memory bandwidth limits generation, so a batch takes hardly longer than one answer.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        if sampling.temperature <= 0:  # greedy texts do not depend on the seed, and calls with equal settings batch
            sampling = sampling._replace(seed=0)
        call = _Call(list(chats), sampling)
        with self._lock:
            self._waiting.append(call)
        with self._turn:
            if not call.answers.done():
                self._linger()
                self._serve(call)
        return call.answers.result()

    def _linger(self) -> None:
        joined = 0
        while joined < len(self._waiting):
            joined = len(self._waiting)
            time.sleep(LINGER)

    def _serve(self, first: _Call) -> None:
        with self._lock:
            batch = _compatible(first, self._waiting)
            self._waiting = [call for call in self._waiting if call not in batch]
        try:
            answers = iter(self._model.generate([chat for call in batch for chat in call.chats], first.sampling))
        except BaseException as error:
            for call in batch:
                call.answers.set_exception(error)
            return
        for call in batch:
            call.answers.set_result([next(answers) for _ in call.chats])


def for_threads(model: LanguageModel) -> LanguageModel:
    """A model for use by several threads: `Batched`, unless the model handles concurrent calls itself."""
    return Batched(model) if model.card.batches else model


def _compatible(first: _Call, waiting: Sequence[_Call]) -> list[_Call]:
    """`first` and the waiting calls that can share its batch.

    These have the same sampling parameters and no chats in common, since samples of equal chats affect each other.
    """
    batch: list[_Call] = []
    seen: set[str] = set()
    for call in [first, *(call for call in waiting if call is not first)]:
        keys = {content_key(list(chat)) for chat in call.chats}
        if call is first or (call.sampling == first.sampling and not keys & seen):
            batch.append(call)
            seen |= keys
    return batch
