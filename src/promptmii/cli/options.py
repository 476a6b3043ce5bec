"""Options shared by several commands, and their parsers."""

import json
import math
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptmii import table_formats
from promptmii.cli.terminal import out
from promptmii.errors import ConfigError
from promptmii.models.references import DEFAULT, PREFIXES, WRITER

if TYPE_CHECKING:
    from promptmii.models.base import Price
    from promptmii.schema import Settings


def _list_recipes(ctx: typer.Context, requested: bool) -> None:
    if not requested:
        return
    from promptmii.configs import FOLDER, recipes, summary

    top: Any = ctx
    while top.parent.parent:  # `build` is below `corpus`, whose recipes it takes
        top = top.parent
    command = "train" if top.info_name == "launch" else str(top.info_name)
    for name, path in recipes(command).items():
        out.write_line(f"{name}: {summary(path)}")
    out.write_line(f"Copy and edit them: {FOLDER / command}")
    raise typer.Exit


Recipe = typer.Argument(help="Recipe (see --list), or a TOML file. Options override it.")
ListRecipes = Annotated[bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="Print the recipes.")]
Data = Annotated[
    str,
    typer.Argument(
        help=f"Table: {table_formats.NAMES} (also .gz), a `datasets` folder, or hub:owner/name[:config][@revision]."
    ),
]
Prompt = Annotated[str, typer.Argument(help="Instruction file, text file, the text itself, or - for standard input.")]
File = Annotated[Path, typer.Argument(help="Instruction file made by `promptmii induce`.")]
Text = Annotated[
    list[str] | None,
    typer.Option(
        help='Text column; detected by default. Repeat it for several, or give a template: "{premise} || {hypothesis}".'
    ),
]
Generator = Annotated[str, typer.Option(help=f"Model that writes: {WRITER}, {PREFIXES}")]
Follow = Annotated[
    str | None,
    typer.Option(
        help=f"Model that labels: {DEFAULT}, {PREFIXES} Default: the follower in the instruction file, or {DEFAULT}."
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="Server address for openai: models, or several, comma-separated. Default: OPENAI_BASE_URL."),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context-length",
        help="Context length in tokens; overrides the one that the server or the GGUF model reports.",
    ),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="Price per million tokens: [MODEL=]PROMPT,COMPLETION, optionally with ,cached=PRICE ,batch=FACTOR and "
        ",min=TOKENS (the shortest prefix that is cached); repeatable.",
    ),
]
MaxCost = Annotated[float | None, typer.Option("--max-cost", help="Spending limit of this run; needs --price.")]


def N(help: str) -> Any:  # noqa: N802
    """The option -n of every command."""
    return typer.Option("-n", "--n", help=help)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output file.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any setting of the TOML file, such as endpoint.patience=60; repeatable."
    ),
]


def settings_of(assignments: list[str] | None) -> dict[str, Any]:
    """All --set options as nested tables. A value that is not TOML becomes a string. Raises `ConfigError`."""
    from promptmii.schema import merged

    settings: dict[str, Any] = {}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--set is {assignment!r}; expected NAME=VALUE, such as endpoint.patience=60.")
        try:
            tables: Any = tomllib.loads(f"value = {value.strip()}")["value"]
        except (ValueError, RecursionError):
            tables = value.strip()
        for key in reversed(name.strip().split(".")):
            tables = {key: tables}
        settings = merged(settings, tables)
    return settings


def show_defaults(command: Any, *tables: "type[Settings]") -> None:
    """Show the defaults of settings in a command's help. A setting has the name of its option, or the plural."""
    settings = {name: field for table in tables for name, field in table.model_fields.items()}
    for option in command.params:
        field = settings.get(option.name) or settings.get(f"{option.name}s")
        value = field.get_default(call_default_factory=True) if field and not field.is_required() else None
        if value or type(value) is int:  # not None, False or an empty list
            option.show_default = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def prompt_of(argument: str) -> str:
    """A prompt argument, with `-` replaced by standard input."""
    from promptmii.data.decoding import decode

    return decode(sys.stdin.buffer.read(), "Standard input") if argument == "-" else argument


def destination(output: Path | None, instruction: Path, *, force: bool) -> tuple[Path, bool]:
    """The file to write, and whether to replace it: without -o, the instruction file. Raises `OutputError`."""
    from promptmii.files import check_writable

    path, force = (output, force) if output else (instruction, True)
    check_writable(path, force=force)
    return path, force


def text_setting(columns: list[str] | None) -> str | tuple[str, ...] | None:
    """The --text options as a setting: a column or template, several columns, or None."""
    if not columns:
        return None
    return columns[0] if len(columns) == 1 else tuple(columns)


def comma_separated(text: str | None) -> tuple[str, ...] | None:
    """The non-empty parts of a comma-separated list."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def whole_numbers(text: str | None) -> tuple[int, ...] | None:
    """The numbers of a comma-separated list. Raises `ConfigError`."""
    try:
        return None if text is None else tuple(int(part) for part in comma_separated(text) or ())
    except ValueError as error:
        raise ConfigError(f"-n is {text!r}; expected whole numbers, comma-separated, such as 5,20,50.") from error


def label_list(text: str | None) -> tuple[str, ...] | None:
    """The labels in --labels. Raises `ConfigError`."""
    if text and text.lstrip().startswith("["):
        try:
            return tuple(str(label) for label in json.loads(text))
        except ValueError as error:
            raise ConfigError(
                f'--labels looks like JSON but is not: {error}. Expected a list such as \'["a, b", "c"]\'.'
            ) from error
    return comma_separated(text) or None


def prices_of(options: list[str] | None) -> dict[str, "Price"]:
    """All --price options, by model. Raises `ConfigError`."""
    return dict(map(_price, options or []))


_PRICE = re.compile(r"(?:(?P<model>.*)=)?(?P<money>[^=,]+,[^=,]+)(?P<terms>(?:,(?:cached|min|batch)=[^=,]+)*)")


def _price(text: str) -> tuple[str, "Price"]:
    from promptmii.models.base import Price

    try:
        parts = _PRICE.fullmatch(text)
        if parts is None:
            raise ValueError(text)
        prompt, completion = map(float, parts["money"].split(","))
        terms = dict(term.split("=") for term in parts["terms"].split(",") if term)
        price = Price(
            prompt,
            completion,
            cached=float(terms["cached"]) if "cached" in terms else None,
            minimum=int(terms.get("min", Price(0, 0).minimum)),
            batch=float(terms.get("batch", 1.0)),
        )
        if not all(math.isfinite(number) and number >= 0 for number in price if number is not None):
            raise ValueError(text)
    except ValueError as error:
        raise ConfigError(
            f"--price is {text!r}; expected money per million tokens as [MODEL=]PROMPT,COMPLETION, like 0.1,0.4, "
            "then any of cached=0.01, min=1024, batch=0.5."
        ) from error
    return parts["model"] or "*", price
