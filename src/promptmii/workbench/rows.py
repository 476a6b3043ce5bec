"""Splits a table into rows for fitting and rows for measuring."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, Table, draw_support, load_task, read_table
from promptmii.data.sample import proportioned
from promptmii.errors import DataError, counted
from promptmii.instruction import Instruction
from promptmii.task import Example, row_key


def table_of(instruction: Instruction | None, source: Source, columns: Columns) -> LoadedTask:
    """A table, read with the columns that the instruction was made from, unless `columns` names others.

    Rows with labels that neither the instruction nor `columns` name are dropped, with a note.
    """
    if instruction is None:
        return load_task(source, text=columns.text, label=columns.label, labels=columns.labels)
    made, table = instruction.provenance, read_table(source)
    own = _columns_like(table, made.text_columns, made.text_template, made.label_column)
    labels = columns.labels or instruction.labels
    return load_task(table, text=columns.text or own.text, label=columns.label or own.label, labels=labels)


def _columns_like(table: Table, text: tuple[str, ...], template: str | None, label: str | None) -> Columns:
    """The given columns if this table has them; otherwise none, so that its own are detected."""
    return Columns(text=template or text or None, label=label) if {label, *text} <= set(table.columns) else Columns()


def tested_on(loaded: LoadedTask, source: Source) -> LoadedTask:
    """The task with all rows of another table as test rows, so that all its own rows can be examples.

    Rows in both tables become test rows.
    """
    table, chosen = read_table(source), loaded.columns
    own = _columns_like(table, chosen.text, chosen.template, chosen.label)
    test = load_task(table, text=own.text, label=own.label, labels=loaded.task.labels)
    rows = (*test.task.train, *test.task.test)
    known = {row_key(row.text) for row in rows}
    own_rows = (*loaded.task.train, *loaded.task.test)
    train = tuple(row for row in own_rows if row_key(row.text) not in known)
    if not train:
        raise DataError(f"Every row of {loaded.task.name} is in {test.task.name} too, so none can be an example.")
    shared = len(own_rows) - len(train)
    notes = (f"{counted(shared, 'row')} left out of the examples: the test rows hold them too",) if shared else ()
    notes += (f"measured on {counted(len(rows), 'row')} of {test.task.name}",)
    return replace(loaded, task=replace(loaded.task, train=train, test=rows), notes=(*loaded.notes, *notes))


def fresh_rows(instruction: Instruction, loaded: LoadedTask) -> tuple[list[Example], tuple[str, ...]]:
    """The rows that may measure an instruction, and a note if others are left out.

    Raises `DataError` if none remain.
    """
    known = set(instruction.provenance.support_rows)
    rows = (*loaded.task.train, *loaded.task.test)
    fresh = [row for row in rows if row_key(row.text) not in known]
    if not fresh:
        raise DataError("The instruction was made from all of these rows, so they cannot measure it. Give other rows.")
    seen = len(rows) - len(fresh)
    return fresh, (f"{counted(seen, 'row')} left out: the instruction was made from them",) if seen else ()


@dataclass(frozen=True)
class Rows:
    """A table, split into examples and test rows."""

    examples: tuple[Example, ...]
    """For ICL to show and to fit calibrations on; may be empty."""
    query: tuple[Example, ...]
    """Test rows: no examples, and no rows that a prompt was made from."""
    notes: tuple[str, ...]


def divided(
    loaded: LoadedTask, made_from: set[str], n: int, *, given: Sequence[Example] = (), draw: bool = False
) -> Rows:
    """Examples are those given, else rows that an instruction was made from, else `n` drawn rows if `draw`, else none.

    `made_from` holds keys of rows. Raises `DataError` if no row is left to measure.
    """
    rows = (*loaded.task.train, *loaded.task.test)
    seen = [row for row in rows if row_key(row.text) in made_from]
    if given or seen:
        examples = proportioned(given or seen, n)
    else:
        examples = draw_support(loaded.task, min(n, len(loaded.task.train))).examples if draw else ()
    used = made_from | {row_key(example.text) for example in examples}
    query = tuple(row for row in rows if row_key(row.text) not in used)
    if not query:
        raise DataError("No row is left to measure on: all of them are examples. Give more rows.")
    left_out = len(rows) - len(query)
    why = "something here was made from them" if seen else "they are the examples"
    notes = (f"{counted(left_out, 'row')} left out: {why}",) if left_out else ()
    return Rows(examples, query, (*loaded.notes, *notes))
