"""Inputs of the workbench: prompts (an instruction, its file, a file of plain text, or the text itself) and rows.

Some rows of a table serve as examples, others measure.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, Table, draw_support, load_task, read_table
from promptmii.data.decoding import decode, path_name
from promptmii.data.load import SUFFIXES, format_of
from promptmii.data.sample import stratified_sample
from promptmii.errors import ArtefactError, DataError, counted
from promptmii.inducers import FixedInstruction
from promptmii.instruction import Instruction
from promptmii.notebook import brief
from promptmii.task import Example, Support, row_key

Prompt: TypeAlias = Instruction | str | os.PathLike[str]
"""An instruction, the path of an artefact (`.json`) or of a text, or a text of at least two words."""
SLOT = re.compile(r"\{\{? *(?:text|input|query|message) *\}?\}")
"""Where other tools put the text to classify."""


def read(given: Prompt) -> Instruction | str:
    """The instruction, or a text that becomes one once its labels are known.

    Raises `ArtefactError` for a file that cannot be read, `DataError` for an empty text or a table.
    """
    if isinstance(given, Instruction):
        return given
    if isinstance(given, str) and not is_path(given):
        return _checked(given, "The text")
    path = Path(given)
    if path.suffix == ".json":
        return Instruction.load(path)
    if format_of(path) in set(SUFFIXES) - {".txt"}:
        raise DataError(f"{path} is a table; expected an instruction file (.json) or a text. Is the order swapped?")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read: {error.strerror}. Expected an instruction file (.json), or a file of text."
        ) from error
    return _checked(decode(content, path_name(path)), str(path))


def text_of(given: Prompt) -> str:
    """The text alone. Raises as `read` does."""
    prompt = read(given)
    return prompt.text if isinstance(prompt, Instruction) else prompt


def is_path(given: str) -> bool:
    """Whether a text names a file: one that exists, or a single word with an ending."""
    one_word = not re.search(r"\s", given.strip())
    try:
        return bool(given) and "\n" not in given and (Path(given).exists() or (one_word and bool(Path(given).suffix)))
    except (OSError, ValueError):  # longer than any file name, or with a null byte
        return False


def _checked(text: str, owner: str) -> str:
    if not text.strip():
        raise DataError(f"{owner} is empty. To measure the label list alone: promptmii compare naive --data DATA")
    if text.isascii() and not re.search(r"\s", text.strip()):
        raise DataError(f"{text.strip()!r} is no file and too short for an instruction. Check the name of the file.")
    return text


def written(text: str, labels: Sequence[str]) -> Instruction:
    """A human's text as an instruction. Another tool's slot stays in it, with a note."""
    instruction = FixedInstruction(text).induce(Support(tuple(labels), ()))
    if slot := SLOT.search(text):
        note = f"{slot[0]} is not a slot here: promptmii adds the labels and the input after the text"
        return instruction.noted(note)
    return instruction


def name_of(given: Prompt) -> str:
    """The name of a prompt in tables: the path, the method, or the beginning of the text."""
    if isinstance(given, Instruction):
        return given.method
    if isinstance(given, str) and not is_path(given):
        return brief(given, 24)
    return path_name(os.fspath(given))


def table_of(instruction: Instruction | None, source: Source, columns: Columns) -> LoadedTask:
    """A table, read with the columns that the instruction was made from, unless `columns` names others.

    Rows with labels that neither the instruction nor `columns` name are dropped, with a note.
    """
    if instruction is None:
        return load_task(source, text=columns.text, label=columns.label, labels=columns.labels)
    provenance, table = instruction.provenance, read_table(source)
    own = _columns_like(table, provenance.text_columns, provenance.text_template, provenance.label_column)
    labels = columns.labels or instruction.labels
    return load_task(table, text=columns.text or own.text, label=columns.label or own.label, labels=labels)


def _columns_like(table: Table, text: tuple[str, ...], template: str | None, label: str | None) -> Columns:
    """These columns if the table has them; otherwise none, so that its columns are detected."""
    return Columns(text=template or text or None, label=label) if {label, *text} <= set(table.columns) else Columns()


def tested_on(loaded: LoadedTask, source: Source) -> LoadedTask:
    """The task with all rows of another table as test rows, so that all its own rows can be examples.

    Rows in both tables become test rows.
    """
    table, columns = read_table(source), loaded.columns
    own = _columns_like(table, columns.text, columns.template, columns.label)
    test = load_task(table, text=own.text, label=own.label, labels=loaded.task.labels)
    rows = test.task.rows
    test_keys = {row_key(row.text) for row in rows}
    train = tuple(row for row in loaded.task.rows if row_key(row.text) not in test_keys)
    if not train:
        raise DataError(f"Every row of {loaded.task.name} is in {test.task.name} too, so none can be an example.")
    both = len(loaded.task.rows) - len(train)
    notes = (f"{counted(both, 'row')} left out of the examples: the test rows hold them too",) if both else ()
    notes += (f"measured on {counted(len(rows), 'row')} of {test.task.name}",)
    return replace(loaded, task=replace(loaded.task, train=train, test=rows), notes=(*loaded.notes, *notes))


def fresh_rows(instruction: Instruction, loaded: LoadedTask) -> tuple[list[Example], tuple[str, ...]]:
    """The rows that may measure an instruction, and a note if others are left out.

    Raises `DataError` if none remain.
    """
    used = set(instruction.provenance.support_rows)
    rows = loaded.task.rows
    fresh = [row for row in rows if row_key(row.text) not in used]
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
    rows = loaded.task.rows
    seen = [row for row in rows if row_key(row.text) in made_from]
    if given or seen:
        examples = stratified_sample(given or seen, n)
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
