"""`promptmii report`: draw what runs found."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.terminal import listening, say


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `promptmii evaluate` and of training.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the page, the figures and the tables.")
    ] = Path("report"),
) -> None:
    """Draw what runs found: one self-contained page, figures as SVG and PNG, tables as CSV and Markdown."""
    from promptmii.report.page import write_report

    with listening() as progress:
        progress.step("Writing the report")
        page = write_report(runs, output)
    say(f"Open {page} in a browser.")
