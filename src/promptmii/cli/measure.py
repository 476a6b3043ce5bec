"""`promptmii score`, `calibrate` and `review`: measure an instruction, refit its calibration, find rows to correct."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptmii.calibration_kinds import FixedCalibration
from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.group import CALLS_FAILED, app
from promptmii.cli.options import Data, File, Force, Json, Output, Prompt, destination, prompt_of
from promptmii.cli.terminal import data as write_data
from promptmii.cli.terminal import dump, notes, out, say, table
from promptmii.errors import OutputError
from promptmii.files import quoted
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.measured import Measured

MOST_LABELS = 12
"""Maximum number of labels for a confusion matrix."""
SHORT = 3
"""Maximum number of characters of a label that heads its own column; a longer one gets a letter."""
MOST_MISTAKES = 20
"""Maximum number of mistakes listed instead of a larger matrix."""


@app.command()
@blocks
def score(
    instruction: Prompt,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    refit: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="Labelled rows to fit the calibration on first; it is saved with the score in the instruction file.",
        ),
    ] = None,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Measure an instruction, or any text, on labelled data: per-label scores, confusion matrix.

    --refit fits the calibration first, as `promptmii calibrate` does: use it after you edit an instruction.
    -o saves an instruction file with the score, even if you gave a text.
    """
    from promptmii import workbench
    from promptmii.files import check_writable

    path = output or (Path(instruction) if refit and instruction.lower().endswith(".json") else None)
    force = force or not output
    if path:
        check_writable(path, force=force)
    prompt = prompt_of(instruction)
    with answers.followers(quiet=json) as followers:
        result = workbench.score(prompt, data, followers, rows.columns, refit=refit)
    result.scored.refuse_failures()
    try:
        if path:
            result.instruction.save(path, force=force)
    finally:  # a result whose file cannot be written was paid for too
        if json:
            dump(result.as_json())
        else:
            _show(result)
    if path and not json:
        out.write_line(f"Saved to {path}.")


def _show(result: "Measured") -> None:
    from promptmii import metrics

    labels, scored = result.labels, result.scored
    measured = scored.measurement()
    notes(result.notes)
    out.write_line(
        f"macro-F1 {measured.macro_f1:.3f} (95 % interval {measured.low:.3f} to {measured.high:.3f})", "bold"
    )
    plain = measured.uncalibrated_macro_f1
    uncalibrated = "" if plain is None else f"macro-F1 without the calibration {plain:.3f}; "
    out.write_line(
        f"{uncalibrated}accuracy {measured.accuracy:.3f}; {counted(scored.n, 'row')}, {scored.n_unparsed} "
        f"without a label, {scored.n_truncated} cut off; {scored.usage.seconds:.1f} s"
    )
    if measured.shortlist_recall is not None:
        out.write_line(f"The label was on the shortlist in {measured.shortlist_recall:.1%} of the rows.")
    grid = table("Per label", "label", "precision", "recall", "F1", "rows")
    for row in metrics.per_label(scored.gold, scored.labels, labels):
        grid.add_row(row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support))
    out.write_table(grid)
    _show_confusion(labels, metrics.confusion(scored.gold, scored.labels, labels))


def _show_confusion(labels: Sequence[str], counts: list[list[int]]) -> None:
    """Print the confusion matrix, or the most frequent mistakes if there are many labels."""
    if len(labels) > MOST_LABELS:
        pairs = [
            (count, f"{label} → {predicted}")
            for label, row in zip(labels, counts, strict=True)
            for predicted, count in zip((*labels, "none"), row, strict=True)
            if count and predicted != label
        ]
        grid = table("Most frequent mistakes (--json has all)", "true label → predicted label", "rows")
        pairs.sort(key=lambda pair: -pair[0])
        for count, mistake in pairs[:MOST_MISTAKES]:
            grid.add_row(mistake, str(count))
    else:
        letters = (letter for letter in ascii_uppercase if letter not in labels)
        keys = [label if len(label) <= SHORT else next(letters) for label in labels]
        grid = table("Confusion: a row per true label, a column per predicted label", "", *keys, "none")
        for key, label, row in zip(keys, labels, counts, strict=True):
            grid.add_row(label if label == key else f"{key} {label}", *(str(count) if count else "·" for count in row))
    out.write_table(grid)


@app.command()
@blocks
def calibrate(
    instruction: File,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    output: Output = None,
    kind: Annotated[
        Literal["auto", FixedCalibration], typer.Option("--calibration", help="How to correct label bias.")
    ] = "auto",
    json: Json = False,
    force: Force = False,
) -> None:
    """Fit an instruction's calibration again, after you edit its text or for another model.

    Without -o, the instruction file is replaced. Its old score is dropped; measure it again with `promptmii score`.
    """
    from promptmii import workbench
    from promptmii.instruction import Instruction

    path, force = destination(output, instruction, force=force)
    before = Instruction.load(instruction)
    with answers.followers(quiet=json) as followers:
        follower = followers.of(before)
        fitted, dropped = workbench.recalibrate(before, data, follower, rows.columns, kind, progress=followers.progress)
    fitted.save(path, force=force)
    if json:
        dump(fitted.model_dump(mode="json"))
        return
    notes((*dropped, *fitted.provenance.notes))
    calls = counted(fitted.calibration_cost.calls, "call")
    summary = f"{fitted.calibration.kind}, fitted with {calls}" if fitted.calibration else "none"
    out.write_line(f"Calibration {summary}. Saved to {path}.")
    command = f"promptmii score {quoted(path)} OTHER_DATA{answers.server.repeated}"
    out.write_line(f"Measure it with: {command}")


@app.command()
@blocks
def review(
    instruction: Prompt,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    most: Annotated[int, typer.Option(min=1, help="Maximum number of rows to write.")] = 100,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Find rows worth checking: suspected label errors, wrong predictions, and the least certain.

    Writes the table's columns and the reasons as CSV to standard output, or to -o. Correct the label column, and use
    the file as data.
    """
    from promptmii.data.texts import csv_style
    from promptmii.files import check_writable, write_text
    from promptmii.workbench.review import review as find_suspects

    if output:
        check_writable(output, force=force)
    prompt = prompt_of(instruction)
    with answers.followers(quiet=json) as followers:
        result = find_suspects(prompt, data, followers, rows.columns, most=most)
    try:
        if output:
            write_text(output, result.csv(csv_style(data)), force=force)
    except OutputError:  # a result whose file cannot be written was paid for too
        write_data(result.csv())
        raise
    if json:
        totals = {"looked_at": result.n, "failed": result.n_failed, "counts": result.counts}
        dump({"rows": [row._asdict() for row in result.rows], **totals, "notes": result.notes})
    else:
        if not output:
            write_data(result.csv())
        for note in result.notes:
            say(f"· {note}")
        counts = ", ".join(f"{count} {reason}" for reason, count in result.counts.items()) or "nothing to look at"
        first = f" The first {most} are written; a higher --most writes more." if result.counts.total() > most else ""
        say(f"{counted(result.n, 'row')}: {counts}.{first}" + (f" Saved to {output}." if output else ""))
    if result.n_failed:
        raise typer.Exit(CALLS_FAILED)
