"""`promptmii styles`: how a released checkpoint is asked, and how what it writes is followed."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.group import Group, app
from promptmii.cli.options import Json
from promptmii.cli.terminal import data, dump, out, say

styles_app = typer.Typer(cls=Group, no_args_is_help=True, help="Prompts of released checkpoints, such as the paper's.")
app.add_typer(styles_app, name="styles")


@styles_app.command("import")
def import_(
    checkout: Annotated[Path, typer.Argument(help="A checkout of github.com/millix19/promptmii.")],
) -> None:
    """Read the paper's prompts from its authors' code, which is checked by hash and never run."""
    from promptmii.styles import import_styles

    for name in import_styles(checkout):
        say(f"Imported {name}.")
    say("Use one behind a generator: openai:MODEL#promptmii-llama; for icl: --set options.icl.style=promptmii-icl")


@styles_app.command("list")
def show_list(json: Json = False) -> None:
    """The styles on this machine, with their hashes."""
    from promptmii.styles import names, read_style

    keys = {name: read_style(name).key for name in names()}
    if json:
        dump(keys)
        return
    for name, key in keys.items():
        out.write_line(f"{name:<22} {key}")


@styles_app.command("show")
def show(name: Annotated[str, typer.Argument(help="A style, as `promptmii styles list` names it.")]) -> None:
    """A style as JSON: both prompts and the limits."""
    from promptmii.styles import read_style

    data(read_style(name).model_dump_json(indent=2) + "\n")
