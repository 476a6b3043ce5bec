"""Change an instruction: a human edits its text, or a model writes lines for more labels below the old ones."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from promptmii import metrics
from promptmii.config import Columns
from promptmii.data import Source, Table, read_table
from promptmii.data.columns import choose_columns
from promptmii.data.labels import Spelling, label_text
from promptmii.data.sample import stratified_sample
from promptmii.data.table import LABEL_NAMES
from promptmii.errors import ConfigError, DataError
from promptmii.inducers import Writer
from promptmii.instruction import EDITED, Cost, Instruction
from promptmii.models.base import LanguageModel, Message, Sampling, Usage
from promptmii.progress import QUIET, Progress
from promptmii.prompts import extension_prompt
from promptmii.task import Example, Support, row_key
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.followers import Answering, answering
from promptmii.workbench.given import table_of

BY_HAND = "edited by hand"
LINE = 120
"""Longest line, in tokens."""
EXAMPLES = 8
"""Most rows of a label to write its line from and to calibrate on; at least as many remain to measure."""
NO_OLD_ROWS = "not calibrated: there are no rows of the old labels; give some (--old)"


def own_rows(instruction: Instruction, rows: Source | None = None) -> Table:
    """`rows`, or else the table that the instruction was made from.

    Raises `DataError` if `rows` cannot be read, `ConfigError` if without them that table is gone.
    """
    if rows is not None:
        return read_table(rows)
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
    prompts = {"after": edited(before, text), "before": before}
    return compare(prompts, own_rows(before, source), follower, columns, progress=progress)


@dataclass(frozen=True)
class Extended:
    """An instruction with more labels."""

    instruction: Instruction
    new_labels: tuple[str, ...]
    comparison: Comparison
    """`after` and `before` on all rows; the old one misses every row of a new label."""

    @property
    def old_labels(self) -> metrics.Difference | None:
        """After minus before on the rows with old labels; `None` if there are none."""
        after, before = (row.scored for row in self.comparison.rows)
        old = [i for i, label in enumerate(after.gold) if label not in self.new_labels]
        gold, now, then = ([labels[i] for i in old] for labels in (after.gold, after.labels, before.labels))
        return metrics.paired_difference([str(label) for label in gold], now, then) if old else None


def extend(
    instruction: Instruction | str | os.PathLike[str],
    more: Source,
    follower: Answering = None,
    columns: Columns | None = None,
    *,
    old: Source | None = None,
    generator: str | None = None,
    keep: Callable[[Instruction], object] = lambda _: None,
    progress: Progress = QUIET,
) -> Extended:
    """Write a line for each label of `more` that the instruction lacks, and measure it before and after.

    Writes no file. `old` holds rows of the old labels; without it nothing is calibrated. `generator` writes the lines,
    or else the model that wrote the instruction. `keep` gets the instruction before it is measured. Raises
    `ConfigError` if no label is new, `EndpointError` if a line is not written.
    """
    instruction, columns, table = Instruction.of(instruction), columns or Columns(), read_table(more)
    column = _label_column(instruction, table, columns)
    new = _new_labels(instruction, table, column)
    columns = columns.model_copy(update={"labels": (*instruction.labels, *new)})
    tables = [table_of(instruction, table, columns.model_copy(update={"label": column}))]
    tables += [table_of(instruction, old, columns)] if old is not None else []
    rows = list({row_key(row.text): row for loaded in tables for row in loaded.task.rows}.values())
    shown = _examples(instruction, rows)
    with answering(follower, progress) as followers:
        writer = followers.writer(instruction, generator)
        followers.progress.step("Writing the new lines", len(new), "drafts")
        after = _with_lines(instruction, {name: shown[name] for name in new}, writer)
        after = after.fitted_on(Support(after.labels, tuple(row for examples in shown.values() for row in examples)))
        has_old = any(row.label in instruction.labels for row in rows)
        after = after.noted(EDITED if has_old else NO_OLD_ROWS)
        keep(after)
        prompts = {"after": after, "before": instruction}
        comparison = compare(prompts, rows, followers, Columns(text="text", label="label"), n=len(rows))
    return Extended(comparison.rows[0].instruction, new, comparison)


def _label_column(instruction: Instruction, table: Table, columns: Columns) -> str:
    """The label column. Unlike elsewhere it may hold a single value, if all rows have one new label."""
    named = columns.label or instruction.provenance.label_column
    if named in table.columns:
        return str(named)
    called = next((name for name in table.columns if name.casefold() in LABEL_NAMES), None)
    return (None if columns.label else called) or choose_columns(table, columns.text, columns.label).label or ""


def _new_labels(instruction: Instruction, table: Table, column: str) -> tuple[str, ...]:
    """In the order of the table, one spelling each. Raises `ConfigError` if there are none."""
    written = [label_text(row[column], column) for row in table.rows if row[column] is not None]
    spelling = Spelling.of([label for label in written if label], instruction.labels)
    distinct = dict.fromkeys(spelling(label) or label for label in written if label)
    new = tuple(label for label in distinct if label not in instruction.labels)
    if not new:
        raise ConfigError(f"{table.origin} has no label that the instruction lacks, so there is nothing to extend.")
    return new


def _examples(instruction: Instruction, rows: Sequence[Example]) -> dict[str, tuple[Example, ...]]:
    """Up to half of the rows of each label; none of a label that the instruction was made from."""
    made_from = set(instruction.provenance.support_rows)
    used = {row.label for row in rows if row_key(row.text) in made_from}
    by_label: dict[str, list[Example]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    sizes = {label: min(EXAMPLES, (len(own) + 1) // 2) for label, own in by_label.items() if label not in used}
    return {label: stratified_sample(by_label[label], size) for label, size in sizes.items()}


def _with_lines(
    instruction: Instruction, examples: Mapping[str, Sequence[Example]], model: LanguageModel
) -> Instruction:
    """The instruction with the new labels, a line for each below the old text, and no calibration or score."""
    writer = Writer(model)
    chats: list[list[Message]] = [
        [{"role": "user", "content": extension_prompt(instruction.text, label, rows)}]
        for label, rows in examples.items()
    ]
    answers = model.generate(chats, Sampling(LINE))
    texts = [writer.require_text(writer.text(answer)) for answer in answers]
    mark = _mark(instruction)
    lines = [f"{mark}{label}: {_described(label, text)}" for label, text in zip(examples, texts, strict=True)]
    usage = sum((answer.usage for answer in answers), Usage())
    text = instruction.text + ("" if instruction.text.endswith("\n") or not instruction.text else "\n")
    change = {
        "text": text + "\n".join(lines),
        "labels": (*instruction.labels, *examples),
        "cost": instruction.cost + Cost.of(usage, model.card.price),
        "calibration": None,
        "measured": None,
    }
    return instruction.model_copy(update=change).noted(f"extended by {', '.join(examples)}")


def _mark(instruction: Instruction) -> str:
    """The mark before the labels at the beginning of lines, such as a dash."""
    names = "|".join(map(re.escape, sorted(instruction.labels, key=len, reverse=True)))
    match = re.search(rf"^([-*•# ]*)(?:{names})\s*:", instruction.text, re.MULTILINE)
    return match[1] if match else ""


def _described(label: str, text: str) -> str:
    """The description in an answer: the line that begins with the label, or else the first."""
    lines = [line.strip(" -*•#\t") for line in text.splitlines() if line.strip(" -*•#\t")]
    own = re.compile(rf"{re.escape(label)}\W*:\W*", re.IGNORECASE)
    chosen = next((line for line in lines if own.match(line)), lines[0] if lines else text)
    return own.sub("", chosen, count=1).strip() or chosen
