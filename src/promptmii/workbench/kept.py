"""Models that stay open between jobs, so that an edit, a typed text or an agent's call is answered at once."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from promptmii.config import Endpoint
from promptmii.models.base import Chat, Choice, Completion, Failure, LanguageModel, ModelCard, Sampling

Load = Callable[[Endpoint, str], LanguageModel]
MOST = 2
"""Models that are open at once: one that writes and one that follows."""


class _Open:
    """A model that outlives whoever closes it, unless a call was cut short and may have left it in the middle."""

    def __init__(self, model: LanguageModel, discard: Callable[[], None]) -> None:
        self._model = model
        self._discard = discard
        self.count_tokens = model.count_tokens

    @property
    def card(self) -> ModelCard:
        """See `LanguageModel`."""
        return self._model.card

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        """See `LanguageModel`."""
        with self._whole():
            return self._model.generate(chats, sampling)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """See `LanguageModel`."""
        with self._whole():
            return self._model.choose(chats, options)

    def close(self) -> None:
        """It stays open."""

    @contextmanager
    def _whole(self) -> Generator[None]:
        try:
            yield
        except BaseException:
            self._discard()
            raise


class KeptModels:
    """The models that were used last, for one job at a time."""

    def __init__(self, load: Load = Endpoint.load) -> None:
        self._load = load
        self._open: dict[tuple[str, str], LanguageModel] = {}

    def at(self, endpoint: Endpoint) -> Callable[[str], LanguageModel]:
        """How to get models there."""
        return lambda reference: self._get(endpoint, reference)

    def _get(self, endpoint: Endpoint, reference: str) -> LanguageModel:
        key = (reference, endpoint.model_dump_json())
        model = self._open.pop(key, None)
        while model is None and len(self._open) >= MOST:
            self._discard(next(iter(self._open)))
        model = self._open[key] = model or self._load(endpoint, reference)
        return _Open(model, lambda: self._discard(key))

    def _discard(self, key: tuple[str, str]) -> None:
        if model := self._open.pop(key, None):
            model.close()
