"""Which rows of a table may fit something, and which may measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, draw_support, load_task, read_table
from promptmii.data.sample import proportioned
from promptmii.errors import DataError, counted
from promptmii.instruction import Instruction
from promptmii.task import Example, row_key


def table_of(instruction: Instruction | None, source: Source, columns: Columns) -> LoadedTask:
    """A table, read as the one that the instruction was made from unless `columns` say otherwise.

    Rows with labels that neither the instruction nor `columns` name are dropped, with a note.
    """
    if instruction is None:
        return load_task(source, text=columns.text, label=columns.label, labels=columns.labels)
    made, table = instruction.provenance, read_table(source)
    text, label = made.text_template or made.text_columns or None, made.label_column
    if not {label, *made.text_columns} <= set(table.columns):  # another table: detect its columns anew
        text = label = None
    labels = columns.labels or instruction.labels
    return load_task(table, text=columns.text or text, label=columns.label or label, labels=labels)


def fresh_rows(instruction: Instruction, loaded: LoadedTask) -> tuple[list[Example], tuple[str, ...]]:
    """The rows that may measure an instruction, and a note where others are left out.

    Raises `DataError` if none remain.
    """
    known = set(instruction.provenance.support_rows)
    rows = (*loaded.task.train, *loaded.task.test)
    fresh = [row for row in rows if row_key(row.text) not in known]
    if not fresh:
        raise DataError(
            "The instruction was made from all of these rows, so they cannot measure it. Give it other rows."
        )
    seen = len(rows) - len(fresh)
    return fresh, (f"{counted(seen, 'row')} left out: the instruction was made from them",) if seen else ()


@dataclass(frozen=True)
class Rows:
    """A table, divided."""

    examples: tuple[Example, ...]
    """What ICL shows and calibrations are fitted on; may be none."""
    query: tuple[Example, ...]
    """What measures: neither an example, nor a row that something measured was made from."""
    notes: tuple[str, ...]


def divided(
    loaded: LoadedTask, made_from: set[str], n: int, *, given: Sequence[Example] = (), draw: bool = False
) -> Rows:
    """The examples are those given, else rows that an instruction was made from, else `n` drawn if `draw`, else none.

    `made_from` holds keys of rows. Raises `DataError` if no row is left to measure.
    """
    rows = (*loaded.task.train, *loaded.task.test)
    seen = [row for row in rows if row_key(row.text) in made_from]
    if given or seen:
        examples = proportioned(given or seen, n)
    else:
        examples = draw_support(loaded.task, min(n, len(loaded.task.train))).examples if draw else ()
    unfit = made_from | {row_key(example.text) for example in examples}
    query = tuple(row for row in rows if row_key(row.text) not in unfit)
    if not query:
        raise DataError("No row is left to measure on: all of them are examples. Give more rows.")
    left_out = len(rows) - len(query)
    why = "something here was made from them" if seen else "they are the examples"
    notes = (f"{counted(left_out, 'row')} left out: {why}",) if left_out else ()
    return Rows(examples, query, (*loaded.notes, *notes))
