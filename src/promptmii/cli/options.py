"""Options that several commands share, and how they are parsed."""

import json as json_module
import math
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptmii.cli.terminal import out
from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.models.base import Price


def _list_recipes(ctx: typer.Context, asked: bool) -> None:
    if not asked:
        return
    from promptmii.configs import FOLDER, recipes, summary

    command = ctx.command_path.split()[1]
    for name, path in recipes(command).items():
        out.write_line(f"{name}: {summary(path)}")
    out.write_line(f"Copy and edit them: {FOLDER / command}")
    raise typer.Exit


Recipe = typer.Argument(help="TOML file, or the name of a recipe (see --list). Options override it.")
ListRecipes = Annotated[bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="Print the recipes.")]
Data = Annotated[
    str,
    typer.Argument(
        help="csv, tsv, json, jsonl, parquet, xlsx (also .gz), `datasets` folder, hub:owner/name[:config][@revision]."
    ),
]
Prompt = Annotated[
    str,
    typer.Argument(help="Instruction file, text file, the text itself, or - for standard input."),
]
File = Annotated[Path, typer.Argument(help="Instruction file made by `promptmii induce`.")]
Text = Annotated[
    list[str] | None,
    typer.Option(
        help='Text column; detected by default. Repeat it for several, or give a template: "{premise} || {hypothesis}".'
    ),
]
Generator = Annotated[str, typer.Option(help="Model that writes: qwen-writer, gguf:..., hf:..., openai:...")]
Follow = Annotated[
    str | None,
    typer.Option(
        help="Model that labels: qwen, gguf:..., hf:..., openai:... "
        "Default: the one in the instruction file, or the one under the writer."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="Server address(es) for openai: models, comma-separated; default OPENAI_BASE_URL.")
]
Context = Annotated[
    int | None,
    typer.Option("--context-length", help="Context length in tokens, if the server does not report it."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="Price per million tokens: [MODEL=]PROMPT,COMPLETION, optionally followed by ,cached=PRICE ,min=TOKENS "
        "(the shortest cached prefix) and ,batch=FACTOR. Repeat it for several models.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", help="Spending limit of this run; needs --price. Run it again to continue."),
]


def N(help: str) -> Any:  # noqa: N802
    """The option -n, the same in every command."""
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


def settings_of(given: list[str] | None) -> dict[str, Any]:
    """All --set options as nested tables. Values are parsed as TOML, else taken as text. Raises `ConfigError`."""
    from promptmii.schema import merged

    found: dict[str, Any] = {}
    for setting in given or []:
        name, equals, value = setting.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--set is {setting!r}; expected NAME=VALUE, such as endpoint.patience=60.")
        table = _value(value.strip())
        for part in reversed(name.strip().split(".")):
            table = {part: table}
        found = merged(found, table)
    return found


def prompt_of(given: str) -> str:
    """The given prompt; `-` reads standard input."""
    from promptmii.data.decoding import decode

    return decode(sys.stdin.buffer.read(), "Standard input") if given == "-" else given


def text_of(given: list[str] | None) -> str | tuple[str, ...] | None:
    """--text: a column or a template, several columns, or none."""
    return None if not given else given[0] if len(given) == 1 else tuple(given)


def comma_separated(given: str | None) -> tuple[str, ...] | None:
    """The non-empty parts of a comma-separated list."""
    return None if given is None else tuple(part.strip() for part in given.split(",") if part.strip())


def whole_numbers(given: str | None) -> tuple[int, ...] | None:
    """The numbers of a comma-separated list. Raises `ConfigError`."""
    try:
        return None if given is None else tuple(int(part) for part in comma_separated(given) or ())
    except ValueError as error:
        raise ConfigError(f"-n is {given!r}; expected whole numbers, comma-separated, such as 5,20,50.") from error


def _value(given: str) -> Any:
    try:
        return tomllib.loads(f"value = {given}")["value"]
    except (ValueError, RecursionError):
        return given


def label_list(given: str | None) -> tuple[str, ...] | None:
    """--labels. Raises `ConfigError`."""
    if given and given.lstrip().startswith("["):
        try:
            return tuple(str(label) for label in json_module.loads(given))
        except ValueError as error:
            raise ConfigError(
                f'--labels looks like JSON but is not: {error}. Expected a list such as \'["a, b", "c"]\'.'
            ) from error
    return comma_separated(given) or None


def prices_of(given: list[str] | None) -> dict[str, "Price"]:
    """Every --price, by model. Raises `ConfigError`."""
    return dict(map(_price, given or []))


_PRICE = re.compile(r"(?:(?P<model>.*)=)?(?P<money>[^=,]+,[^=,]+)(?P<more>(?:,(?:cached|min|batch)=[^=,]+)*)")


def _price(given: str) -> tuple[str, "Price"]:
    from promptmii.models.base import Price

    try:
        parts = _PRICE.fullmatch(given)
        if parts is None:
            raise ValueError(given)
        prompt, completion = map(float, parts["money"].split(","))
        more = dict(part.split("=") for part in parts["more"].split(",") if part)
        price = Price(
            prompt,
            completion,
            cached=float(more["cached"]) if "cached" in more else None,
            minimum=int(more.get("min", Price(0, 0).minimum)),
            batch=float(more.get("batch", 1.0)),
        )
        if not all(math.isfinite(x) and x >= 0 for x in price if x is not None):
            raise ValueError(given)
    except ValueError as error:
        raise ConfigError(
            f"--price is {given!r}; expected money per million tokens as [MODEL=]PROMPT,COMPLETION, like 0.1,0.4, "
            "then any of cached=0.01, min=1024, batch=0.5."
        ) from error
    return parts["model"] or "*", price
