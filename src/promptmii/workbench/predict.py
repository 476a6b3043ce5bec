"""Label new texts: in memory, or a table of any length into a file that a rerun can resume."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptmii.data import Source, read_texts
from promptmii.data.table import Row
from promptmii.data.texts import csv_style
from promptmii.errors import EndpointError
from promptmii.files import write_text
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.markup import table_html, text_html
from promptmii.messages import counted
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain, Threshold, ThresholdChoice
from promptmii.workbench.followers import FollowerLike, open_followers
from promptmii.workbench.formats import Csv, ParquetTable, csv_text, format_for
from promptmii.workbench.growing_table import (
    GrowingTable,
    Tally,
    Turns,
    end_run,
    locked_run_folder,
    refuse_overwriting,
    state_in,
)
from promptmii.workbench.labelling import Labelling

SHOWN = 20
"""Rows to show in a notebook."""
Sink = Callable[[str], object]
"""Receives CSV, row by row."""


@dataclass(frozen=True)
class Labelled:
    """The labelled rows of a table, or the path of the file they were written to."""

    columns: tuple[str, ...]
    """The input's columns, `predicted_label`, `unsure_label` if there is a threshold, `probability` and a `p(<label>)`
    per label if the follower gives probabilities, `model_answer` in mode `generate`, and `failure`."""
    tally: Tally
    cost: Cost
    """The cost of this run's calls."""
    threshold: Threshold | None = None
    rows: tuple[Row, ...] = ()
    """Empty if written to a file or sink."""
    predictions: tuple[Prediction, ...] = ()
    path: Path | None = None

    def __repr__(self) -> str:
        counts = {"unsure": self.tally.unsure, "failed": self.tally.failed}
        more = "".join(f", {n} {name}" for name, n in counts.items() if n)
        path = f", in {self.path}" if self.path else ""
        return f"<Labelled {counted(self.tally.rows, 'row')}: {self.tally.labelled} labelled{more}{path}>"

    def _repr_html_(self) -> str:
        shown = [[row.get(name) for name in self.columns] for row in self.rows[:SHOWN]]
        return text_html(repr(self)) + (table_html(self.columns, shown) if shown else "")

    @property
    def n_labelled(self) -> int:
        """Number of rows with a label."""
        return self.tally.labelled

    @property
    def n_failed(self) -> int:
        """Number of rows whose call failed."""
        return self.tally.failed

    def csv(self) -> str:
        """The rows as CSV with a header."""
        return csv_text(self.columns, self.rows)


def predict(
    instruction: Instruction | str | os.PathLike[str],
    source: Source,
    follower: FollowerLike = None,
    text: str | tuple[str, ...] | None = None,
    *,
    output: str | Path | Sink | None = None,
    force: bool = False,
    abstain: Abstain | None = None,
    progress: Progress = QUIET,
) -> Labelled:
    """Label a table or a list of texts. Empty texts get no label and cost no call.

    `instruction` is an instruction or its file. The `follower` defaults to the one that the instruction names.

    Rows go to an `output` file (`.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`) as they are labelled, in constant
    memory. After a kill, the same call resumes the run and retries failed rows.

    Raises `DataError` if the input already has a column that labelling adds, `OutputError` if the output file exists,
    is the input or belongs to another run, and `EndpointError` if the server stops answering.
    """
    instruction, abstain = Instruction.of(instruction), abstain or Abstain()
    with open_followers(follower, progress) as followers:
        progress = followers.progress
        texts = read_texts(source, text or instruction.text_source, progress)
        job = Labelling(instruction, followers.of(instruction), texts)
        if isinstance(output, str | Path):
            with file_run(job, source, Path(output), abstain, progress, force=force) as run:
                return run.label(progress)
        threshold = abstain.threshold_for(instruction, job.follower, progress)
        return _labelled(replace(job, threshold=threshold), output, progress)


