"""Change an instruction: replace its text, or extend it with lines that a model writes for new labels."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from promptmii import metrics
from promptmii.config import Columns
from promptmii.data import Source, Table, read_table
from promptmii.data.clean import is_header, label_cells
from promptmii.data.columns import choose_columns
from promptmii.data.labels import Spelling
from promptmii.data.sample import stratified_sample
from promptmii.data.table import LABEL_NAMES
from promptmii.errors import ConfigError, DataError
from promptmii.inducers import Writer
from promptmii.inducers.drafts import replace_text
from promptmii.inputs import load_task_for, table_for
from promptmii.instruction import EDITED, Cost, Instruction
from promptmii.messages import listed
from promptmii.models.base import Completion, LanguageModel, Message, Sampling, Usage
from promptmii.progress import QUIET, Progress
from promptmii.prompts import extension_prompt
from promptmii.task import Example, Support, row_key
from promptmii.words import BULLETS, any_of
from promptmii.workbench.compare import Comparison, compare
from promptmii.workbench.followers import FollowerLike, open_followers

BY_HAND = "edited by hand"
LINE_TOKENS = 120
"""Maximum length of a line."""
EXAMPLES = 8
"""Maximum rows per label that serve as examples; the other half of a label's rows are for measuring."""
NO_OLD_ROWS = "not calibrated: there are no rows of the old labels; give some (--old)"


def rows_for(instruction: Instruction, rows: Source | None = None) -> Table:
    """The table `rows`, or without one the table that the instruction was made from.

    Raises `DataError` if `rows` cannot be read, `ConfigError` if the other table cannot.
    """
    if rows is not None:
        return read_table(rows)
    source, needed = instruction.provenance.source, "The instruction needs labelled rows, and"
    if not source:
        raise ConfigError(f"{needed} it names none that it was made from: name a table.")
    try:
        return read_table(source)
    except DataError as error:
        raise ConfigError(f"{needed} those it was made from, {source}, cannot be read: name a table.") from error


def with_text(instruction: Instruction, text: str) -> Instruction:
    """The instruction with another text and no score. Its calibration no longer applies.

    Raises `DataError` if the text is empty.
    """
    if not text.strip():
        raise DataError("The edited text is empty, so nothing was changed.")
    calibration = instruction.calibration
    if calibration:  # kept to tell which kind to fit again
        owner = calibration.belongs_to or instruction.text_key
        calibration = calibration.model_copy(update={"belongs_to": owner})
    changes = {"measured": None, "calibration": calibration}
    return replace_text(instruction, text).model_copy(update=changes).noted(BY_HAND)


def edit(
    instruction: Instruction | str | os.PathLike[str],
    text: str,
    source: Source | None = None,
    follower: FollowerLike = None,
    columns: Columns | None = None,
    *,
    progress: Progress = QUIET,
) -> Comparison:
    """Replace an instruction's text, and measure the old and new instruction on the same rows. Writes no file.

    `comparison.rows[0].instruction` is the new one, calibrated and scored. Without a `source` the rows are those that
    the instruction was made from. Raises the errors of `rows_for`, `with_text` and `compare`.
    """
    before = Instruction.of(instruction)
    prompts = {"after": with_text(before, text), "before": before}
    return compare(prompts, rows_for(before, source), follower, columns, progress=progress)


@dataclass(frozen=True)
class Extended:
    """An instruction extended with new labels."""

    instruction: Instruction
    new_labels: tuple[str, ...]
    comparison: Comparison
    """`after` and `before` on all rows. The old instruction misses every row with a new label."""

    @property
    def old_labels(self) -> metrics.Difference | None:
        """After minus before on the rows with old labels, or `None` without such rows."""
        after, before = (row.scored for row in self.comparison.rows)
        old = [i for i, label in enumerate(after.gold) if label not in self.new_labels]
        if not old:
            return None
        gold = [after.gold[i] for i in old]
        return metrics.paired_difference(gold, [after.labels[i] for i in old], [before.labels[i] for i in old])


def extend(
    instruction: Instruction | str | os.PathLike[str],
    more: Source,
    follower: FollowerLike = None,
    columns: Columns | None = None,
    *,
    old: Source | None = None,
    generator: str | None = None,
    keep: Callable[[Instruction], object] = lambda _: None,
    progress: Progress = QUIET,
) -> Extended:
    """Write a line for each label in the table `more` that the instruction lacks, and measure it before and after.

    Writes no file. `old` is a table of rows with old labels; without any, nothing is calibrated. `generator` is the
    model that writes the lines, by default the one that wrote the instruction. `keep` receives the new instruction
    before it is measured. Raises `ConfigError` if no label is new, `DataError` if a new one has no usable row or no
    row is left to measure on, and `EndpointError` if the model writes no line.
    """
    instruction, columns = Instruction.of(instruction), columns or Columns()
    table = table_for(instruction, more, columns)
    column = _label_column(instruction, table, columns)
    new_labels = _new_labels(instruction, table, column)
    columns = columns.model_copy(update={"labels": (*instruction.labels, *new_labels)})
    tasks = [load_task_for(instruction, table, columns.model_copy(update={"label": column}))]
    if old is not None:
        tasks.insert(0, load_task_for(instruction, old, columns))
    # A row in both tables has its new label.
    rows = list({row_key(row.text): row for loaded in tasks for row in loaded.task.rows}.values())
    examples = _examples_by_label(instruction, rows)
    if lacking := [label for label in new_labels if label not in examples]:
        raise DataError(f"No row of {table.origin} shows {listed(lacking, 4)}: each was empty or contradicted.")
    used = {row_key(row.text) for group in examples.values() for row in group}
    used.update(instruction.provenance.support_rows)
    if all(row_key(row.text) in used for row in rows):
        raise DataError(
            f"No row of {table.origin} is left to measure on: the new lines are written from all of them. Give at "
            "least two rows of a new label, or other rows of the old labels (--old)."
        )
    with open_followers(follower, progress) as followers:
        writer = followers.writer(instruction, generator)
        followers.progress.step("Writing the new lines", len(new_labels), "drafts")
        after = _extended(instruction, {label: examples[label] for label in new_labels}, writer)
        after = after.fitted_on(Support(after.labels, tuple(row for group in examples.values() for row in group)))
        has_old = any(row.label in instruction.labels for row in rows)
        after = after.noted(EDITED if has_old else NO_OLD_ROWS)
        keep(after)
        prompts = {"after": after, "before": instruction}
        comparison = compare(prompts, rows, followers, Columns(text="text", label="label"), n=len(rows))
    return Extended(comparison.rows[0].instruction, new_labels, comparison)


