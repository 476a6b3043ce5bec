"""`promptmii report`: draw what runs found."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.options import Json
from promptmii.cli.terminal import dump, listening, say


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `promptmii evaluate` and of training.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the page, the figures and the tables.", show_default="report"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write one Markdown page, with its figures in a folder beside it; -o adds the full report."),
    ] = None,
    json: Json = False,
) -> None:
    """Report on runs: one self-contained page, figures (SVG, PNG, PDF, LaTeX), tables (CSV, Markdown, LaTeX)."""
    from promptmii.report.markdown import write_markdown
    from promptmii.report.page import write_report

    with listening(quiet=json) as progress:
        progress.step("Writing the report")
        text = write_markdown(runs, markdown) if markdown else None
        page = write_report(runs, output or Path("report")) if output or not markdown else None
    if json:
        dump({"markdown": text, "page": page})
        return
    if text:
        say(f"Wrote {text}.")
    if page:
        say(f"Open {page} in a browser.")
