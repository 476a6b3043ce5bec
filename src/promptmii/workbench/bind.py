"""From an instruction to the follower that answers under it."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from promptmii.config import Endpoint
from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.instruction import EDITED, Instruction, Mode
from promptmii.models import DEFAULT, WRITER, LanguageModel
from promptmii.models.http.config import Served, addresses
from promptmii.models.spending import SpendingLimit
from promptmii.models.wrappers import watched
from promptmii.progress import QUIET, Progress

if TYPE_CHECKING:
    from promptmii.models.http.deferred import Deferred

Models = Callable[[str], LanguageModel]
"""From a reference to its model, which the caller closes."""
Confirm = Callable[[str], bool]
"""Asks the user a question; true for yes."""


def refuse(_: str) -> bool:
    """The default answer to a question: no."""
    return False


def bind(
    instruction: Instruction,
    follower: str | None,
    endpoint: Endpoint,
    progress: Progress = QUIET,
    confirm: Confirm = refuse,
    *,
    deferred: "Deferred | None" = None,
    limit: SpendingLimit | None = None,
    models: Models | None = None,
) -> Follower:
    """The follower that an instruction was made for, or another one; `DEFAULT` where neither is named.

    `confirm` is asked before texts go to a server that only the instruction names. Raises `ConfigError` if it declines.
    `models` stands in for the endpoint where models are kept open.
    """
    reference, keyless = (follower, False) if follower else _named_follower(instruction, endpoint, confirm)
    progress.step(f"Loading {reference}")
    if models and not keyless:
        model = models(reference)
    else:
        model = endpoint.load(reference, keyless=keyless, limit=limit or endpoint.limit(), deferred=deferred)
    return Follower(watched(model, progress), instruction.mode or "choose", shortlist="auto")


def _named_follower(instruction: Instruction, endpoint: Endpoint, confirm: Confirm) -> tuple[str, bool]:
    """The follower that an instruction names, and whether to keep the API key from it.

    An instruction comes from a file that anybody may have written. A server named there is used only after a yes, and
    never gets the key; a server that the user names replaces it.
    """
    named = instruction.follower or DEFAULT
    served = Served.parse(named)
    if served is None or served.address is None or served.address in addresses(endpoint.base_url):
        return named, False
    if endpoint.base_url:
        return f"openai:{served.model}", False
    if confirm(f"The instruction names the server {served.address}. Send your texts there, without your API key?"):
        return named, True
    raise ConfigError(
        f"The instruction names the server {served.address}, and no text is sent there unless you say so. "
        f"If you trust it: --follower {named}. To use another server: --base-url."
    )


class Followers:
    """The followers of one command: each model is loaded once, when an instruction first asks for it."""

    def __init__(
        self,
        reference: str | None = None,
        endpoint: Endpoint | None = None,
        progress: Progress = QUIET,
        confirm: Confirm = refuse,
        *,
        mode: Mode | None = None,
        models: Models | None = None,
    ) -> None:
        """`reference` and `mode` go before what an instruction says itself; `models` as in `bind`."""
        self.progress = progress
        self._reference = reference
        self._mode: Mode | None = mode
        self._confirm = confirm
        self._models = models
        self._endpoint = endpoint or Endpoint()
        self._limit = self._endpoint.limit()
        self._loaded: dict[str | None, LanguageModel] = {}
        self._open = ExitStack()

    def of(self, instruction: Instruction) -> Follower:
        """The follower of an instruction. Raises as `bind` does."""
        model, mode = self._model(instruction, self._reference), self._mode or instruction.mode or "choose"
        return Follower(model, mode, shortlist="auto")

    def writer(self, instruction: Instruction, reference: str | None = None) -> LanguageModel:
        """The model that is to write for an instruction: `reference`, the one that wrote it, or `WRITER`."""
        return self._model(instruction.model_copy(update={"follower": instruction.generator or WRITER}), reference)

    def _model(self, instruction: Instruction, reference: str | None) -> LanguageModel:
        named = reference or instruction.follower
        if named not in self._loaded:
            asked = (instruction, reference, self._endpoint, self.progress, self._confirm)
            self._loaded[named] = bind(*asked, limit=self._limit, models=self._models).model
            self._open.enter_context(closing(self._loaded[named]))
        return self._loaded[named]

    def close(self) -> None:
        """Close the models."""
        self._open.close()


class _Given:
    """One follower for every instruction, which whoever gave it closes."""

    def __init__(self, follower: Follower | LanguageModel, progress: Progress) -> None:
        self.progress = progress
        self._follower = follower

    def of(self, instruction: Instruction) -> Follower:
        given = self._follower
        if isinstance(given, Follower):
            return given
        return Follower(given, instruction.mode or "choose", shortlist="auto")

    def writer(self, instruction: Instruction, reference: str | None = None) -> LanguageModel:
        if reference:
            raise ConfigError(f"{reference} cannot write beside a model that is loaded already; name both, or neither.")
        return self.of(instruction).model


Answering: TypeAlias = Followers | _Given | Follower | LanguageModel | str | None
"""Who answers: a follower, a model, its reference, or `None` for the one that each instruction names."""


@contextmanager
def answering(given: Answering, progress: Progress = QUIET) -> Generator[Followers | _Given]:
    """The followers that are meant. Those that are loaded here are closed at the end."""
    if isinstance(given, Followers | _Given):
        yield given
    elif isinstance(given, Follower | LanguageModel):
        yield _Given(given, progress)
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
