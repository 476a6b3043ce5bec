"""`promptmii extend`: lines for new labels."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.compare import show_comparison
from promptmii.cli.group import app
from promptmii.cli.options import Data, File, Force, Json, Output
from promptmii.cli.terminal import dump, out, say
from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.workbench.extend import Extended


@app.command()
@blocks
def extend(
    instruction: File,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    old: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Rows with the old labels; default: the table it was made from."),
    ] = None,
    generator: Annotated[str | None, typer.Option(help="Model that writes; default: the one that wrote it.")] = None,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Add labels to an instruction: write a line for each new label in the data, and keep the old lines.

    Measures it before and after, on all rows and on those with the old labels. Without -o, the file is replaced.
    """
    from promptmii.files import check_writable
    from promptmii.instruction import Instruction
    from promptmii.workbench import extend as add_labels
    from promptmii.workbench.edit import own_rows

    path, force = output or instruction, force or output is None
    check_writable(path, force=force)
    made = Instruction.load(instruction)
    try:
        table = own_rows(made, old)
    except ConfigError as error:
        table = None
        say(f"{error} Without --old ROWS, nothing is calibrated.")
    with answers.followers(quiet=json) as followers:
        found = add_labels(
            made,
            data,
            followers,
            rows.columns,
            old=table,
            generator=generator,
            keep=lambda new: new.save(path, force=force),
        )
    found.instruction.save(path, force=True)
    if json:
        dump(
            {"new_labels": found.new_labels, "old_labels": asdict(found.old_labels) if found.old_labels else None}
            | found.comparison.as_json()
        )
    else:
        _show(found)
        out.write_line(f"Saved to {path}.")


def _show(found: "Extended") -> None:
    for line in found.instruction.text.splitlines()[-len(found.new_labels) :]:
        out.write_line(f"+ {line}", "green")
    show_comparison(found.comparison)
    if d := found.old_labels:
        out.write_line(
            f"On rows of the old labels: macro-F1 {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p:.3f}."
        )
