"""Dynamic batching: what several threads ask a local model at the same time is written in one batch.

Writing is bound by memory on most machines, so a batch takes hardly longer than one answer.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from promptmii.models.base import Chat, Completion, Failure, LanguageModel, Sampling
from promptmii.models.wrappers import Wrapper
from promptmii.task import content_key

LINGER = 0.05
"""Seconds in which other threads can join a batch; each that does gives the next as many."""


@dataclass
class _Call:
    chats: list[Chat]
    sampling: Sampling
    answers: Future[list[Completion | Failure]] = field(default_factory=Future[list[Completion | Failure]])


class Batched(Wrapper):
    """A model that answers in one batch what several threads ask at the same time."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
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
    """The model for use by several threads: `Batched`, unless it answers them at once by itself."""
    return model if model.card.concurrency > 1 else Batched(model)


def _compatible(first: _Call, waiting: Sequence[_Call]) -> list[_Call]:
    """`first` and the calls that fit its batch.

    They have equal parameters, and no chat occurs twice, as samples of equal chats depend on each other.
    """
    batch: list[_Call] = []
    seen: set[str] = set()
    for call in [first, *(call for call in waiting if call is not first)]:
        keys = {content_key(list(chat)) for chat in call.chats}
        if call is first or (call.sampling == first.sampling and not keys & seen):
            batch.append(call)
            seen |= keys
    return batch
