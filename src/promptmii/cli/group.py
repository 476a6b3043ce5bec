"""The typer application. It turns errors into one line and an exit code (docs/errors.md)."""

import errno
import os
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from promptmii.cli.terminal import PROCESS, data, say, tolerate_encodings
from promptmii.cli.terminal import error as show_error
from promptmii.errors import PromptMIIError
from promptmii.files import no_room

# Exit codes, besides those of the errors.
CHECK_FAILED = 1
UNUSABLE_INPUT = 2
CALLS_FAILED = 4
NOT_YET = 5
INTERRUPTED = 130
LONGEST_SUMMARY = 200
"""Maximum length in characters of a command's first help sentence."""

ORDER = (
    *("induce", "predict", "score", "compare", "calibrate", "edit", "extend", "review", "show", "export", "ui"),
    *("evaluate", "report", "train", "launch", "doctor", "mcp", "corpus", "models", "styles"),
)
"""Order of the commands in `promptmii --help`."""

_AGAIN = "Run the same command again to continue: "
_RESUME = "Run it again with --resume to continue from the newest checkpoint, or from the start if there is none yet."
AFTER_INTERRUPT = {
    "induce": "With -o, a finished instruction is kept.",
    "evaluate": f"{_AGAIN}finished cells and answers are kept.",
    "predict": f"{_AGAIN}with -o, labelled rows are kept.",
    "corpus": f"{_AGAIN}finished datasets are kept.",
    "models": f"{_AGAIN}the part already fetched is kept.",
    "train": _RESUME,
    "launch": _RESUME,
}
"""The advice after Ctrl-C, by the first word of the command. Other commands write nothing until they finish."""


class Group(TyperGroup):
    """Shows whole sentences in the list of commands; typer would truncate them to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the first sentence of its help."""
        commands = [(name, command) for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(LONGEST_SUMMARY)) for name, command in commands])


class Commands(Group):
    """Turns errors into one line and an exit code. PROMPTMII_TRACEBACK shows the traceback instead."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return sorted(self.commands, key=ORDER.index)

    def invoke(self, ctx: Any) -> object:
        tolerate_encodings()
        words = [str(word) for word in (*ctx._protected_args, *ctx.args)]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if not PROCESS:
                show_error(f"Interrupted. {AFTER_INTERRUPT.get(words[0] if words else '', '')}".rstrip())
            raise typer.Exit(INTERRUPTED) from interrupt
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's words, which typer keeps
            raise
        except (PromptMIIError, OSError, ValueError, RecursionError, MemoryError) as error:
            broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if broken_pipe or os.environ.get("PROMPTMII_TRACEBACK"):
                raise
            if isinstance(error, PromptMIIError):
                show_error(str(error))
                raise typer.Exit(error.exit_code) from error
            show_error(_unreadable(error, words))
            raise typer.Exit(UNUSABLE_INPUT) from error


def _unreadable(error: Exception, words: list[str]) -> str:
    """The message for an unexpected error, with the files that the command read."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, RecursionError | MemoryError):
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it does not fit into memory"
    filename = getattr(error, "filename", None)
    if full := no_room(error):
        return f"{filename or 'The output'} cannot be written: {full}. Make room, then run it again."
    files = [str(filename)] if filename else [word for word in words if os.path.exists(word)]
    subject = " or ".join(files) or "The input"
    return f"{subject} cannot be used: {reason}. If it looks right, set PROMPTMII_TRACEBACK=1 and report what you see."


def _show_warning(message: Warning | str, *_: object) -> None:
    """Print a warning on one line, without its source location."""
    say(f"Warning: {message}")


warnings.showwarning = _show_warning
warnings.filterwarnings("always", module=r"promptmii\.models\.http\.waits")  # not only the first time
# Warnings between libraries, which a user cannot act on.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|ray)\b")

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is literal: [MODEL=]PROMPT is not markup
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        from promptmii.version import VERSION

        data(f"promptmii {VERSION}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn labelled examples into a short, measured LLM instruction."""
    del version
