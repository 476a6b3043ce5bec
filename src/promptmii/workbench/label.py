"""Labels for new texts: for a few in memory, or for a table of any length into a file that a rerun goes on with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptmii.data import Source, read_texts
from promptmii.files import write_text
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain, Chosen, Threshold
from promptmii.workbench.answering import Job
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


Sink = Callable[[str], object]
"""Takes CSV, row by row."""


def predict(
    instruction: Instruction,
    source: Source,
    follower: Follower,
    text: str | tuple[str, ...] | None = None,
    *,
    output: str | Path | Sink | None = None,
    force: bool = False,
    abstain: Abstain | None = None,
    progress: Progress = QUIET,
) -> Labelled:
    """Label a table, a list of texts, or one text; empty texts get neither a label nor a call.

    With an `output` file the rows are written as they are labelled, in constant memory: `.csv`, `.tsv`, `.jsonl`,
    `.ndjson` or `.parquet`. The same call again goes on after a kill, and asks again for rows that failed.

    Raises `DataError` where a column of the input has the name of one that is to be added, `OutputError` where the file
    exists or belongs to another run, and `EndpointError` when the server no longer answers.
    """
    texts = read_texts(
        source, text or instruction.provenance.text_template or instruction.provenance.text_columns or None, progress
    )
    abstain = abstain or Abstain()
    job = Job(instruction, follower, texts)
    if isinstance(output, str | Path):
        return _into_file(job, Path(output), abstain, progress, force=force)
    job = replace(job, threshold=abstain.threshold_for(instruction, follower, progress))
    table = _Passing(Csv(job.columns), output) if output else _Kept()
    cost = job.run(table, texts.n, progress)
    kept = (tuple(table.rows), tuple(table.predictions)) if isinstance(table, _Kept) else ((), ())
    return Labelled(job.columns, table.tally, cost, job.threshold, *kept)


class _Kept:
    """A table in memory."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.rows: list[Row] = []
        self.predictions: list[Prediction] = []

    def lacks(self, _position: int, /) -> bool:
        return True

    def write(self, rows: Sequence[tuple[int, Row]], predictions: Sequence[Prediction], /) -> None:
        for _, row in rows:
            self.tally.count(row)
            self.rows.append(row)
        self.predictions += predictions


class _Passing:
    """A table that is passed on as CSV."""

    def __init__(self, form: Csv, sink: Sink) -> None:
        self.tally = Tally()
        self._form = form
        self._sink = sink
        sink(form.head)

    def lacks(self, _position: int, /) -> bool:
        return True

    def write(self, rows: Sequence[tuple[int, Row]], _predictions: Sequence[Prediction], /) -> None:
        for _, row in rows:
            self.tally.count(row)
        self._sink(self._form.records([row for _, row in rows]))


def _into_file(job: Job, output: Path, abstain: Abstain, progress: Progress, *, force: bool) -> Labelled:
    card = job.follower.model.card
    made_of = {
        "instruction": job.instruction.key,
        "follower": [card.reference, card.revision, job.follower.mode],
        "input": job.texts.key,
        "threshold": [abstain.threshold, abstain.precision, abstain.held_back and str(abstain.held_back)],
    }
    with run_of(output, made_of, force=force) as folder:
        job = replace(job, threshold=_threshold(job, abstain, folder, progress))
        parquet = None
        if output.suffix.lower() == ".parquet":
            parquet = ParquetTable((row for row, _ in job.texts), job.added)
        growing = folder / "rows.jsonl" if parquet else output
        table = GrowingTable(growing, format_for(output, job.columns), folder)
        try:
            cost = job.run(table, job.texts.n - table.answered, progress)
        finally:
            if not table.tally.rows:
                growing.unlink()
        table.put_in_place()
        if parquet:
            answers = ({name: row[name] for name in job.added} for row in table.rows())
            parquet.write(output, (row | answer for (row, _), answer in zip(job.texts, answers, strict=True)))
        if not table.tally.failed:
            end_run(folder)
        return Labelled(job.columns, table.tally, cost, job.threshold, path=output)


def _threshold(job: Job, abstain: Abstain, folder: Path, progress: Progress) -> Threshold | None:
    """The threshold of this run, chosen once."""
    path = folder / "threshold.json"
    if path.exists():
        known = json.loads(path.read_text("utf-8"))
        return Threshold(known["value"], known["chosen"] and Chosen(**known["chosen"]))
    found = abstain.threshold_for(job.instruction, job.follower, progress)
    if found:
        write_text(path, json.dumps(asdict(found)))
    return found
