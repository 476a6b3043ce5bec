"""Measure an instruction, or fit its calibration, on the rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from promptmii import metrics
from promptmii.calibration_kinds import READS, Reads
from promptmii.config import Columns
from promptmii.data import LoadedTask, Source
from promptmii.errors import ScoreRefusedError
from promptmii.follower import Follower, Predictor, resolve_calibration
from promptmii.instruction import EDITED, CalibrationKind, Cost, Instruction
from promptmii.models.base import Price
from promptmii.notebook import table_html
from promptmii.progress import QUIET, Progress
from promptmii.scoring import Scored
from promptmii.scoring import score as score_rows
from promptmii.task import Example, Support
from promptmii.workbench.followers import Answering, answering, calibration_notes
from promptmii.workbench.given import Prompt, fresh_rows, name_of, read, table_of, written


@dataclass(frozen=True)
class Measured:
    """One way of prompting, measured."""

    name: str
    """Its name in tables."""
    instruction: Instruction
    """With its score, unless a call failed."""
    scored: Scored
    spent: Cost
    """The cost of the answers."""
    notes: tuple[str, ...] = ()
    """Notes on what was detected, dropped or left out."""

    @property
    def macro_f1(self) -> float | None:
        """`None` when any call failed."""
        return self.scored.macro_f1

    def __repr__(self) -> str:
        return f"<Measured {self.name}: {self.scored!r}>"

    def _repr_html_(self) -> str:
        return measured_html([self]) + self.scored._repr_html_()  # pyright: ignore[reportPrivateUsage]

    def as_json(self) -> dict[str, Any]:
        """The score, for other programs. Raises `ScoreRefusedError` if a call failed."""
        gold, predicted, labels = self.scored.gold, self.scored.labels, self.instruction.labels
        return {
            "measured": self.scored.measurement().model_dump(),
            "labels": [asdict(label) for label in metrics.per_label(gold, predicted, labels)],
            "confusion": metrics.confusion(gold, predicted, labels),
            "notes": self.notes,
        }


def measured(
    name: str, predictor: Predictor, instruction: Instruction, query: Sequence[Example], price: Price | None = None
) -> Measured:
    """Score a predictor on the rows. Failed calls raise nothing."""
    scored = score_rows(predictor, instruction, query)
    if not scored.n_failed:
        instruction = instruction.measured_as(scored.measurement())
    return Measured(name, instruction, scored, Cost.of(scored.usage, price))


def measured_html(rows: Sequence[Measured], differences: Mapping[str, metrics.Difference] | None = None) -> str:
    """A row for each prompt with the candidate's lead over it. The candidate is the one prompt without a difference."""
    candidate = next((row.name for row in rows if differences and row.name not in differences), "candidate")
    cells: list[tuple[object, ...]] = []
    for row in rows:
        score, tokens = row.instruction.measured, row.scored.prompt_tokens_per_query
        difference = (differences or {}).get(row.name)
        cells.append(
            (
                row.name,
                f"{score.macro_f1:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else "no score",
                "unknown" if tokens is None else f"{tokens:,.0f}",
                difference and f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]",
                difference and f"{difference.p:.3f}",
            )
        )
    return table_html(("prompt", "macro-F1 [95 %]", "tokens per query", f"{candidate} minus it", "p"), cells)


def refuse_failures(result: Measured) -> Measured:
    """The result. If any call failed, raises a `ScoreRefusedError` that names the prompt."""
    try:
        result.scored.refuse_failures()
    except ScoreRefusedError as error:
        raise ScoreRefusedError(f"{result.name}: {error}") from error
    return result


def score(
    given: Prompt,
    source: Source,
    follower: Answering = None,
    columns: Columns | None = None,
    *,
    refit: Source | None = None,
    progress: Progress = QUIET,
) -> Measured:
    """Measure an instruction, or any text, on the rows of a table, except those that it was made from.

    A text has the labels of the table. `refit` is labelled rows to fit the calibration on first. Raises `DataError`,
    `ArtefactError`, `ConfigError` and `ModelError`; failed calls are in the result.
    """
    columns = columns or Columns()
    instruction, loaded = opened(given, source, columns)
    rows, left_out = fresh_rows(instruction, loaded)
    with answering(follower, progress) as followers:
        bound = followers.of(instruction)
        if refit is None:
            uncalibrated = calibration_notes(instruction, bound)
            instruction = answered_by(bound, instruction)
        else:
            uncalibrated = ()
            instruction, _ = recalibrate(instruction, refit, bound, columns, progress=followers.progress)
            rows, left_out = fresh_rows(instruction, loaded)
        followers.progress.step("Scoring", len(rows))
        result = measured(name_of(given), bound, instruction, rows, bound.model.card.price)
    return replace(result, notes=(*loaded.notes, *left_out, *uncalibrated))


def answered_by(follower: Follower, instruction: Instruction) -> Instruction:
    """The instruction as this follower uses it, without a calibration fitted to another."""
    binding = {"follower": follower.model.card.reference, "mode": follower.mode}
    own = follower.own(instruction).model_copy(update=binding)
    calibrates = resolve_calibration("auto", follower.mode, follower.model.card) != "none"
    return own if calibrates else unmarked(own)


def opened(given: Prompt, source: Source, columns: Columns) -> tuple[Instruction, LoadedTask]:
    """An instruction and the table to measure it on. A text gets the labels of the table."""
    prompt = read(given)
    loaded = table_of(prompt if isinstance(prompt, Instruction) else None, source, columns)
    return (prompt if isinstance(prompt, Instruction) else written(prompt, loaded.task.labels)), loaded


def recalibrate(
    instruction: Instruction,
    source: Source,
    follower: Follower,
    columns: Columns,
    kind: CalibrationKind | Literal["auto"] = "auto",
    *,
    progress: Progress = QUIET,
) -> tuple[Instruction, tuple[str, ...]]:
    """The instruction with `follower`'s calibration fitted on the rows of a table, without its old score.

    It is returned unchanged if nothing is fitted and nothing was before. The notes are those on the table.
    """
    loaded = table_of(instruction, source, columns)
    progress.step("Calibrating", len(loaded.task.rows))
    fitting = replace(follower, calibration=resolve_calibration(kind, follower.mode, follower.model.card))
    refitted = fitted(instruction, fitting, loaded.task.rows)
    with_score = refitted.model_copy(
        update={"measured": instruction.measured, "calibration_cost": instruction.calibration_cost}
    )
    unchanged = with_score == instruction and not refitted.calibration
    return (instruction if unchanged else refitted), loaded.notes


def fitted(instruction: Instruction, follower: Predictor, rows: Sequence[Example]) -> Instruction:
    """The instruction with its calibration fitted on `rows`, without its old score.

    If the rows yield neither a calibration nor a shortlist, they may still measure it.
    """
    plain = unmarked(instruction).model_copy(update={"measured": None, "calibration_cost": Cost()})
    prepared = follower.prepare(plain, Support(instruction.labels, tuple(rows)))
    if prepared.shortlist or (prepared.calibration and READS[prepared.calibration.kind] is Reads.SUPPORT):
        return prepared
    old_rows = {"support_rows": plain.provenance.support_rows}
    return prepared.model_copy(update={"provenance": prepared.provenance.model_copy(update=old_rows)})


def unmarked(instruction: Instruction) -> Instruction:
    """The instruction without the note that it needs fitting again."""
    notes = tuple(note for note in instruction.provenance.notes if note != EDITED)
    return instruction.model_copy(update={"provenance": instruction.provenance.model_copy(update={"notes": notes})})
