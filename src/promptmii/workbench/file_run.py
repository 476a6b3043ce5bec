"""A run that labels a table into a file: begun, gone on with, and finished."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptmii.files import write_text
from promptmii.follower import Prediction
from promptmii.instruction import Cost
from promptmii.progress import Progress
from promptmii.workbench.abstain import Abstain, Threshold, ThresholdChoice
from promptmii.workbench.answering import Labelling
from promptmii.workbench.formats import Csv, ParquetTable, Row, format_for
from promptmii.workbench.growing import GrowingTable, Tally, end_run, run_of


@dataclass(frozen=True)
class Labelled:
    """What became of the rows of a table."""

    columns: tuple[str, ...]
    """The input's, then `predicted_label`, perhaps `unsure_label`, `probability` and one `p(<label>)` per label, and
    `failure`."""
    tally: Tally
    cost: Cost
    """Of the calls of this run."""
    threshold: Threshold | None = None
    rows: tuple[Row, ...] = ()
    """Empty where they went to a file."""
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
        form = Csv(self.columns)
        return form.head + form.records(self.rows)


@dataclass(frozen=True)
class FileRun:
    """The rows that have an answer, those that lack one, and where they go."""

    job: Labelling
    output: Path
    table: GrowingTable
    folder: Path
    """What a rerun needs."""
    parquet: ParquetTable | None = None

    def label(self, progress: Progress) -> Labelled:
        """Label what lacks an answer. Raises as `Labelling.run` does; what was answered until then is kept."""
        job, table = self.job, self.table
        cost = job.run(table, job.texts.n - table.answered, progress)
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
    job: Labelling, output: Path, abstain: Abstain, progress: Progress, *, force: bool = False
) -> Generator[FileRun]:
    """The run that writes `output`, begun or gone on with.

    Raises `OutputError` where the file exists or belongs to another run, and as `Abstain.threshold_for` does.
    """
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
        known = json.loads(path.read_text("utf-8"))
        return Threshold(known["value"], known["chosen"] and ThresholdChoice(**known["chosen"]))
    found = abstain.threshold_for(job.instruction, job.follower, progress)
    if found:
        write_text(path, json.dumps(asdict(found)))
    return found
