"""Options that come together, each block in one place: a command takes a block as one parameter."""

import inspect
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

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
    from promptmii.instruction import Mode
    from promptmii.workbench import Abstain, Followers

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
class AbstainOptions:
    """When a row gets no label."""

    threshold: Annotated[
        float | None, typer.Option(help="Give no label to rows whose label has a lower probability than this.")
    ] = None
    precision: Annotated[
        float | None, typer.Option(help="As --threshold, chosen so that this share of the labels given is right.")
    ] = None
    held_back: Annotated[
        Path | None, typer.Option(help="Labelled rows on which --precision chooses the threshold, not seen before.")
    ] = None

    @property
    def abstain(self) -> "Abstain":
        """As settings."""
        from promptmii.workbench import Abstain

        return Abstain(self.threshold, self.precision, self.held_back)


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

    @property
    def known_mode(self) -> "Mode | None":
        """--mode. Raises `ConfigError`."""
        if self.mode in (None, "choose", "generate"):
            return self.mode
        raise ConfigError(f"--mode is {self.mode!r}; expected choose or generate.")

    @contextmanager
    def followers(self, *, quiet: bool = False) -> Generator["Followers"]:
        """The followers of the command, with a bar unless `quiet`. Closes them at the end."""
        from promptmii.workbench import Followers

        mode, endpoint = self.known_mode, self.endpoint
        with (
            listening(quiet=quiet) as progress,
            closing(Followers(self.follower, endpoint, progress, confirmed, mode=mode)) as followers,
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
