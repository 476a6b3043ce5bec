"""An MCP server: what promptmii does, as tools for coding agents. Standard output holds the protocol alone.

What an agent sends may come from a page that it read. So models and servers are named where the server is started,
never in a call, no file is replaced, and what goes wrong is a message.
"""

from collections.abc import Callable
from contextlib import closing
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from pydantic import Field

from promptmii import pipeline, workbench
from promptmii.config import Columns, InduceSettings
from promptmii.errors import MissingDependencyError, PromptMIIError
from promptmii.instruction import Instruction, Mode
from promptmii.version import VERSION

if TYPE_CHECKING:
    from mcp.server import MCPServer

P = ParamSpec("P")
R = TypeVar("R")
GUIDE = (
    "promptmii writes a short instruction for a text-classification task from labelled examples, and measures it. "
    "Start with induce; then classify texts, score the instruction on other rows, or compare several."
)

SHOWN = 20
"""Rows on which prompts disagree that an agent gets to read."""

Data = Annotated[str, Field(description="Path of a table: csv, tsv, json, jsonl, parquet or xlsx.")]
File = Annotated[str, Field(description="Path of an instruction that induce saved.")]
Prompt = Annotated[str, Field(description="Path of an instruction or of a text file, or the text itself.")]
Text = Annotated[str | None, Field(description="Text column; detected when absent.")]
Label = Annotated[str | None, Field(description="Label column; detected when absent.")]


def server(settings: InduceSettings, mode: Mode | None = None) -> "MCPServer[Any]":
    """The server. It writes with the generator of `settings`, and labels with their follower if they name one.

    `mode` goes before the one with which an instruction was measured. Raises `MissingDependencyError` where the package
    mcp is not installed.
    """
    try:
        from mcp.server import MCPServer
    except ImportError as error:
        raise MissingDependencyError("promptmii mcp", "mcp") from error
    tools = Tools(settings, mode)
    app = MCPServer[Any]("promptmii", instructions=GUIDE, version=VERSION, log_level="WARNING")
    app.tool()(_with_messages(tools.induce))
    app.tool()(_with_messages(tools.score))
    app.tool()(_with_messages(tools.compare))
    app.tool()(_with_messages(tools.classify))
    return app


class Tools:
    """The tools, over the service layer."""

    def __init__(self, settings: InduceSettings, mode: Mode | None) -> None:
        self._settings = settings
        self._mode: Mode | None = mode

    def induce(
        self,
        data: Data,
        output: Annotated[str, Field(description="Instruction file to write, such as tickets.json.")],
        n: Annotated[int, Field(description="Labelled examples that the writer reads.")] = 20,
        evaluate: Annotated[int, Field(description="Held-back rows to measure on; 0 measures nothing.")] = 200,
        text: Text = None,
        label: Label = None,
    ) -> dict[str, Any]:
        """Write an instruction from labelled rows, save it, and measure it beside the label list and the examples."""
        columns = Columns.of(text=text, label=label)
        made = pipeline.induce(data, self._settings, output=output, n=n, evaluate=evaluate, columns=columns)
        return {"saved": str(made.path)} | made.as_json()

    def score(self, instruction: Prompt, data: Data, text: Text = None, label: Label = None) -> dict[str, Any]:
        """Measure an instruction, or any text, on labelled rows that it was not made from."""
        with self._followers() as followers:
            return workbench.score(instruction, data, followers, Columns.of(text=text, label=label)).as_json()

    def compare(
        self,
        prompts: Annotated[list[str], Field(description="Instruction files, texts, naive or icl; the new one first.")],
        data: Data,
        text: Text = None,
        label: Label = None,
    ) -> dict[str, Any]:
        """Measure prompts on the same rows: scores, paired differences, and some of the rows where they disagree."""
        with self._followers() as followers:
            found = workbench.compare(prompts, data, followers, Columns.of(text=text, label=label)).as_json()
        return found | {"disagreements": found["disagreements"][:SHOWN], "disagreeing": len(found["disagreements"])}

    def classify(
        self, instruction: File, texts: Annotated[list[str], Field(description="Texts to label.")]
    ) -> list[dict[str, Any]]:
        """Label texts with an instruction. A failed call is a failure, never a label."""
        made = Instruction.load(instruction)
        with self._followers() as followers:
            answers = followers.of(made).predict(made, texts)
        return [
            {
                "label": answer.label,
                "probabilities": answer.probabilities and dict(zip(made.labels, answer.probabilities, strict=True)),
                "failure": answer.failure.message if answer.failure else None,
            }
            for answer in answers
        ]

    def _followers(self) -> closing[workbench.Followers]:
        return closing(workbench.Followers(self._settings.follower, self._settings.endpoint, mode=self._mode))


def _with_messages(tool: Callable[P, R]) -> Callable[P, R]:
    """The tool with every error that promptmii raises on purpose as a message for the agent."""

    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return tool(*args, **kwargs)
        except (PromptMIIError, OSError, ValueError) as error:
            raise ToolError(str(error)) from error

    return told
