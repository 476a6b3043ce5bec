"""`promptmii calibrate`: fit an instruction's calibration again."""

from typing import Annotated, Literal

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.group import app
from promptmii.cli.options import Data, File, Force, Json, Output
from promptmii.cli.terminal import dump, notes, out
from promptmii.errors import counted


@app.command()
@blocks
def calibrate(
    instruction: File,
    data: Data,
    table: RowOptions,
    answers: FollowerOptions,
    output: Output = None,
    kind: Annotated[
        Literal["auto", "none", "contextual", "support", "supervised"],
        typer.Option("--calibration", help="Correction of label bias."),
    ] = "auto",
    json: Json = False,
    force: Force = False,
) -> None:
    """Fit an instruction's calibration on labelled rows: after you edit its text, or for another model.

    Without -o the instruction file itself is replaced. Its old score is dropped; measure it with `promptmii score`.
    """
    from promptmii import workbench
    from promptmii.files import check_writable
    from promptmii.instruction import Instruction

    path, force = (output, force) if output else (instruction, True)
    check_writable(path, force=force)
    made = Instruction.load(instruction)
    with answers.followers(quiet=json) as followers:
        bound = followers.of(made)
        fitted, found = workbench.recalibrate(made, data, bound, table.columns, kind, progress=followers.progress)
    if output or fitted != made:
        fitted.save(path, force=force)
    if json:
        dump(fitted.model_dump(mode="json"))
        return
    notes((*found, *fitted.provenance.notes))
    calls = counted(fitted.calibration_cost.calls, "call")
    fit = f"{fitted.calibration.kind}, fitted with {calls}" if fitted.calibration else "none, so nothing is fitted"
    if fitted == made and not output:
        out.write_line(f"Calibration {fit}. {path} stays as it was.")
        return
    out.write_line(f"Calibration {fit}. Saved to {path}.")
    out.write_line(f"Measure it with: promptmii score {path} OTHER_DATA")
