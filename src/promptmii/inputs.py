"""Read what users give: prompts, and the rows to measure them on.

A prompt is an instruction, its file, a plain text file, or the text itself. Some rows of a table serve as examples; the
rest are test rows.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from promptmii.config import Columns
from promptmii.data import LoadedTask, Source, Table, draw_support, load_task, read_table
from promptmii.data.clean import UNLISTED
from promptmii.data.columns import with_fields
from promptmii.data.decoding import decode, path_name
from promptmii.data.readers import format_of
from promptmii.data.sample import stratified_sample
from promptmii.errors import ArtefactError, DataError
from promptmii.inducers import FixedInstruction
from promptmii.instruction import Instruction
from promptmii.markup import brief
from promptmii.messages import WARNING, counted
from promptmii.table_formats import TABLES
from promptmii.task import Example, Support, row_key

Prompt: TypeAlias = Instruction | str | os.PathLike[str]
"""An instruction, the path of an instruction file (`.json`) or a text file, or a text of at least two words."""
USED = "made from or calibrated on"
"""What makes rows unfit to measure an instruction."""
UNKNOWN_REMEDY = "promptmii extend adds labels; with --labels, score and compare count these rows as misses"
SLOT = re.compile(r"\{\{? *(?:text|input|query|message) *\}?\}")
"""The placeholder that other tools replace with the text to classify."""


def read_prompt(prompt: Prompt) -> Instruction | str:
    """The prompt as an instruction, or as a text whose labels are not known yet.

    Raises `ArtefactError` for a file that cannot be read, `DataError` for an empty text, a table, or an instruction
    outside a `.json` file.
    """
    if isinstance(prompt, Instruction):
        return prompt
    if isinstance(prompt, str) and not is_path(prompt):
        return _checked(prompt)
    path = Path(prompt)
    hint = " If this is the text of a prompt, give it on standard input (-)." if " " in path.name else ""
    if path.suffix.lower() == ".json":
        return Instruction.load(path)
    if format_of(path) in TABLES:
        raise DataError(
            f"{path} is a table; expected an instruction file (.json) or a text. Is the order swapped?{hint}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read: {error.strerror}. Expected an instruction file (.json), or a file of text.{hint}"
        ) from error
    return _checked(decode(content, path_name(path)), path)


def prompt_text(prompt: Prompt) -> str:
    """The prompt's text. Raises the errors of `read_prompt`."""
    content = read_prompt(prompt)
    return content.text if isinstance(content, Instruction) else content


def is_path(text: str) -> bool:
    """Whether the text is a path: an existing file, a single word with a suffix, or words with that of a table or text.

    A suffix is ASCII, because Chinese texts have no spaces and may hold a decimal or a numbered list.
    """
    if not text or "\n" in text:
        return False
    single_word = not re.search(r"\s", text.strip())
    try:
        suffix = Path(text).suffix
        named = suffix.lower() in (*TABLES, ".txt", ".gz") and not text[: -len(suffix)].endswith(" ")
        is_name = named or (single_word and bool(suffix) and suffix.isascii())
        return is_name or Path(text).exists()
    except (OSError, ValueError):  # too long for a file name, or contains a null byte
        return False


def _checked(text: str, file: Path | None = None) -> str:
    """The text, unless it is empty, a single word, such as a mistyped file name, or the content of an instruction file.

    That would be measured as a text, without an error, and its labels, frame and calibration would not apply.
    """
    if not text.strip():
        raise DataError(
            f"{file or 'The text'} is empty. To measure the label list alone: promptmii compare naive --data DATA"
        )
    if text.isascii() and not re.search(r"\s", text.strip()):
        if file:
            raise DataError(f"{file} holds one word, too short for an instruction. Write at least a sentence.")
        raise DataError(f"{text.strip()!r} is not a file, and is too short for an instruction. Check the file name.")
    if _is_instruction(text):
        raise DataError(
            f"{file or 'The text'} holds an instruction. Give the name of an instruction file, which ends in .json."
        )
    return text


def _is_instruction(text: str) -> bool:
    try:
        Instruction.model_validate_json(text)
    except ValueError:
        return False
    return True


def instruction_from_text(text: str, labels: Sequence[str]) -> Instruction:
    """An instruction with a human-written text. Another tool's placeholder stays in the text, with a note."""
    instruction = FixedInstruction(text).induce(Support(tuple(labels), ()))
    if slot := SLOT.search(text):
        note = f"{slot[0]} is not a slot here: promptmii adds the labels and the input after the text"
        return instruction.noted(note)
    return instruction


def prompt_name(prompt: Prompt) -> str:
    """The prompt's name in tables: its method, its path, or the beginning of its text."""
    if isinstance(prompt, Instruction):
        return prompt.method
    if isinstance(prompt, str) and not is_path(prompt):
        return brief(prompt, 24)
    return path_name(os.fspath(prompt))


