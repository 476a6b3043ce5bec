"""`promptmii mcp`: tools for coding agents."""

from promptmii.cli.blocks import FollowerOptions, blocks
from promptmii.cli.group import app
from promptmii.cli.options import Generator
from promptmii.models.references import WRITER


@app.command()
@blocks
def mcp(answers: FollowerOptions, generator: Generator = WRITER) -> None:
    """Serve induce, score, compare and classify to a coding agent, by MCP over standard input and output."""
    from promptmii.config import InduceSettings
    from promptmii.mcp_server import server

    settings = InduceSettings.of(
        generator=generator, follower=answers.follower, mode=answers.mode or "choose", endpoint=answers.endpoint
    )
    server(settings, settings.mode if answers.mode else None).run()
