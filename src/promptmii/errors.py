"""Every error that promptmii raises on purpose.

    PromptMIIError
    ├── DataError (ValueError)            the data cannot be used: file, column, label set, number of rows
    ├── ConfigError (ValueError)          an option or a configuration file is wrong
    ├── ArtefactError (ValueError)        an instruction, record or run folder cannot be read
    ├── OutputError (OSError)             the output cannot be written, or exists already
    ├── ModelError (RuntimeError)         a model reference cannot be used
    │   ├── UnknownModelError (LookupError)    no such model, folder or weights
    │   ├── EndpointError (ConnectionError)    the server is not there, refuses the key, or keeps failing
    │   └── UnsupportedError                   the model cannot do what was asked, e.g. give likelihoods
    ├── SpendingLimitError (RuntimeError) the next call might exceed --max-cost
    ├── ScoreRefusedError (RuntimeError)  too many answers failed to put a number on the rest
    └── MissingDependencyError (ImportError)   an optional package is needed; the message holds the pip line

A message says what was given, what was expected and what to do. The command line prints the message
alone and exits with `exit_code`; the library lets it propagate. A *failed call* is not an error but a
value (`models.base.Failure`), because one bad answer among two hundred must neither end the run nor
become a score.
"""

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar

from promptmii.extras import unmet


class PromptMIIError(Exception):
    """Base class: catch this to catch everything promptmii raises on purpose."""

    exit_code: ClassVar[int] = 1


class DataError(PromptMIIError, ValueError):
    """The data given cannot be used."""

    exit_code = 2


class ConfigError(PromptMIIError, ValueError):
    """An option or a configuration file is wrong."""

    exit_code = 2


class ArtefactError(PromptMIIError, ValueError):
    """An instruction file, record or run folder cannot be read."""

    exit_code = 2


class OutputError(PromptMIIError, OSError):
    """The output cannot be written, or exists and may not be replaced."""

    exit_code = 2


class ModelError(PromptMIIError, RuntimeError):
    """A model reference cannot be used."""

    exit_code = 3


class UnknownModelError(ModelError, LookupError):
    """No model, folder or weights behind the reference."""


class EndpointError(ModelError, ConnectionError):
    """The server is not there, refuses the key, or keeps failing.

    `kind` is the `FailureKind` of the call that it comes from, where there is one: whoever can wait decides by it.
    """

    def __init__(self, message: str, kind: str | None = None, *, lasting: bool = False) -> None:
        """`lasting`: no later call to this server can work, as with a refused key."""
        super().__init__(message)
        self.kind = kind
        self.lasting = lasting


class UnsupportedError(ModelError):
    """The model cannot do what was asked of it."""


class ScoreRefusedError(PromptMIIError, RuntimeError):
    """Calls failed after all retries, so no number is given for the rest."""

    exit_code = 4


class SpendingLimitError(PromptMIIError, RuntimeError):
    """The next call might cost more than the user allowed, so not all was done."""

    exit_code = 4


class MissingDependencyError(PromptMIIError, ImportError):
    """An optional package is needed for this feature."""

    exit_code = 3

    def __init__(self, feature: str, extra: str, reason: str | None = None) -> None:
        """`reason`: what is missing; without one, what the extra asks for, or why an import failed."""
        reason = (
            reason or ", ".join(unmet(extra).values()) or f"an import fails: {sys.exception() or 'no reason given'}"
        )
        self._arguments = (feature, extra, reason)
        super().__init__(
            f"{feature} needs packages that are not installed ({reason}). Install them with: "
            f"pip install 'promptmii[{extra}]'"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Exceptions are pickled with their message, which is not what this one is made of."""
        return type(self), self._arguments


def nearest(given: str, known: Iterable[str]) -> str:
    """The sentence that helps after an unknown name: the nearest known name, then all of them."""
    names = list(known)
    close = get_close_matches(given.casefold(), [name.casefold() for name in names], n=1, cutoff=0.5)
    hint = next((f"Did you mean {name!r}? " for name in names if close and name.casefold() == close[0]), "")
    return f"{hint}Known: {listed(names) or 'none'}."


def first_line(error: BaseException) -> str:
    """The first line of what an error says; of one that says nothing, its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def counted(number: int, noun: str) -> str:
    """The number with its noun: 1 row, 2 rows."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = 30) -> str:
    """The names in a row; of very many, the first."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
