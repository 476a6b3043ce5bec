"""Labels for new texts: for a few in memory, or for a table of any length into a file that a rerun goes on with."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from promptmii.data import Source, read_texts
from promptmii.follower import Prediction
from promptmii.instruction import Instruction
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain
from promptmii.workbench.answering import Labelling
from promptmii.workbench.bind import Answering, answering
from promptmii.workbench.file_run import Labelled, file_run
from promptmii.workbench.formats import Csv, Row
from promptmii.workbench.growing import Tally

Sink = Callable[[str], object]
"""Takes CSV, row by row."""


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

    `instruction` may be its file. Without a `follower` it is the one that the instruction names.

    With an `output` file the rows are written as they are labelled, in constant memory: `.csv`, `.tsv`, `.jsonl`,
    `.ndjson` or `.parquet`. The same call again goes on after a kill, and asks again for rows that failed.

    Raises `DataError` where a column of the input has the name of one that is to be added, `OutputError` where the file
    exists or belongs to another run, and `EndpointError` when the server no longer answers.
    """
    made = Instruction.of(instruction)
    texts = read_texts(source, text or made.text_source, progress)
    abstain = abstain or Abstain()
    with answering(follower, progress) as followers:
        job = Labelling(made, followers.of(made), texts)
        if isinstance(output, str | Path):
            with file_run(job, Path(output), abstain, progress, force=force) as run:
                return run.label(progress)
        job = replace(job, threshold=abstain.threshold_for(made, job.follower, progress))
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
