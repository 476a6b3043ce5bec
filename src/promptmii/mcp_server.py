"""An MCP server: what promptmii does, as tools for coding agents. Standard output holds the protocol alone.

What an agent sends may come from a page that it read. So models and servers are named where the server is started,
never in a call, no file is replaced, and what goes wrong is a message.
"""

import inspect
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from promptmii import pipeline, workbench
from promptmii.config import Columns, InduceSettings
from promptmii.errors import MissingDependencyError, PromptMIIError
from promptmii.instruction import Instruction, Mode
from promptmii.progress import Progress, Unit
from promptmii.version import VERSION
from promptmii.workbench.followers import KeptModels

if TYPE_CHECKING:
    from mcp.server import MCPServer

TOLD_EVERY = 0.5
"""Seconds between two progress notices."""
GUIDE = (
    "promptmii writes a short instruction for a text-classification task from labelled examples, and measures it. "
    "Start with induce; then classify texts, score the instruction on other rows, or compare several."
)

SHOWN = 20
"""Disagreeing rows that an agent gets."""

Data = Annotated[str, Field(description="Path of a table: csv, tsv, json, jsonl, parquet or xlsx.")]
File = Annotated[str, Field(description="Path of an instruction that induce saved.")]
Prompt = Annotated[str, Field(description="Path of an instruction or of a text file, or the text itself.")]
Text = Annotated[str | None, Field(description="Text column; detected when absent.")]
Label = Annotated[str | None, Field(description="Label column; detected when absent.")]


def server(settings: InduceSettings, mode: Mode | None = None) -> "MCPServer[Any]":
    """The server. It writes with the generator of `settings`, and labels with their follower if they name one.

    `mode` overrides the one with which an instruction was measured. Raises `MissingDependencyError` without the package
    mcp.
    """
    try:
        from mcp.server import MCPServer
    except ImportError as error:
        raise MissingDependencyError("promptmii mcp", "mcp") from error
    tools = Tools(settings, mode)
    app = MCPServer[Any]("promptmii", instructions=GUIDE, version=VERSION, log_level="WARNING")
    for tool in (tools.induce, tools.score, tools.compare, tools.classify):
        app.tool()(_served(tool))
    return app


class Tools:
    """The tools, over the service layer. Calls take turns, and the models stay loaded for the next one."""

    def __init__(self, settings: InduceSettings, mode: Mode | None) -> None:
        self._settings = settings
        self._mode: Mode | None = mode
        limit = settings.endpoint.limit()
        kept = KeptModels(lambda endpoint, reference: endpoint.load(reference, limit=limit))
        self._models = kept.at(settings.endpoint)

    def induce(
        self,
        data: Data,
        output: Annotated[str, Field(description="Instruction file to write, such as tickets.json.")],
        n: Annotated[int, Field(description="Labelled examples that the writer reads.")] = 20,
        evaluate: Annotated[int, Field(description="Held-back rows to measure on; 0 skips the measurement.")] = 200,
        text: Text = None,
        label: Label = None,
        *,
        progress: Progress,
    ) -> dict[str, Any]:
        """Write an instruction from labelled rows, save it, and measure it beside the label list and the examples."""
        columns = Columns.of(text=text, label=label)
        settings = self._settings.model_copy(update={"n": n, "evaluate": evaluate, "columns": columns})
        made = pipeline.induce(data, settings, output=output, progress=progress, models=self._models)
        return {"saved": str(made.path)} | made.as_json()

    def score(
        self, instruction: Prompt, data: Data, text: Text = None, label: Label = None, *, progress: Progress
    ) -> dict[str, Any]:
        """Measure an instruction, or any text, on labelled rows that it was not made from."""
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
            found = workbench.compare(prompts, data, followers, Columns.of(text=text, label=label)).as_json()
        return found | {"disagreements": found["disagreements"][:SHOWN], "disagreeing": len(found["disagreements"])}

    def classify(
        self,
        instruction: File,
        texts: Annotated[list[str], Field(description="Texts to label.")],
        *,
        progress: Progress,
    ) -> list[dict[str, Any]]:
        """Label texts with an instruction. A failed call is a failure, never a label."""
        made = Instruction.load(instruction)
        with self._followers(progress) as followers:
            answers = workbench.predict(made, texts, followers).predictions
        return [
            {
                "label": answer.label,
                "probabilities": answer.probabilities and dict(zip(made.labels, answer.probabilities, strict=True)),
                "failure": answer.failure.message if answer.failure else None,
            }
            for answer in answers
        ]

    def _followers(self, progress: Progress) -> closing[workbench.Followers]:
        endpoint = self._settings.endpoint
        return closing(
            workbench.Followers(self._settings.follower, endpoint, progress, mode=self._mode, models=self._models)
        )


_TURN = threading.Lock()


class _Told:
    """Progress as notices to the client, from whichever thread works."""

    def __init__(self, tell: Callable[[float, str], object]) -> None:
        """`tell` takes a number that grows, and words."""
        self._tell = tell
        self._steps, self._name, self._unit = 0, "", "rows"
        self._done, self._total = 0, 0
        self._told = -TOLD_EVERY

    def step(self, name: str, total: int | None = None, unit: Unit = "rows") -> None:
        """See `Progress`."""
        self._steps, self._name, self._unit = self._steps + 1, name, unit
        self._done, self._total = 0, total or 0
        self._say(name)

    def advance(self, amount: int = 1, done: str = "", *, money: float | None = None) -> None:  # noqa: ARG002
        """See `Progress`."""
        self._done += amount
        if time.monotonic() >= self._told + TOLD_EVERY:
            of = f" of {self._total:,}" if self._total else ""
            self._say(f"{self._name}: {self._done:,}{of} {self._unit}")

    def note(self, message: str) -> None:
        """See `Progress`."""
        self._say(message)

    def _say(self, words: str) -> None:
        """The number is the step, and how much of it is done, so it grows from step to step."""
        self._told = time.monotonic()
        share = self._done / self._total if self._total else 1 - 1 / (1 + self._done)
        self._tell(self._steps + min(share, 0.999), words)


def _served(tool: Callable[..., Any]) -> Callable[..., Any]:
    """A tool as the package `mcp` takes it: `progress` becomes notices, errors raised on purpose become messages."""
    from anyio import from_thread
    from anyio.lowlevel import current_token
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def told(*args: Any, ctx: Any, **kwargs: Any) -> Any:
        loop = from_thread.run_sync(current_token)

        def tell(share: float, words: str) -> None:
            with suppress(Exception):  # a client that is gone ends no work
                from_thread.run(ctx.report_progress, share, None, words, token=loop)

        try:
            with _TURN:
                return tool(*args, progress=_Told(tell), **kwargs)
        except (PromptMIIError, OSError, ValueError) as error:
            raise ToolError(str(error)) from error

    signature = inspect.signature(tool)
    shown = [one for one in signature.parameters.values() if one.name != "progress"]
    own = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=Context)
    told.__signature__ = signature.replace(parameters=[*shown, own])  # pyright: ignore[reportAttributeAccessIssue]
    told.__annotations__ = {one.name: one.annotation for one in (*shown, own)} | {"return": signature.return_annotation}
    return told
