"""An instruction measured, or its calibration fitted, on the rows of a table."""

from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, load_task, read_table
from promptmii.errors import DataError, counted
from promptmii.follower import Follower
from promptmii.instruction import EDITED, Instruction
from promptmii.progress import QUIET, Progress
from promptmii.scoring import Scored, score
from promptmii.task import Support, row_key


def rescore(
    instruction: Instruction, source: Source, follower: Follower, columns: Columns, *, progress: Progress = QUIET
) -> tuple[Scored, tuple[str, ...]]:
    """Measure an instruction on the rows of a table, except those that it was made from or calibrated on.

    The notes say how many rows were left out. Raises `DataError` if none remain.
    """
    loaded = _table_of(instruction, source, columns)
    known = set(instruction.provenance.support_rows)
    rows = (*loaded.task.train, *loaded.task.test)
    fresh = [row for row in rows if row_key(row.text) not in known]
    if not fresh:
        raise DataError(
            "The instruction was made from all of these rows, so they cannot measure it. Give it other rows."
        )
    seen = len(rows) - len(fresh)
    left_out = (f"{counted(seen, 'row')} left out: the instruction was made from them",) if seen else ()
    progress.step("Scoring", len(fresh))
    return score(follower, instruction, fresh), (*loaded.notes, *left_out)


def recalibrate(
    instruction: Instruction, source: Source, follower: Follower, columns: Columns, *, progress: Progress = QUIET
) -> tuple[Instruction, tuple[str, ...]]:
    """The instruction with `follower`'s calibration fitted on the rows of a table, without its old score.

    The notes say what was found in the table.
    """
    loaded = _table_of(instruction, source, columns)
    rows = (*loaded.task.train, *loaded.task.test)
    progress.step("Calibrating", len(rows))
    kept = tuple(note for note in instruction.provenance.notes if note != EDITED)
    made = instruction.provenance.model_copy(update={"notes": kept})
    plain = instruction.model_copy(update={"measured": None, "provenance": made})
    return follower.prepare(plain, Support(instruction.labels, rows)), loaded.notes


def _table_of(instruction: Instruction, source: Source, columns: Columns) -> LoadedTask:
    """A table, read as the one that the instruction was made from unless `columns` say otherwise.

    Rows with labels that the instruction lacks are dropped, with a note.
    """
    made = instruction.provenance
    own = Columns(
        text=made.text_template or made.text_columns or None, label=made.label_column, labels=instruction.labels
    )
    table = read_table(source)
    if not {own.label, *made.text_columns} <= set(table.columns):  # another table: detect its columns anew
        own = Columns(labels=instruction.labels)
    given = {name: value for name, value in columns.model_dump(exclude={"labels"}).items() if value is not None}
    own = own.model_copy(update=given)
    return load_task(table, text=own.text, label=own.label, labels=own.labels)