def _labelled(job: Labelling, sink: Sink | None, progress: Progress) -> Labelled:
    """Label the rows in memory, or pass them to the sink as CSV."""
    csv_format, tally, turns = Csv(job.columns), Tally(), Turns[tuple[Row, Prediction]]()
    rows: list[Row] = []
    predictions: list[Prediction] = []
    if sink:
        sink(csv_format.head)

    def write(positioned: Sequence[tuple[int, Row]], new_predictions: Sequence[Prediction]) -> None:
        due = turns.due((n, (row, p)) for (n, row), p in zip(positioned, new_predictions, strict=True))
        new = [row for row, _ in due]
        for row in new:
            tally.count(row)
        if sink and new:
            sink(csv_format.records(new))
        elif new:
            rows.extend(new)
            predictions.extend(prediction for _, prediction in due)

    cost = job.run(write, progress)
    return Labelled(job.columns, tally, cost, job.threshold, tuple(rows), tuple(predictions))


@dataclass(frozen=True)
class FileRun:
    """A run that labels a table into a file, new or resumed."""

    job: Labelling
    output: Path
    table: GrowingTable
    folder: Path
    """The run folder, which a rerun needs."""
    parquet: ParquetTable | None = None

    def label(self, progress: Progress) -> Labelled:
        """Label the rows without an answer. Raises the errors of `Labelling.run`; the answers so far are kept."""
        job, table = self.job, self.table
        try:
            cost = job.run(lambda rows, _: table.write(rows), progress, lacks=table.lacks, answered=table.answered)
        except EndpointError as error:
            if not table.answered:
                raise
            kept = f"{error} The rows answered so far are kept; run the same command again to continue."
            raise EndpointError(kept, error.kind, lasting=error.lasting) from error
        table.merge_retried()
        if self.parquet:
            added = ({name: row[name] for name in job.added} for row in table.rows())
            rows = (row | columns for (row, _), columns in zip(job.texts, added, strict=True))
            self.parquet.write(self.output, rows)
        if not table.tally.failed:
            end_run(self.folder)
        return Labelled(job.columns, table.tally, cost, job.threshold, path=self.output)


@contextmanager
def file_run(
    job: Labelling, source: Source, output: Path, abstain: Abstain, progress: Progress, *, force: bool
) -> Generator[FileRun]:
    """A new or resumed run that labels `source` into `output`.

    Raises `OutputError` if the output file exists, is the input or belongs to another run, and the errors of
    `Abstain.threshold_for`.
    """
    refuse_overwriting(output, source, abstain.held_back)
    card, style = job.follower.model.card, csv_style(source)
    inputs = {
        "instruction": job.instruction.key,
        "follower": [card.reference, card.revision, job.follower.mode],
        "input": job.texts.key,
        "threshold": [abstain.threshold, abstain.precision, abstain.key],
        "delimiter": [*style],
    }
    with locked_run_folder(output, inputs, force=force) as folder:
        job = replace(job, threshold=_threshold(job, abstain, folder, progress))
        parquet = None
        if output.suffix.lower() == ".parquet":
            parquet = ParquetTable((row for row, _ in job.texts), job.added)
        growing = folder / "rows.jsonl" if parquet else output
        table = GrowingTable(growing, format_for(output, job.columns, style), folder)
        try:
            yield FileRun(job, output, table, folder, parquet)
        finally:
            if not (table.tally.rows or table.answered):
                growing.unlink()


def _threshold(job: Labelling, abstain: Abstain, folder: Path, progress: Progress) -> Threshold | None:
    """The threshold of this run, chosen at its first start."""
    path = folder / "threshold.json"
    if path.exists():
        saved = state_in(path, path.read_bytes())
        return Threshold(saved["value"], saved["chosen"] and ThresholdChoice(**saved["chosen"]))
    threshold = abstain.threshold_for(job.instruction, job.follower, progress)
    if threshold:
        write_text(path, json.dumps(asdict(threshold)))
    return threshold
