"""`promptmii ui` and `promptmii mcp`: the page in the browser, and the tools for coding agents."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, blocks
from promptmii.cli.group import app
from promptmii.cli.options import Generator
from promptmii.cli.terminal import say
from promptmii.errors import MissingDependencyError
from promptmii.models.references import WRITER


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Local port; 0 picks a free one.")] = 8766,
    home: Annotated[Path | None, typer.Option(help="Folder for history and tables. Default: your data folder.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder with runs of `promptmii evaluate`.")] = Path("runs"),
    browser: Annotated[bool, typer.Option(help="Open the page in your browser.")] = True,
) -> None:
    """Write, edit, try and export instructions in your browser."""
    import secrets
    import webbrowser

    try:
        from promptmii.ui.app import LOOPBACK, listening_socket, make_app, serve
        from promptmii.ui.store import home_folder
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("promptmii"):
            raise
        raise MissingDependencyError("The page", "ui") from error
    token = secrets.token_urlsafe(24)
    bound = listening_socket(port)
    served = make_app(home or home_folder(), token, runs=runs)
    address = f"http://{LOOPBACK}:{bound.getsockname()[1]}/?token={token}"
    say(f"Open {address}")
    say("Only this machine can reach it. Ctrl-C stops it; your history is kept.")
    if browser:
        webbrowser.open(address)
    try:
        serve(served, bound)
    except KeyboardInterrupt:  # the usual way to stop it
        say("Stopped.")


@app.command()
@blocks
def mcp(answers: FollowerOptions, generator: Generator = WRITER) -> None:
    """Let a coding agent induce, score, compare and classify (MCP over standard input and output).

    Without --follower, the base model of the generator follows a new instruction.
    """
    from promptmii.config import InduceSettings
    from promptmii.mcp_server import server

    settings = InduceSettings.of(
        generator=generator, follower=answers.follower, mode=answers.mode or "choose", endpoint=answers.endpoint
    )
    server(settings, settings.mode if answers.mode else None).run()
