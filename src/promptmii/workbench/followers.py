"""Open the follower for an instruction, and keep models open between jobs."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.instruction import EDITED, Instruction, Mode
from promptmii.models import DEFAULT, WRITER, LanguageModel
from promptmii.models.base import Chat, Choice, Completion, Failure, Models, Sampling
from promptmii.models.http.config import addresses
from promptmii.models.references import ServerReference
from promptmii.models.wrappers import Wrapper, watched
from promptmii.progress import QUIET, Progress

if TYPE_CHECKING:
    from promptmii.models.http.deferred import Deferred

LoadModel = Callable[[Endpoint, str], LanguageModel]
Confirm = Callable[[str], bool]
"""Asks the user a yes-or-no question."""
MAX_OPEN = 2
"""Models in a `ModelPool`: a writer and a follower."""


class Followers:
    """The followers of one command. Each model is loaded once, when an instruction first needs it."""

    def __init__(
        self,
        follower: Follower | LanguageModel | str | None = None,
        endpoint: Endpoint | None = None,
        progress: Progress = QUIET,
        confirm: Confirm | None = None,
        *,
        mode: Mode | None = None,
        models: Models | None = None,
        deferred: "Deferred | None" = None,
    ) -> None:
        """`follower` and `mode` override those of an instruction. A follower or model passed in stays open.

        `confirm` must agree before texts go to a server that only an instruction names. `models` replaces `endpoint` as
        the way to open models; `deferred` queues the requests for a Batch API.
        """
        self.progress = progress
        self.deferred = deferred
        self._follower = follower
        self._mode: Mode | None = mode
        self._confirm = confirm
        self._models = models
        self._endpoint = endpoint or Endpoint()
        self._load = self._endpoint.loader(deferred=deferred)
        self._loaded: dict[str, LanguageModel] = {}
        self._open = ExitStack()
        if deferred:
            self._open.callback(deferred.close)

    def of(self, instruction: Instruction) -> Follower:
        """The follower passed in, or else the one that the instruction names, or else `DEFAULT`.

        Raises `ConfigError` if the instruction names a server and the user does not confirm it.
        """
        follower = self._follower
        if isinstance(follower, Follower):
            return follower
        if isinstance(follower, LanguageModel):
            model = follower
        else:
            model = self._model(follower, instruction.follower or DEFAULT)
        return Follower(model, self._mode or instruction.mode or "choose", shortlist="auto")

    def writer(self, instruction: Instruction, reference: str | None = None) -> LanguageModel:
        """The model that writes for an instruction: `reference`, or else the one that wrote it, or else `WRITER`.

        A follower or model passed in also writes, and excludes a `reference`. Raises the errors of `of`.
        """
        if not isinstance(self._follower, Follower | LanguageModel):
            return self._model(reference, instruction.generator or WRITER)
        if reference:
            raise ConfigError(f"{reference} cannot write next to a model that is already loaded; name both or neither.")
        return self.of(instruction).model

    def _model(self, chosen: str | None, named: str) -> LanguageModel:
        """The model that the user chose, or else the one that the instruction names."""
        key = chosen or named
        if key not in self._loaded:
            reference, keyless = (chosen, False) if chosen else self._trusted(named)
            self.progress.step(f"Loading {reference}")
            model = self._models(reference) if self._models and not keyless else self._load(reference, keyless=keyless)
            self._loaded[key] = self._open.enter_context(closing(watched(model, self.progress)))
        return self._loaded[key]

    def _trusted(self, named: str) -> tuple[str, bool]:
        """The reference to load for a model that only an instruction names, and whether to withhold the API key.

        The instruction file is untrusted. Its server is used only if the user confirms it, and never gets the key. A
        server that the user names replaces it.
        """
        server = ServerReference.parse(named)
        if server is None or server.address is None or server.address in addresses(self._endpoint.base_url):
            return named, False
        if self._endpoint.base_url:
            return f"openai:{server.model}", False
        question = f"The instruction names the server {server.address}. Send your texts there, without your API key?"
        if self._confirm and self._confirm(question):
            return named, True
        raise ConfigError(
            f"The instruction names the server {server.address}; promptmii sends no text there without your consent. "
            f"If you trust it with your texts and your API key: --follower {named}. To use another server: --base-url."
        )

    def close(self) -> None:
        """Close the models loaded here."""
        self._open.close()


FollowerLike: TypeAlias = Followers | Follower | LanguageModel | str | None
"""A follower, a model or its reference, or `None` for the follower that each instruction names."""


@contextmanager
def open_followers(follower: FollowerLike, progress: Progress) -> Generator[Followers]:
    """The argument as `Followers`. Closes the models that it loads itself."""
    if isinstance(follower, Followers):
        yield follower
    else:
        with closing(Followers(follower, progress=progress)) as followers:
            yield followers


def calibration_notes(instruction: Instruction, follower: Follower) -> tuple[str, ...]:
    """Notes on why the instruction has no calibration for this follower."""
    edited = (f"the instruction was {EDITED}",) if EDITED in instruction.provenance.notes else ()
    if follower.own_calibration(instruction) is instruction.calibration:
        return edited
    foreign = f"no calibration: it was fitted to {instruction.follower}, and {follower.model.card.reference} answers"
    return (*edited, foreign)


class _PooledModel(Wrapper):
    """A model that ignores `close`. An interrupted call discards it, because its state is then undefined."""

    def __init__(self, model: LanguageModel, discard: Callable[[], None]) -> None:
        super().__init__(model)
        self._discard = discard

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        with self._discard_on_error():
            return super().generate(chats, sampling)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        with self._discard_on_error():
            return super().choose(chats, options)

    def close(self) -> None:
        """Leave it open."""

    @contextmanager
    def _discard_on_error(self) -> Generator[None]:
        try:
            yield
        except BaseException:
            self._discard()
            raise


class ModelPool:
    """Keeps the most recently used models open. Serves one job at a time."""

    def __init__(self, load: LoadModel) -> None:
        self._load = load
        self._open: dict[tuple[str, str], LanguageModel] = {}

    def at(self, endpoint: Endpoint) -> Models:
        """A function that opens models at the endpoint."""
        return lambda reference: self._get(endpoint, reference)

    def _get(self, endpoint: Endpoint, reference: str) -> LanguageModel:
        key = (reference, endpoint.model_dump_json())
        model = self._open.pop(key, None)
        while model is None and len(self._open) >= MAX_OPEN:
            self._discard(next(iter(self._open)))
        model = self._open[key] = model or self._load(endpoint, reference)
        return _PooledModel(model, lambda: self._discard(key))

    def _discard(self, key: tuple[str, str]) -> None:
        if model := self._open.pop(key, None):
            model.close()
