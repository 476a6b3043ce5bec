"""A human edits an instruction."""

import os

from promptmii.config import Columns
from promptmii.data import Source, Table, read_table
from promptmii.errors import ConfigError, DataError
from promptmii.instruction import Instruction
from promptmii.progress import QUIET, Progress
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.followers import Answering

BY_HAND = "edited by hand"


def own_rows(instruction: Instruction, given: Source | None = None) -> Table:
    """The rows given, or else those that the instruction was made from.

    Raises `DataError` if those given cannot be read, `ConfigError` if none are given and the others are gone.
    """
    if given is not None:
        return read_table(given)
    source = instruction.provenance.source
    try:
        return read_table(source or "")
    except DataError as error:
        gone = f"those it was made from, {source}, cannot be read" if source else "it names none that it was made from"
        raise ConfigError(f"The instruction needs labelled rows, and {gone}: name a table.") from error


def edited(instruction: Instruction, text: str) -> Instruction:
    """The instruction with another text, without the old score; its calibration no longer applies.

    Raises `DataError` for an empty text.
    """
    if not text.strip():
        raise DataError("The edited text is empty, so nothing was changed.")
    old = instruction.calibration  # not used any more, it says which kind to fit again
    foreign = old and old.model_copy(update={"belongs_to": old.belongs_to or instruction.text_key})
    return instruction.model_copy(update={"text": text, "measured": None, "calibration": foreign}).noted(BY_HAND)


def edit(
    instruction: Instruction | str | os.PathLike[str],
    text: str,
    source: Source | None = None,
    follower: Answering = None,
    columns: Columns | None = None,
    *,
    progress: Progress = QUIET,
) -> Comparison:
    """Measure another text for an instruction beside the old one, on the same rows. Writes no file.

    `comparison.rows[0].instruction` is the new one with its calibration and score. Without a `source` the rows are
    those that the instruction was made from. Raises as `own_rows`, `edited` and `compare` do.
    """
    before = Instruction.of(instruction)
    given = {"after": edited(before, text), "before": before}
    return compare(given, own_rows(before, source), follower, columns, progress=progress)
