"""`promptmii export`: an instruction as code for another tool."""

from typing import Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.options import File, Force, Json, Output
from promptmii.cli.terminal import data, dump, say
from promptmii.exports import TARGETS


@app.command()
def export(
    instruction: File,
    to: Annotated[
        str, typer.Option(metavar="TARGET", help="; ".join(f"{name}: {what}" for name, what in TARGETS.items()) + ".")
    ],
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Print the prompt as code for another tool, byte for byte as it was measured."""
    from promptmii.instruction import Instruction

    code = Instruction.load(instruction).export(to, output, force=force)
    if json:
        dump({"target": to, "file": output, "code": code})
    elif output:
        say(f"Saved to {output}.")
    else:
        data(code)
