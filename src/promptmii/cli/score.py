"""`promptmii score`: measure an instruction again."""

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

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
    Json,
    Label,
    Text,
    columns_of,
    endpoint_of,
)
from promptmii.cli.predict import tell_uncalibrated
from promptmii.cli.terminal import confirmed, dump, listening, notes, out, table
from promptmii.errors import counted

if TYPE_CHECKING:
    from promptmii.instruction import Instruction, Measurement
    from promptmii.scoring import Scored


@app.command()
def score(
    instruction: File,
    data: Data,
    refit: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS", help="Labelled rows to fit the calibration on first; the file then keeps it and the score."
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Measure an instruction again on labelled data: per-label scores, confusion matrix, failure counts.

    With --refit this is `promptmii calibrate INSTRUCTION ROWS` and a measurement in one, for an edited instruction.
    """
    from dataclasses import replace

    from promptmii import workbench
    from promptmii.follower import resolve_calibration
    from promptmii.instruction import Instruction

    made = Instruction.load(instruction)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache)
    with listening(quiet=json) as progress:
        bound = workbench.bind(made, follower, endpoint, progress, confirmed)
        with closing(bound.model):
            columns = columns_of(text, label, None)
            if refit:
                bound = replace(bound, calibration=resolve_calibration("auto", bound.mode, bound.model.card))
                made, _ = workbench.recalibrate(made, refit, bound, columns, progress=progress)
            else:
                tell_uncalibrated(made, bound)
            scored, found = workbench.rescore(made, data, bound, columns, progress=progress)
    if refit:
        made.measured_as(scored.measurement()).save(instruction, force=True)
    _show(made, scored, found, as_json=json)


def _show(instruction: "Instruction", result: "Scored", found: Sequence[str], *, as_json: bool) -> None:
    from promptmii import metrics

    measured = result.measurement()
    labels = metrics.per_label(result.gold, result.labels, instruction.labels)
    confusion = metrics.confusion(result.gold, result.labels, instruction.labels)
    if as_json:
        rows = [
            {"label": s.label, "precision": s.precision, "recall": s.recall, "f1": s.f1, "support": s.support}
            for s in labels
        ]
        counts = {"failed": result.n_failed, "notes": found}
        dump({"measured": measured.model_dump(), "labels": rows, "confusion": confusion} | counts)
        return
    notes(found)
    out.write_line(
        f"macro-F1 {measured.macro_f1:.3f} (95 % interval {measured.low:.3f} to {measured.high:.3f})", "bold"
    )
    out.write_line(
        f"{_uncalibrated(measured)}accuracy {measured.accuracy:.3f}; {counted(result.n, 'row')}, {result.n_unparsed} "
        f"unparsed, {result.n_failed} failed, {result.n_truncated} cut; {result.usage.seconds:.1f} s"
    )
    grid = table("Per label", "label", "precision", "recall", "F1", "rows")
    for s in labels:
        grid.add_row(s.label, f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", str(s.support))
    out.write_table(grid)
    _print_confusion(instruction.labels, confusion)


def _uncalibrated(measured: "Measurement") -> str:
    plain = measured.uncalibrated_macro_f1
    return "" if plain is None else f"macro-F1 without the calibration {plain:.3f}; "


def _print_confusion(labels: Sequence[str], counts: list[list[int]]) -> None:
    numbers = [str(number) for number, _ in enumerate(labels, 1)]
    grid = table("Confusion: a row per true label, a column per predicted one", "", *numbers, "none")
    for number, label, row in zip(numbers, labels, counts, strict=True):
        grid.add_row(f"{number} {label}", *(str(count) if count else "·" for count in row))
    out.write_table(grid)
