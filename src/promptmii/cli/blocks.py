"""Blocks of related options. A command takes a whole block as one parameter."""

import inspect
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from promptmii.cli.bars import listening
from promptmii.cli.options import BaseUrl, Context, Follow, MaxCost, Prices, Text, label_list, prices_of, text_setting
from promptmii.cli.terminal import confirmed
from promptmii.errors import ConfigError
from promptmii.files import quoted

if TYPE_CHECKING:
    from promptmii.config import Columns, Endpoint
    from promptmii.progress import Progress
    from promptmii.workbench import Abstain, Followers

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class RowOptions:
    """How to read a labelled table."""

    text: Text = None
    label: Annotated[str | None, typer.Option(help="Label column; detected by default.")] = None
    labels: Annotated[
        str | None, typer.Option(help="Labels in order, comma-separated; a JSON list if labels contain commas.")
    ] = None

    @property
    def columns(self) -> "Columns":
        from promptmii.config import Columns

        return Columns.of(text=text_setting(self.text), label=self.label, labels=label_list(self.labels))


@dataclass(frozen=True)
class AbstainOptions:
    """When to leave a row unlabelled."""

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
        from promptmii.workbench import Abstain

        return Abstain(self.threshold, self.precision, self.held_back)


@dataclass(frozen=True)
class ServeOptions:
    """Model servers to start for the command."""

    serve: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Start servers for an openai:<model>: vllm, llama.cpp, or a command line with {model}, {host} and "
            "{port}.",
        ),
    ] = None
    copies: Annotated[int, typer.Option(help="With --serve: number of servers that share the work.")] = 1
    gpus: Annotated[
        int | None, typer.Option(min=0, help="With --serve: GPUs per server. Default: 1 for vLLM, else 0.")
    ] = None
    ray: Annotated[bool, typer.Option("--ray", help="With --serve: use the nodes of a Ray cluster (RAY_ADDRESS).")] = (
        False
    )

    @contextmanager
    def started(self, reference: str, endpoint: "Endpoint", progress: "Progress") -> "Generator[Endpoint]":
        """Start the model's servers, and yield their endpoint. Without --serve, yield `endpoint` unchanged.

        Raises `ConfigError` for an option that needs --serve.
        """
        from promptmii.config import RayOptions, ServeSettings
        from promptmii.serving import served

        if not self.serve and (self.copies != 1 or self.gpus is not None or self.ray):
            raise ConfigError("--copies, --gpus and --ray are for servers that --serve starts. Add --serve ENGINE.")
        settings = ServeSettings.of(engine=self.serve, copies=self.copies, gpus=self.gpus) if self.serve else None
        ray = RayOptions() if self.ray else None
        with served([reference], settings, endpoint, progress=progress, ray=ray) as running:
            yield running


@dataclass(frozen=True)
class ServerOptions:
    """How to reach models on servers."""

    base_url: BaseUrl = None
    context_length: Context = None
    concurrency: Annotated[int, typer.Option(help="Concurrent requests.")] = 16
    cache: Annotated[Path | None, typer.Option(help="Cache the answers of openai: models in this folder.")] = None
    price: Prices = None

    @property
    def repeated(self) -> str:
        """The address, to append to a command that is printed: instruction files do not keep it."""
        return f" --base-url {quoted(self.base_url)}" if self.base_url else ""

    def endpoint(self, max_cost: float | None = None) -> "Endpoint":
        from promptmii.config import Endpoint

        return Endpoint.of(
            base_url=self.base_url,
            context_length=self.context_length,
            concurrency=self.concurrency,
            cache=str(self.cache) if self.cache else None,
            prices=prices_of(self.price),
            max_cost=max_cost,
        )


@dataclass(frozen=True)
class FollowerOptions:
    """The follower, and how to reach it."""

    follower: Follow = None
    mode: Annotated[
        Literal["choose", "generate"] | None,
        typer.Option(
            help="choose compares label likelihoods; generate reads the label from text. Default: as in the file."
        ),
    ] = None
    server: ServerOptions = ServerOptions()
    max_cost: MaxCost = None

    @property
    def endpoint(self) -> "Endpoint":
        return self.server.endpoint(self.max_cost)

    @contextmanager
    def followers(
        self,
        *,
        quiet: bool = False,
        servers: "ServeOptions | None" = None,
        named: str | None = None,
        batch: bool = False,
    ) -> Generator["Followers"]:
        """Yield the command's followers and close them at the end. Shows a progress bar unless `quiet`.

        `servers` are started for --follower or, by default, for the model `named`. With `batch`, requests go to the
        Batch API.
        """
        from promptmii.models import DEFAULT
        from promptmii.workbench import Followers, batch_followers

        servers, make = servers or ServeOptions(), batch_followers if batch else Followers
        with (
            listening(quiet=quiet) as progress,
            servers.started(self.follower or named or DEFAULT, self.endpoint, progress) as endpoint,
            closing(make(self.follower, endpoint, progress, confirmed, mode=self.mode)) as followers,
        ):
            yield followers


def blocks(command: Command) -> Command:
    """Expand each block among the command's parameters into its options."""
    signature = inspect.signature(command)
    parameters = signature.parameters.values()

    @wraps(command)
    def run(**values: Any) -> Any:
        return command(**{p.name: _bind(p.name, p.annotation, values) for p in parameters})

    options = [option for parameter in parameters for option in _options(parameter)]
    run.__signature__ = signature.replace(parameters=options)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run  # pyright: ignore[reportReturnType]


def _bind(name: str, kind: Any, values: dict[str, Any]) -> Any:
    """The value of an option, or a block filled with the values of its options."""
    if not is_dataclass(kind):
        return values[name]
    block: Any = kind
    return block(**{f.name: _bind(f.name, f.type, values) for f in fields(kind)})


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameter as an option, or all options of its block."""
    block = parameter.annotation
    if not is_dataclass(block):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    inner = [parameter.replace(name=f.name, default=f.default, annotation=f.type) for f in fields(block)]
    return [option for field in inner for option in _options(field)]
