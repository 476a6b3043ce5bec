"""Options that come together, each block in one place: a command takes a block as one parameter."""

import inspect
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from promptmii.cli.options import BaseUrl, Context, Follow, MaxCost, Prices, Text, label_list, prices_of, text_of
from promptmii.cli.terminal import confirmed, listening
from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.config import Columns, Endpoint
    from promptmii.instruction import Mode
    from promptmii.progress import Progress
    from promptmii.workbench import Abstain, Followers

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class RowOptions:
    """How a labelled table is read."""

    text: Text = None
    label: Annotated[str | None, typer.Option(help="Label column; detected by default.")] = None
    labels: Annotated[
        str | None,
        typer.Option(help="Labels in order, comma-separated; a JSON list if labels contain commas."),
    ] = None

    @property
    def columns(self) -> "Columns":
        """As settings."""
        from promptmii.config import Columns

        return Columns.of(text=text_of(self.text), label=self.label, labels=label_list(self.labels))


@dataclass(frozen=True)
class AbstainOptions:
    """When a row gets no label."""

    threshold: Annotated[
        float | None, typer.Option(help="Give no label to rows with a lower probability than this.")
    ] = None
    precision: Annotated[
        float | None, typer.Option(help="Choose the threshold so that this share of the labels is right.")
    ] = None
    held_back: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Labelled, unseen rows on which --precision chooses the threshold."),
    ] = None

    @property
    def abstain(self) -> "Abstain":
        """As settings."""
        from promptmii.workbench import Abstain

        return Abstain(self.threshold, self.precision, self.held_back)


@dataclass(frozen=True)
class ServeOptions:
    """Servers that are started for the command."""

    serve: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Start servers for an openai:<model>: vllm, llama.cpp, or a command line with {model}, {host} and "
            "{port}.",
        ),
    ] = None
    copies: Annotated[int, typer.Option(help="With --serve: number of servers that share the work.")] = 1
    gpus: Annotated[int | None, typer.Option(help="With --serve: GPUs per server; default 1 for vLLM, else 0.")] = None
    ray: Annotated[bool, typer.Option("--ray", help="With --serve: use the nodes of a Ray cluster (RAY_ADDRESS).")] = (
        False
    )

    @contextmanager
    def endpoint(self, reference: str, endpoint: "Endpoint", progress: "Progress") -> "Generator[Endpoint]":
        """The endpoint of the model while its servers run; unchanged without any."""
        from promptmii.config import RayOptions, ServeSettings
        from promptmii.serving import served

        settings = ServeSettings.of(engine=self.serve, copies=self.copies, gpus=self.gpus) if self.serve else None
        ray = RayOptions() if self.ray else None
        with served([reference], settings, endpoint, progress=progress, ray=ray) as reached:
            yield reached


@dataclass(frozen=True)
class ServerOptions:
    """How models on servers are reached."""

    base_url: BaseUrl = None
    context_length: Context = None
    concurrency: Annotated[int, typer.Option(help="Concurrent requests.")] = 16
    cache: Annotated[
        Path | None, typer.Option(help="Folder that caches answers of openai: models; failures are never cached.")
    ] = None
    price: Prices = None

    def endpoint(self, max_cost: float | None = None) -> "Endpoint":
        """As settings. Raises `ConfigError`."""
        from promptmii.config import Endpoint

        changes = {"cache": str(self.cache) if self.cache else None, "prices": prices_of(self.price)}
        same = {name: getattr(self, name) for name in ("base_url", "context_length", "concurrency")}
        return Endpoint.of(**same, **changes, max_cost=max_cost)


@dataclass(frozen=True)
class FollowerOptions:
    """Who answers, and how it is reached."""

    follower: Follow = None
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="choose|generate",
            help="choose compares label likelihoods; generate reads the label from text. Default: as it was made.",
        ),
    ] = None
    server: ServerOptions = ServerOptions()
    max_cost: MaxCost = None

    @property
    def endpoint(self) -> "Endpoint":
        """As settings. Raises `ConfigError`."""
        return self.server.endpoint(self.max_cost)

    @property
    def known_mode(self) -> "Mode | None":
        """--mode. Raises `ConfigError`."""
        if self.mode in (None, "choose", "generate"):
            return self.mode
        raise ConfigError(f"--mode is {self.mode!r}; expected choose or generate.")

    @contextmanager
    def followers(
        self,
        *,
        quiet: bool = False,
        servers: "ServeOptions | None" = None,
        named: str | None = None,
        batch: bool = False,
    ) -> Generator["Followers"]:
        """The followers of the command, with a bar unless `quiet`. Closes them at the end.

        `servers` are started for the follower of the command, or else for the one that is `named`. With `batch` they
        ask the Batch API.
        """
        from promptmii.models import DEFAULT
        from promptmii.workbench import Followers, batch_followers

        mode, servers, make = self.known_mode, servers or ServeOptions(), batch_followers if batch else Followers
        with (
            listening(quiet=quiet) as progress,
            servers.endpoint(self.follower or named or DEFAULT, self.endpoint, progress) as endpoint,
            closing(make(self.follower, endpoint, progress, confirmed, mode=mode)) as followers,
        ):
            yield followers


def blocks(command: Command) -> Command:
    """The command with every parameter that is a block replaced by the options of the block."""
    signature = inspect.signature(command)
    given = signature.parameters.values()

    @wraps(command)
    def run(**values: Any) -> Any:
        return command(**{one.name: _made(one.name, one.annotation, values) for one in given})

    parameters = [option for one in given for option in _options(one)]
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run  # pyright: ignore[reportReturnType]


def _made(name: str, kind: Any, values: dict[str, Any]) -> Any:
    """The value of an option, or a block of them."""
    if not is_dataclass(kind):
        return values[name]
    block: Any = kind
    return block(**{f.name: _made(f.name, f.type, values) for f in fields(kind)})


def _options(one: inspect.Parameter) -> list[inspect.Parameter]:
    """A parameter as an option, or those of its block."""
    if not is_dataclass(one.annotation):
        return [one.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    inner = [one.replace(name=f.name, default=f.default, annotation=f.type) for f in fields(one.annotation)]
    return [option for field in inner for option in _options(field)]
