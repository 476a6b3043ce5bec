"""Measure an instruction on the rows of a table, or fit its calibration to them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from promptmii.calibration_kinds import READS, CalibrationKind, Reads
from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, read_table
from promptmii.errors import UnsupportedError
from promptmii.follower import Follower, Predictor, resolve_calibration
from promptmii.inputs import Prompt, fresh_rows, instruction_from_text, load_task_for, prompt_name, read_prompt
from promptmii.instruction import BATCH_NOTE, EDITED, Cost, Instruction
from promptmii.measured import Measured, measure
from promptmii.progress import QUIET, Progress
from promptmii.scoring import caveats
from promptmii.task import Example, Support
from promptmii.workbench.followers import FollowerLike, calibration_notes, open_followers


def score(
    prompt: Prompt,
    source: Source,
    follower: FollowerLike = None,
    columns: Columns | None = None,
    *,
    refit: Source | None = None,
    progress: Progress = QUIET,
) -> Measured:
    """Measure an instruction, or any text, on the rows of a table that it was not made from.

    A text gets the labels of the table. If `refit` is given, the calibration is first fitted to these labelled rows.
    Raises `DataError`, `ArtefactError`, `ConfigError` and `ModelError`; failed calls are part of the result.
    """
    columns = columns or Columns()
    instruction, loaded = load_inputs(prompt, source, columns)
    rows, left_out = fresh_rows(instruction, loaded)
    with open_followers(follower, progress) as followers:
        bound = followers.of(instruction)
        if refit is None or not bound.gives_probabilities:
            fitting_notes = calibration_notes(instruction, bound)
            if refit is not None:
                reference = bound.model.card.reference
                fitting_notes += (f"nothing is fitted: {reference} gives no likelihoods in mode {bound.mode}",)
            instruction = bind(bound, instruction)
        else:
            refit = read_table(refit)
            examples = load_task_for(instruction, refit, columns).task.rows
            # Before the first call, so that a refusal costs nothing.
            rows, left_out = fresh_rows(instruction.fitted_on(Support(instruction.labels, examples)), loaded)
            instruction, read = recalibrate(instruction, refit, bound, columns, progress=followers.progress)
            fitting_notes = tuple(f"{refit.origin}: {note}" for note in read)
        followers.progress.step("Scoring", len(rows))
        result = measure(prompt_name(prompt), bound, instruction, rows, bound.model.card.price)
    doubts = caveats({result.name: result.scored})
    return replace(result, notes=(*loaded.notes, *left_out, *doubts, *fitting_notes))


def bind(follower: Follower, instruction: Instruction) -> Instruction:
    """The instruction with this follower and its mode, without a calibration fitted to another follower."""
    binding = {"follower": follower.model.card.reference, "mode": follower.mode}
    bound = instruction.model_copy(update=binding | {"calibration": follower.own_calibration(instruction)})
    bound = bound.noted(BATCH_NOTE) if follower.calibration == "batch" else bound.without_notes(BATCH_NOTE)
    return bound if follower.gives_probabilities else bound.without_notes(EDITED)


def no_likelihoods(follower: Follower) -> str:
    """The end of a message: in what mode a follower gives no likelihoods, and what to use instead."""
    mode = "--mode choose and " if follower.mode == "generate" else ""
    return (
        f"{follower.model.card.reference} gives none in mode {follower.mode}. "
        f"Use {mode}a follower with likelihoods (see promptmii doctor)."
    )


def load_inputs(prompt: Prompt, source: Source, columns: Columns) -> tuple[Instruction, LoadedTask]:
    """The instruction to measure, and the task to measure it on. A text gets the labels of the table."""
    content = read_prompt(prompt)
    if isinstance(content, Instruction):
        return content, load_task_for(content, source, columns)
    loaded = load_task_for(None, source, columns)
    return instruction_from_text(content, loaded.task.labels), loaded


def recalibrate(
    instruction: Instruction,
    source: Source,
    follower: Follower,
    columns: Columns,
    kind: CalibrationKind | Literal["auto"] = "auto",
    *,
    progress: Progress = QUIET,
) -> tuple[Instruction, tuple[str, ...]]:
    """The instruction calibrated for `follower` on the rows of a table, without its old score; and notes on the table.

    Raises `UnsupportedError` if the follower gives no likelihoods to calibrate.
    """
    if kind != "none" and not follower.gives_probabilities:
        raise UnsupportedError(f"A calibration needs likelihoods, and {no_likelihoods(follower)}")
    loaded = load_task_for(instruction, source, columns)
    progress.step("Calibrating", len(loaded.task.rows))
    follower = replace(follower, calibration=resolve_calibration(kind, follower.mode, follower.model.card))
    return fit_calibration(instruction, follower, loaded.task.rows), loaded.notes


def fit_calibration(instruction: Instruction, follower: Predictor, rows: Sequence[Example]) -> Instruction:
    """The instruction with its calibration fitted on `rows`, without its old score.

    Rows that yield neither a calibration nor a shortlist are not recorded as used, so they may still measure it.
    """
    unfitted = instruction.without_notes(EDITED).model_copy(update={"measured": None, "calibration_cost": Cost()})
    prepared = follower.prepare(unfitted, Support(instruction.labels, tuple(rows)))
    if prepared.shortlist or (prepared.calibration and READS[prepared.calibration.kind] is Reads.SUPPORT):
        return prepared
    return prepared.with_provenance(support_rows=instruction.provenance.support_rows)