def load_task_for(
    instruction: Instruction | None, source: Source, columns: Columns, known_labels: tuple[str, ...] = ()
) -> LoadedTask:
    """The task in a table. Columns that `columns` does not name are those the instruction was made from.

    Drops rows whose label neither `columns` nor the instruction lists, with a warning among the notes. If several
    instructions are measured, `known_labels` are the labels of them all.
    """
    if instruction is None:
        return load_task(source, **dict(columns))
    provenance, table = instruction.provenance, table_for(instruction, source, columns)
    known = _columns_in(table, provenance.text_columns, provenance.text_template, provenance.label_column)
    labels = columns.labels or known_labels or instruction.labels
    unknown = "a label that no instruction knows" if known_labels else "a label that the instruction does not know"
    loaded = load_task(
        table,
        text=columns.text or known.text,
        label=columns.label or known.label,
        labels=labels,
        unlisted_reason=UNLISTED if columns.labels else unknown,
    )
    notes = (f"{WARNING}{note}. {UNKNOWN_REMEDY}" if unknown in note else note for note in loaded.notes)
    return replace(loaded, notes=tuple(notes))


def table_for(instruction: Instruction | None, source: Source, columns: Columns) -> Table:
    """The table, with the fields within objects that `columns` and the instruction name."""
    named = (instruction.text_source, instruction.provenance.label_column) if instruction else ()
    return with_fields(read_table(source), columns.text, columns.label, *named)


def _columns_in(table: Table, text: tuple[str, ...], template: str | None, label: str | None) -> Columns:
    """The text columns if the table has them all, and the label column if it has that; the others are detected."""
    known_text = template or text or None if set(text) <= set(table.columns) else None
    return Columns(text=known_text, label=label if label in table.columns else None)


def with_test_rows(loaded: LoadedTask, source: Source) -> LoadedTask:
    """The task with the rows of another table as its test rows, and all its other rows as training rows.

    Rows in both tables are test rows.
    """
    columns = loaded.columns
    table = with_fields(read_table(source), columns.text, columns.label)
    known = _columns_in(table, columns.text, columns.template, columns.label)
    reason = f"a label that {loaded.task.name} does not have"
    test = load_task(table, text=known.text, label=known.label, labels=loaded.task.labels, unlisted_reason=reason)
    test_rows = test.task.rows
    test_keys = {row_key(row.text) for row in test_rows}
    train = tuple(row for row in loaded.task.rows if row_key(row.text) not in test_keys)
    if not train:
        raise DataError(f"Every row of {loaded.task.name} is in {test.task.name} too, so none can be an example.")
    shared = len(loaded.task.rows) - len(train)
    notes = (f"{counted(shared, 'row')} left out of the examples: the test rows hold them too",) if shared else ()
    notes += (f"measured on {counted(len(test_rows), 'row')} of {test.task.name}",)
    read = (f"{test.task.name}: {note}" for note in test.notes)
    return replace(loaded, task=replace(loaded.task, train=train, test=test_rows), notes=(*loaded.notes, *read, *notes))


def fresh_rows(instruction: Instruction, loaded: LoadedTask) -> tuple[list[Example], tuple[str, ...]]:
    """The rows that the instruction was not made from or calibrated on, and a note if any were left out.

    Raises `DataError` if no rows remain.
    """
    used = set(instruction.provenance.support_rows)
    rows = loaded.task.rows
    fresh = [row for row in rows if row_key(row.text) not in used]
    if not fresh:
        raise DataError(f"The instruction was {USED} all of these rows, so they cannot measure it. Give other rows.")
    left_out = len(rows) - len(fresh)
    return fresh, (f"{counted(left_out, 'row')} left out: the instruction was {USED} them",) if left_out else ()


@dataclass(frozen=True)
class RowSplit:
    """The rows of a table, split into examples and test rows."""

    examples: tuple[Example, ...]
    """Shown by ICL, and used to fit calibrations; may be empty."""
    query: tuple[Example, ...]
    """Test rows, which exclude the examples and all rows that a prompt was made from."""
    notes: tuple[str, ...]


def split_rows(loaded: LoadedTask, made_from: set[str], n: int, *, examples: Sequence[Example], draw: bool) -> RowSplit:
    """Split the rows of a task into up to `n` examples and the test rows.

    The examples come from `examples`, or else from the rows that an instruction was made from (`made_from` holds their
    keys), or else from the training rows if `draw`. Raises `DataError` if no test row is left.
    """
    rows = loaded.task.rows
    seen = [row for row in rows if row_key(row.text) in made_from]
    why = f"a prompt was {USED} them" if seen else "they are the examples"
    if examples or seen:
        examples = stratified_sample(examples or seen, n)
    elif draw:
        examples = draw_support(loaded.task, min(n, len(loaded.task.train))).examples
        why = "they were drawn as examples; promptmii compare --examples ROWS takes others"
    used = made_from | {row_key(example.text) for example in examples}
    query = tuple(row for row in rows if row_key(row.text) not in used)
    if not query:
        raise DataError(
            f"No row is left to measure on: all of them are examples, or a prompt was {USED} them. Give more rows."
        )
    left_out = len(rows) - len(query)
    notes = (f"{counted(left_out, 'row')} left out: {why}",) if left_out else ()
    return RowSplit(tuple(examples), query, (*loaded.notes, *notes))
