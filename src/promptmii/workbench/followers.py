"""From an instruction to the follower that answers under it, and models that stay open between jobs."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.instruction import EDITED, Instruction, Mode
from promptmii.models import DEFAULT, WRITER, LanguageModel
from promptmii.models.base import Chat, Choice, Completion, Failure, Sampling
from promptmii.models.http.config import ServerReference, addresses
from promptmii.models.wrappers import Wrapper, watched
from promptmii.progress import QUIET, Progress

if TYPE_CHECKING:
    from promptmii.models.http.deferred import Deferred

Models = Callable[[str], LanguageModel]
"""From a reference to its model, which the caller closes."""
Load = Callable[[Endpoint, str], LanguageModel]
Confirm = Callable[[str], bool]
"""Asks the user a question; true for yes."""
MOST = 2
"""Models that `KeptModels` holds open at once: one that writes and one that follows."""


def refuse(_: str) -> bool:
    """The default answer to a question: no."""
    return False


class Followers:
    """The followers of one command: each model is loaded once, when an instruction first asks for it."""

    def __init__(
        self,
        given: Follower | LanguageModel | str | None = None,
        endpoint: Endpoint | None = None,
        progress: Progress = QUIET,
        confirm: Confirm = refuse,
        *,
        mode: Mode | None = None,
        models: Models | None = None,
        deferred: "Deferred | None" = None,
    ) -> None:
        """`given` and `mode` override what an instruction says. A follower or model passed in stays open.

        `confirm` is asked before texts go to a server that only an instruction names. `models` replaces the
        endpoint where models stay open; `deferred` collects the requests for a Batch API.
        """
        self.progress = progress
        self.deferred = deferred
        self._given = given
        self._mode: Mode | None = mode
        self._confirm = confirm
        self._models = models
        self._endpoint = endpoint or Endpoint()
        self._limit = self._endpoint.limit()
        self._loaded: dict[str, LanguageModel] = {}
        self._open = ExitStack()
        if deferred:
            self._open.callback(deferred.close)

    def of(self, instruction: Instruction) -> Follower:
        """The follower passed in, the one that the instruction names, or `DEFAULT`.

        Raises `ConfigError` unless the user confirms its server.
        """
        given = self._given
        if isinstance(given, Follower):
            return given
        model = given if isinstance(given, LanguageModel) else self._model(given, instruction.follower or DEFAULT)
        return Follower(model, self._mode or instruction.mode or "choose", shortlist="auto")

    def writer(self, instruction: Instruction, reference: str | None = None) -> LanguageModel:
        """The model that writes for an instruction: `reference`, the one that wrote it, or `WRITER`.

        Raises as `of` does. A model passed in also writes, and then no other can be named.
        """
        if not isinstance(self._given, Follower | LanguageModel):
            return self._model(reference, instruction.generator or WRITER)
        if reference:
            raise ConfigError(f"{reference} cannot write next to a model that is already loaded; name both or neither.")
        return self.of(instruction).model

    def _model(self, chosen: str | None, named: str) -> LanguageModel:
        """The model that the user chose, or else the one that the instruction names."""
        wanted = chosen or named
        if wanted not in self._loaded:
            reference, keyless = (chosen, False) if chosen else self._trusted(named)
            self.progress.step(f"Loading {reference}")
            if self._models and not keyless:
                model = self._models(reference)
            else:
                load = self._endpoint.load
                model = load(reference, keyless=keyless, limit=self._limit, deferred=self.deferred)
            self._loaded[wanted] = self._open.enter_context(closing(watched(model, self.progress)))
        return self._loaded[wanted]

    def _trusted(self, named: str) -> tuple[str, bool]:
        """The model to load if only an instruction names it, and whether to withhold the API key.

        Anybody may have written the instruction file. A server named there is used only after a yes,
        and never gets the key; a server that the user names replaces it.
        """
        server = ServerReference.parse(named)
        if server is None or server.address is None or server.address in addresses(self._endpoint.base_url):
            return named, False
        if self._endpoint.base_url:
            return f"openai:{server.model}", False
        question = f"The instruction names the server {server.address}. Send your texts there, without your API key?"
        if self._confirm(question):
            return named, True
        raise ConfigError(
            f"The instruction names the server {server.address}; promptmii sends no text there without your consent. "
            f"If you trust it: --follower {named}. To use another server: --base-url."
        )

    def close(self) -> None:
        """Close the models that were loaded here."""
        self._open.close()


Answering: TypeAlias = Followers | Follower | LanguageModel | str | None
"""Who answers: a follower, a model, its reference, or `None` for the one that each instruction names."""


@contextmanager
def answering(given: Answering, progress: Progress = QUIET) -> Generator[Followers]:
    """The followers to ask. Closes those that it loads."""
    if isinstance(given, Followers):
        yield given
    else:
        with closing(Followers(given, progress=progress)) as followers:
            yield followers


def calibration_notes(instruction: Instruction, follower: Follower) -> tuple[str, ...]:
    """Why a calibration is left out."""
    edited = (f"the instruction was {EDITED}",) if EDITED in instruction.provenance.notes else ()
    if follower.own(instruction) is instruction:
        return edited
    foreign = f"no calibration: it was fitted to {instruction.follower}, and {follower.model.card.reference} answers"
    return (*edited, foreign)


class _Open(Wrapper):
    """A model that survives `close`. A call cut short discards it, because it may be in an undefined state."""

    def __init__(self, model: LanguageModel, discard: Callable[[], None]) -> None:
        super().__init__(model)
        self._discard = discard

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        with self._whole():
            return super().generate(chats, sampling)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        with self._whole():
            return super().choose(chats, options)

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