def _label_column(instruction: Instruction, table: Table, columns: Columns) -> str:
    """The label column. Here a single label in all rows is enough, because it may be a new one."""
    column = columns.label or instruction.provenance.label_column
    if column in table.columns:
        return str(column)
    usual = next((name for name in table.columns if name.casefold() in LABEL_NAMES), None)
    if usual and not columns.label:
        return usual
    return choose_columns(table, columns.text, columns.label).label or ""


def _new_labels(instruction: Instruction, table: Table, column: str) -> tuple[str, ...]:
    """New labels in the order of the table, one spelling each. Raises `ConfigError` if there are none."""
    rows = zip(table.rows, label_cells(table, column), strict=True)
    labels = [label for row, label in rows if label and not is_header(row, row)]
    spelling = Spelling.of(labels, instruction.labels)
    distinct = dict.fromkeys(spelling(label) or label for label in labels)
    new = tuple(label for label in distinct if label not in instruction.labels)
    if not new:
        raise ConfigError(f"{table.origin} has no label that the instruction lacks, so there is nothing to extend.")
    return new


def _examples_by_label(instruction: Instruction, rows: Sequence[Example]) -> dict[str, tuple[Example, ...]]:
    """Half of each label's rows, rounded up, except for old labels whose rows the instruction was made from."""
    made_from = set(instruction.provenance.support_rows)
    used_labels = {row.label for row in rows if row_key(row.text) in made_from}.intersection(instruction.labels)
    by_label: dict[str, list[Example]] = {}
    for row in rows:
        if row.label not in used_labels:
            by_label.setdefault(row.label, []).append(row)
    return {label: stratified_sample(group, min(EXAMPLES, (len(group) + 1) // 2)) for label, group in by_label.items()}


def _extended(instruction: Instruction, examples: Mapping[str, Sequence[Example]], model: LanguageModel) -> Instruction:
    """The instruction with the new labels and a line for each below its text, without calibration or score."""
    writer = Writer(model)
    chats: list[list[Message]] = [
        [{"role": "user", "content": extension_prompt(instruction.text, label, rows)}]
        for label, rows in examples.items()
    ]
    answers = model.generate(chats, Sampling(LINE_TOKENS))
    texts = [writer.require_text(writer.text(answer)) for answer in answers]
    bullet = _bullet(instruction)
    lines = [f"{bullet}{label}: {_description(label, text)}" for label, text in zip(examples, texts, strict=True)]
    cut = [
        f"the line of {label} is cut at {LINE_TOKENS} tokens; the generator had not finished"
        for label, text, answer in zip(examples, texts, answers, strict=True)
        if isinstance(answer, Completion) and answer.truncated and _is_last_line(label, text)
    ]
    usage = sum((answer.usage for answer in answers), Usage())
    line_break = "\n" if instruction.text and not instruction.text.endswith("\n") else ""
    changes = {
        "text": instruction.text + line_break + "\n".join(lines),
        "labels": (*instruction.labels, *examples),
        "cost": instruction.cost + Cost.of(usage, model.card.price),
        "calibration": None,
        "measured": None,
    }
    return instruction.model_copy(update=changes).noted(f"extended by {', '.join(examples)}", *cut)


def _bullet(instruction: Instruction) -> str:
    """The bullet before labels at the start of lines, such as a dash."""
    match = re.search(
        rf"^([{re.escape(BULLETS)}]*)(?:{any_of(instruction.labels)})\s*:", instruction.text, re.MULTILINE
    )
    return match[1] if match else ""


def _is_last_line(label: str, text: str) -> bool:
    """Whether the last line of a model's answer, which may be cut, is the label's description."""
    return _description(label, text) == _description(label, text.rstrip().rpartition("\n")[2])


def _description(label: str, text: str) -> str:
    """The label's description in a model's answer: the line that begins with the label, or else the first line."""
    lines = [line.strip(BULLETS) for line in text.splitlines() if line.strip(BULLETS)]
    prefix = re.compile(rf"{re.escape(label)}\W*?[:：][\s*_]*", re.IGNORECASE)
    line = next((line for line in lines if prefix.match(line)), lines[0] if lines else text)
    return prefix.sub("", line, count=1).strip() or line
