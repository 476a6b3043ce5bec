"""The application that commands register with, and how errors become one line and an exit code."""

import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from promptmii.cli.terminal import error as show_error
from promptmii.cli.terminal import tolerate_encodings
from promptmii.errors import PromptMIIError


class Commands(TyperGroup):
    """Errors become one line and an exit code: promptmii's own ones theirs, Ctrl-C 130. Others are bugs and keep their traceback."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was named."""
        tolerate_encodings()
        try:
            return super().invoke(ctx)
        except PromptMIIError as error:
            show_error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            show_error("Interrupted. Files are only written when complete; answers in a --cache folder are kept.")
            raise typer.Exit(130) from interrupt


# Of libraries about libraries; nothing that a user of this command could do anything about.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|ray)\b")

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn labelled examples into a short, measured LLM instruction.",
)
