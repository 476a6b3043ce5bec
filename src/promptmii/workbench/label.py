"""Labels for new texts: a few in memory, or a table of any length into a file that a rerun resumes."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptmii.data import Source, read_texts
from promptmii.files import write_text
from promptmii.follower import Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain, Threshold, ThresholdChoice
from promptmii.workbench.answering import Labelling
from promptmii.workbench.followers import Answering, answering
from promptmii.workbench.formats import Csv, ParquetTable, Row, csv_text, format_for
from promptmii.workbench.growing import GrowingTable, Tally, end_run, refuse_overwriting, run_of

Sink = Callable[[str], object]
"""Takes CSV, row by row."""


@dataclass(frozen=True)
class Labelled:
    """The labelled rows of a table, or where they are."""

    columns: tuple[str, ...]
    """The input's, then `predicted_label`, perhaps `unsure_label`, `probability` and one `p(<label>)` per label, and
    `failure`."""
    tally: Tally
    cost: Cost
    """The cost of this run's calls."""
    threshold: Threshold | None = None
    rows: tuple[Row, ...] = ()
    """Empty if they were written to a file or a sink."""
    predictions: tuple[Prediction, ...] = ()
    path: Path | None = None

    @property
    def n_labelled(self) -> int:
        """Rows with a label."""
        return self.tally.labelled

    @property
    def n_failed(self) -> int:
        """Rows whose call failed."""
        return self.tally.failed

    def csv(self) -> str:
        """The rows as CSV with a header."""
        return csv_text(self.columns, self.rows)


def predict(
    instruction: Instruction | str | os.PathLike[str],
    source: Source,
    follower: Answering = None,
    text: str | tuple[str, ...] | None = None,
    *,
    output: str | Path | Sink | None = None,
    force: bool = False,
    abstain: Abstain | None = None,
    progress: Progress = QUIET,
) -> Labelled:
    """Label a table, a list of texts, or one text; empty texts get neither a label nor a call.

    `instruction` may be its file. Without a `follower`, the one that the instruction names answers.

    With an `output` file (`.csv`, `.tsv`, `.jsonl`, `.ndjson` or `.parquet`) rows are written as they are labelled, in
    constant memory. The same call resumes after a kill, and asks again for rows that failed.

    Raises `DataError` if the input has a column of a name that labelling adds, `OutputError` if the file exists, is the
    input or belongs to another run, and `EndpointError` when the server no longer answers.
    """
    instruction, abstain = Instruction.of(instruction), abstain or Abstain()
    with answering(follower, progress) as followers:
        progress = followers.progress
        texts = read_texts(source, text or instruction.text_source, progress)
        job = Labelling(instruction, followers.of(instruction), texts)
        if isinstance(output, str | Path):
            with file_run(job, source, Path(output), abstain, progress, force=force) as run:
                return run.label(progress)
        threshold = abstain.threshold_for(instruction, job.follower, progress)
        return _labelled(replace(job, threshold=threshold), output, progress)


def _labelled(job: Labelling, sink: Sink | None, progress: Progress) -> Labelled:
    """The rows in memory, or passed on as CSV."""
    form, tally = Csv(job.columns), Tally()
    rows: list[Row] = []
    predictions: list[Prediction] = []
    if sink:
        sink(form.head)

    def write(numbered: Sequence[tuple[int, Row]], answers: Sequence[Prediction]) -> None:
        new = [row for _, row in numbered]
        for row in new:
            tally.count(row)
        if sink:
            sink(form.records(new))
        else:
            rows.extend(new)
            predictions.extend(answers)

    cost = job.run(write, progress)
    return Labelled(job.columns, tally, cost, job.threshold, tuple(rows), tuple(predictions))


@dataclass(frozen=True)
class FileRun:
    """A run that labels a table into a file, new or resumed."""

    job: Labelling
    output: Path
    table: GrowingTable
    folder: Path
    """Holds what a rerun needs."""
    parquet: ParquetTable | None = None

    def label(self, progress: Progress) -> Labelled:
        """Label the rows that lack an answer. Raises as `Labelling.run` does; answers received until then are kept."""
        job, table = self.job, self.table
        cost = job.run(lambda rows, _: table.write(rows), progress, lacks=table.lacks, answered=table.answered)
        table.put_in_place()
        if self.parquet:
            answers = ({name: row[name] for name in job.added} for row in table.rows())
            rows = (row | answer for (row, _), answer in zip(job.texts, answers, strict=True))
            self.parquet.write(self.output, rows)
        if not table.tally.failed:
            end_run(self.folder)
        return Labelled(job.columns, table.tally, cost, job.threshold, path=self.output)


@contextmanager
def file_run(
    job: Labelling, source: Source, output: Path, abstain: Abstain, progress: Progress, *, force: bool = False
) -> Generator[FileRun]:
    """The run that labels `source` into `output`, new or resumed.

    Raises `OutputError` if the file exists, is the input or belongs to another run, and as `Abstain.threshold_for`.
    """
    refuse_overwriting(output, source, abstain.held_back)
    card = job.follower.model.card
    made_of = {
        "instruction": job.instruction.key,
        "follower": [card.reference, card.revision, job.follower.mode],
        "input": job.texts.key,
        "threshold": [abstain.threshold, abstain.precision, abstain.key],
    }
    with run_of(output, made_of, force=force) as folder:
        job = replace(job, threshold=_threshold(job, abstain, folder, progress))
        parquet = None
        if output.suffix.lower() == ".parquet":
            parquet = ParquetTable((row for row, _ in job.texts), job.added)
        growing = folder / "rows.jsonl" if parquet else output
        table = GrowingTable(growing, format_for(output, job.columns), folder)
        try:
            yield FileRun(job, output, table, folder, parquet)
        finally:
            if not table.tally.rows:
                growing.unlink()


def _threshold(job: Labelling, abstain: Abstain, folder: Path, progress: Progress) -> Threshold | None:
    """The threshold of this run, chosen once."""
    path = folder / "threshold.json"
    if path.exists():
        saved = json.loads(path.read_text("utf-8"))
        return Threshold(saved["value"], saved["chosen"] and ThresholdChoice(**saved["chosen"]))
    threshold = abstain.threshold_for(job.instruction, job.follower, progress)
    if threshold:
        write_text(path, json.dumps(asdict(threshold)))
    return threshold
