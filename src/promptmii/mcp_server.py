"""An MCP server with promptmii's commands as tools for coding agents. Standard output carries only the protocol.

The arguments of a call may come from a page that the agent read. So only the command line names models and servers, and
no call replaces a file. Errors are returned as messages.
"""

import inspect
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from promptmii import pipeline, table_formats, workbench
from promptmii.config import Columns, InduceSettings
from promptmii.errors import OutputError, PromptMIIError, required_by
from promptmii.instruction import Instruction, Mode
from promptmii.progress import Progress, Unit
from promptmii.version import VERSION
from promptmii.workbench.followers import ModelPool

if TYPE_CHECKING:
    from mcp.server import MCPServer

NOTICE_EVERY = 0.5
"""Seconds between progress notices."""
GUIDE = (
    "promptmii writes a short instruction for a text-classification task from labelled examples, and measures it. "
    "Start with induce; then classify texts, score the instruction on other rows, or compare several."
)

MOST_ROWS = 20
"""Maximum number of disagreements returned to the agent."""

Data = Annotated[str, Field(description=f"Path of a table: {table_formats.NAMES}.")]
File = Annotated[str, Field(description="Path of an instruction that induce saved.")]
Prompt = Annotated[str, Field(description="Path of an instruction or of a text file, or the text itself.")]
Text = Annotated[str | None, Field(description="Text column; detected when absent.")]
Label = Annotated[str | None, Field(description="Label column; detected when absent.")]


def server(settings: InduceSettings, mode: Mode | None = None) -> "MCPServer[Any]":
    """The server, with the generator and the follower of `settings`.

    `mode` overrides the mode in which an instruction was measured. Raises `MissingDependencyError` if the package mcp
    is missing.
    """
    with required_by("promptmii mcp", "mcp"):
        from mcp.server import MCPServer
    tools = Tools(settings, mode)
    app = MCPServer[Any]("promptmii", instructions=GUIDE, version=VERSION, log_level="WARNING")
    for tool in (tools.induce, tools.score, tools.compare, tools.classify):
        app.tool()(_served(tool))
    return app


class Tools:
    """The tools. Calls run one at a time, and models stay loaded between calls."""

    def __init__(self, settings: InduceSettings, mode: Mode | None) -> None:
        self._settings = settings
        self._mode: Mode | None = mode
        load = settings.endpoint.loader()
        models = ModelPool(lambda _, reference: load(reference))
        self._models = models.at(settings.endpoint)

    def induce(
        self,
        data: Data,
        output: Annotated[str, Field(description="Instruction file to write, such as tickets.json.")],
        n: Annotated[int | None, Field(description="Examples that the writer reads; default: 20, or fewer.")] = None,
        evaluate: Annotated[int, Field(description="Held-back rows to measure on; 0 skips the measurement.")] = 200,
        text: Text = None,
        label: Label = None,
        *,
        progress: Progress,
    ) -> dict[str, Any]:
        """Write an instruction from labelled rows, save it, and measure it beside the label list and the examples."""
        if os.path.lexists(output):
            raise OutputError(f"{output} exists already, and this tool never replaces a file. Choose another name.")
        columns = Columns.of(text=text, label=label)
        changes = {"evaluate": evaluate, "columns": columns} | ({} if n is None else {"n": n})
        settings = self._settings.model_copy(update=changes)
        induced = pipeline.induce(data, settings, output=output, progress=progress, models=self._models)
        return {"saved": str(induced.path)} | induced.as_json()

    def score(
        self, instruction: Prompt, data: Data, text: Text = None, label: Label = None, *, progress: Progress
    ) -> dict[str, Any]:
        """Measure an instruction, or any text, on labelled rows; those it was made from are left out."""
        with self._followers(progress) as followers:
            return workbench.score(instruction, data, followers, Columns.of(text=text, label=label)).as_json()

    def compare(
        self,
        prompts: Annotated[list[str], Field(description="Instruction files, texts, naive or icl; the new one first.")],
        data: Data,
        text: Text = None,
        label: Label = None,
        *,
        progress: Progress,
    ) -> dict[str, Any]:
        """Measure prompts on the same rows: scores, paired differences, and some of the rows where they disagree."""
        with self._followers(progress) as followers:
            comparison = workbench.compare(prompts, data, followers, Columns.of(text=text, label=label)).as_json()
        rows = comparison["disagreements"]
        return comparison | {"disagreements": rows[:MOST_ROWS], "disagreeing": len(rows)}

    def classify(
        self,
        instruction: File,
        texts: Annotated[list[str], Field(description="Texts to label.")],
        *,
        progress: Progress,
    ) -> list[dict[str, Any]]:
        """Label texts with an instruction. A failed call is a failure, never a label."""
        loaded = Instruction.load(instruction)
        with self._followers(progress) as followers:
            predictions = workbench.predict(loaded, texts, followers).predictions
        return [
            {
                "label": prediction.label,
                "probabilities": prediction.probabilities
                and dict(zip(loaded.labels, prediction.probabilities, strict=True)),
                "failure": prediction.failure.message if prediction.failure else None,
            }
            for prediction in predictions
        ]

    def _followers(self, progress: Progress) -> closing[workbench.Followers]:
        endpoint = self._settings.endpoint
        return closing(
            workbench.Followers(self._settings.follower, endpoint, progress, mode=self._mode, models=self._models)
        )


_LOCK = threading.Lock()


class _Notices:
    """Sends progress to the client as notices, from any thread."""

    def __init__(self, send: Callable[[int, str], object]) -> None:
        """`send` takes a growing number and a message."""
        self._send = send
        self._name, self._unit = "", "rows"
        self._done, self._total = 0, 0
        self._sent, self._next = 0, 0.0
        """Notices sent, and the time from which another one may be sent of finished units."""

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        self._name, self._unit = name, unit
        self._done, self._total = 0, total or 0
        self.note(name)

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:  # noqa: ARG002
        self._done += amount
        if time.monotonic() >= self._next:
            of_total = f" of {self._total:,}" if self._total else ""
            self.note(f"{self._name}: {self._done:,}{of_total} {self._unit}")

    def note(self, message: str) -> None:
        self._sent += 1
        self._next = time.monotonic() + NOTICE_EVERY
        self._send(self._sent, message)


def _served(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Adapt a tool to the package `mcp`: `progress` becomes notices, and expected errors become messages."""
    from anyio import from_thread
    from anyio.lowlevel import current_token
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def call(*args: Any, ctx: Any, **kwargs: Any) -> Any:
        loop = from_thread.run_sync(current_token)

        def send(number: int, message: str) -> None:
            with suppress(Exception):  # a lost client must not stop the work
                from_thread.run(ctx.report_progress, number, None, message, token=loop)

        try:
            with _LOCK:
                return tool(*args, progress=_Notices(send), **kwargs)
        except (PromptMIIError, OSError, ValueError) as error:
            raise ToolError(str(error)) from error

    signature = inspect.signature(tool)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "progress"]
    parameters.append(inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=Context))
    call.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": signature.return_annotation}
    return call
