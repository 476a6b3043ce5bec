"""Every error that promptmii raises deliberately.

    PromptMIIError
    ├── DataError (ValueError)            the data cannot be used: file, column, label set, number of rows
    ├── ConfigError (ValueError)          an option or a configuration file is wrong
    ├── ArtefactError (ValueError)        an instruction, record or run folder cannot be read
    ├── OutputError (OSError)             the output cannot be written, or exists already
    ├── ModelError (RuntimeError)         a model reference cannot be used
    │   ├── UnknownModelError (LookupError)    no such model, folder or weights
    │   ├── EndpointError (ConnectionError)    the server does not answer, refuses the key, or keeps failing
    │   └── UnsupportedError                   the model lacks a feature, such as likelihoods
    ├── SpendingLimitError (RuntimeError) the next call might exceed --max-cost
    ├── ScoreRefusedError (RuntimeError)  calls failed, so there is no score
    └── MissingDependencyError (ImportError)   an optional package is missing; the message gives the pip command

A message says what was given, what was expected and what to do. The command line prints only the message and exits
with `exit_code`; the library lets the error propagate. A *failed call* is a value (`models.base.Failure`), not an
error: one bad answer in two hundred must neither end a run nor count as an answer.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

from promptmii.extras import unmet


class PromptMIIError(Exception):
    """Base class of all errors that promptmii raises."""

    exit_code: ClassVar[int] = 1


class DataError(PromptMIIError, ValueError):
    """The data cannot be used."""

    exit_code = 2


class ConfigError(PromptMIIError, ValueError):
    """An option or a configuration file is wrong."""

    exit_code = 2


class ArtefactError(PromptMIIError, ValueError):
    """An instruction file, record or run folder cannot be read."""

    exit_code = 2


class OutputError(PromptMIIError, OSError):
    """The output cannot be written, or exists already."""

    exit_code = 2


class ModelError(PromptMIIError, RuntimeError):
    """A model reference cannot be used."""

    exit_code = 3


class UnknownModelError(ModelError, LookupError):
    """No model, folder or weights match the reference."""


class EndpointError(ModelError, ConnectionError):
    """The server does not answer, refuses the key, or keeps failing.

    `kind` is the `FailureKind` of the failed call, if any; some kinds are temporary.
    """

    def __init__(self, message: str, kind: str | None = None, *, lasting: bool = False) -> None:
        """`lasting`: all later calls to this server will fail too, as with a refused key."""
        super().__init__(message)
        self.kind = kind
        self.lasting = lasting


class UnsupportedError(ModelError):
    """The model lacks a feature, such as likelihoods."""


class ScoreRefusedError(PromptMIIError, RuntimeError):
    """Calls failed after all retries, so there is no score."""

    exit_code = 4


class SpendingLimitError(PromptMIIError, RuntimeError):
    """The next call might exceed the spending limit, so the work is incomplete."""

    exit_code = 4


class MissingDependencyError(PromptMIIError, ImportError):
    """An optional package is needed for this feature."""

    exit_code = 3

    def __init__(self, feature: str, extra: str, reason: str | None = None) -> None:
        """`reason` defaults to the missing packages of the extra, or to the import error being handled."""
        reason = (
            reason or ", ".join(unmet(extra).values()) or f"an import fails: {sys.exception() or 'no reason given'}"
        )
        self._arguments = (feature, extra, reason)
        super().__init__(
            f"{feature} cannot work without packages that are not installed ({reason}). Install them with: "
            f"pip install 'promptmii[{extra}]'"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Unpickle with all three arguments; the default would call `__init__` with only the message."""
        return type(self), self._arguments


@contextmanager
def required_by(feature: str, extra: str) -> Generator[None]:
    """Within the context, a failed import becomes a `MissingDependencyError`."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(feature, extra) from error
