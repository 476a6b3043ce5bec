"""`promptmii calibrate`: fit an instruction's calibration again."""

from contextlib import closing
from typing import Annotated, Literal

import typer

from promptmii.cli.group import app
from promptmii.cli.options import (
    BaseUrl,
    Cache,
    Concurrency,
    Context,
    Data,
    File,
    Follow,
    Force,
    Json,
    Label,
    Output,
    Text,
    columns_of,
    endpoint_of,
)
from promptmii.cli.terminal import confirmed, dump, listening, notes, out


@app.command()
def calibrate(
    instruction: File,
    data: Data,
    output: Output = None,
    kind: Annotated[
        Literal["auto", "none", "contextual", "support", "supervised"],
        typer.Option("--calibration", help="Correction of label bias."),
    ] = "auto",
    text: Text = None,
    label: Label = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Fit the calibration of an instruction on labelled rows: after you edited its text, or for another model.

    Without -o the instruction file itself is replaced. Its old score is dropped; measure it with `promptmii score`.
    """
    from dataclasses import replace

    from promptmii import workbench
    from promptmii.files import check_writable
    from promptmii.follower import resolve_calibration
    from promptmii.instruction import Instruction

    path, force = (output, force) if output else (instruction, True)
    check_writable(path, force=force)
    made = Instruction.load(instruction)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache)
    with listening(quiet=json) as progress:
        bound = workbench.bind(made, follower, endpoint, progress, confirmed)
        with closing(bound.model):
            bound = replace(bound, calibration=resolve_calibration(kind, bound.mode, bound.model.card))
            fitted, found = workbench.recalibrate(made, data, bound, columns_of(text, label, None), progress=progress)
    fitted.save(path, force=force)
    if json:
        dump(fitted.model_dump(mode="json"))
        return
    notes((*found, *fitted.provenance.notes))
    fit = fitted.calibration.kind if fitted.calibration else "none"
    out.write_line(f"Calibration {fit}, fitted with {fitted.calibration_cost.calls} calls. Saved to {path}.")
    out.write_line(f"Measure it with: promptmii score {path} DATA")
