"""Options that come together, each block in one place: a command takes a block as one parameter."""

import inspect
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from promptmii.cli.options import (
    BaseUrl,
    Cache,
    Concurrency,
    Context,
    Follow,
    Label,
    Labels,
    MaxCost,
    ModeOf,
    Prices,
    Text,
    columns_of,
    endpoint_of,
)
from promptmii.cli.terminal import confirmed, listening
from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.config import Columns, Endpoint
    from promptmii.workbench import Followers

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class RowOptions:
    """How a labelled table is read."""

    text: Text = None
    label: Label = None
    labels: Labels = None

    @property
    def columns(self) -> "Columns":
        """As settings."""
        return columns_of(self.text, self.label, self.labels)


@dataclass(frozen=True)
class FollowerOptions:
    """Who answers, and how it is reached."""

    follower: Follow = None
    mode: ModeOf = None
    base_url: BaseUrl = None
    context_length: Context = None
    concurrency: Concurrency = 16
    cache: Cache = None
    price: Prices = None
    max_cost: MaxCost = None

    @property
    def endpoint(self) -> "Endpoint":
        """As settings."""
        return endpoint_of(self.base_url, self.context_length, self.concurrency, self.cache, self.price, self.max_cost)

    @contextmanager
    def followers(self, *, quiet: bool = False) -> Generator["Followers"]:
        """The followers of the command, with a bar unless `quiet`. Closes them at the end."""
        from promptmii.workbench import Followers

        if self.mode not in (None, "choose", "generate"):
            raise ConfigError(f"--mode is {self.mode!r}; expected choose or generate.")
        endpoint = self.endpoint
        with (
            listening(quiet=quiet) as progress,
            closing(Followers(self.follower, endpoint, progress, confirmed, mode=self.mode)) as followers,
        ):
            yield followers


def blocks(command: Command) -> Command:
    """The command with every parameter that is a block replaced by the options of the block."""
    signature = inspect.signature(command)
    kinds: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }

    @wraps(command)
    def run(**given: Any) -> Any:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in kinds.items()}
        return command(**given, **made)

    shown = [
        one
        for name, parameter in signature.parameters.items()
        for one in (_options(kinds[name]) if name in kinds else [parameter])
    ]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run  # pyright: ignore[reportReturnType]


def _options(kind: Any) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(kind)
    ]
