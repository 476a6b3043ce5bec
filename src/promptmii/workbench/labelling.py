"""The labelling loop: rows in batches for a local model, or one by one on several threads for a server."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeAlias

from promptmii.calibration_kinds import READS, Reads
from promptmii.data import Texts
from promptmii.data.table import Row
from promptmii.errors import DataError, EndpointError
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import OUTAGES, Failure, FailureKind, Usage
from promptmii.models.threads import parallel
from promptmii.progress import Progress
from promptmii.workbench.abstain import Threshold
from promptmii.workbench.formats import DIGITS

MIN_BATCH, MAX_BATCH = 16, 4096
"""Rows per batch for a local model. A kill loses at most one batch."""
TARGET_SECONDS = 0.1
"""Batches that finish sooner are doubled, because their overhead dominates."""
WINDOW = 64
"""Rows per thread after which the loop waits for the slowest, so that few rows ever wait for their turn."""
GIVE_UP = 256
"""The run ends after this many consecutive rows failed with an outage, or if this many first rows all fail."""

UNANSWERED = Prediction(None, failure=Failure(FailureKind.UNANSWERED, "The run ended before the answer came."))


class PendingRow(NamedTuple):
    """A row to label."""

    position: int
    row: Row
    text: str


Answered: TypeAlias = list[tuple[PendingRow, Prediction]]
"""Rows and their predictions."""
Write: TypeAlias = Callable[[Sequence[tuple[int, Row]], Sequence[Prediction]], object]
"""Receives labelled rows with their positions, as answers come, and their predictions."""


@dataclass(frozen=True)
class Labelling:
    """A labelling job: an instruction, a follower, and the texts to label."""

    instruction: Instruction
    follower: Follower
    texts: Texts
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        """Raises `DataError` if the input already has a column that labelling adds."""
        clashes = [name for name in self.added if name in self.texts.columns]
        if clashes:
            raise DataError(
                f"The input already has a column {clashes[0]!r}, perhaps from an earlier run. Rename or drop it."
            )

    @cached_property
    def added(self) -> Row:
        """The columns that labelling adds, with the values for an empty text."""
        return self._answer_columns(Prediction(None))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a labelled row."""
        return (*self.texts.columns, *self.added)

    @cached_property
    def _probability_columns(self) -> list[str]:
        return [f"p({label})" for label in self.instruction.labels]

    def _answer_columns(self, prediction: Prediction) -> Row:
        """The added columns of one row."""
        probabilities = prediction.probabilities
        label = prediction.label or ""
        best = max(probabilities) if probabilities else None
        columns: Row = {"predicted_label": label}
        if self.threshold:
            unsure = best is not None and best < self.threshold.value
            columns = {"predicted_label": "" if unsure else label, "unsure_label": label if unsure else ""}
        if self.follower.gives_probabilities:
            columns["probability"] = best and round(best, DIGITS)
            names = self._probability_columns
            values = [round(p, DIGITS) for p in probabilities] if probabilities else [None] * len(names)
            columns |= zip(names, values, strict=True)
        if self.follower.mode == "generate":
            answer = prediction.answer or ""
            columns["model_answer"] = "" if answer.strip() == label else answer
        columns["failure"] = str(prediction.failure.kind) if prediction.failure else ""
        return columns

    def run(
        self, write: Write, progress: Progress, *, lacks: Callable[[int], bool] = lambda _: True, answered: int = 0
    ) -> Cost:
        """Label every row whose position `lacks` accepts. `answered` is the number of rows labelled before.

        Raises `EndpointError` if the server stops answering, or answers none of the first rows.
        """
        progress.step("Labelling", self.texts.n - answered)
        usage, asked, outage_rows, replied = Usage(), 0, 0, bool(answered)
        reported: set[FailureKind] = set()
        for pairs in self._answered(lacks):
            write([(row.position, row.row | self._answer_columns(p)) for row, p in pairs], [p for _, p in pairs])
            progress.advance(sum(not row.text.strip() for row, _ in pairs))  # the follower advances for the others
            usage = sum((prediction.usage for _, prediction in pairs), usage)
            for row, prediction in pairs:
                failure = prediction.failure
                if failure and failure.kind not in reported and prediction is not UNANSWERED:
                    reported.add(failure.kind)
                    progress.note(f"Row {row.position + 1} failed ({failure.kind}): {failure.message}")
            failures = [prediction.failure for row, prediction in pairs if row.text.strip()]
            asked += len(failures)
            replied = replied or not all(failures)
            # Rows that still wait for a Batch API are not an outage.
            is_outage = all(
                failure and failure.kind != FailureKind.UNANSWERED and (failure.kind in OUTAGES or not replied)
                for failure in failures
            )
            outage_rows = outage_rows + len(failures) if is_outage else 0
            if failures and failures[-1] and outage_rows >= GIVE_UP:
                raise self._outage_error(failures[-1], replied=replied)
        usage = replace(usage, seconds=usage.seconds / max(1, min(self._threads, asked)))
        return Cost.of(usage, self.follower.model.card.price)

    def _outage_error(self, failure: Failure, *, replied: bool) -> EndpointError:
        how = "no longer answers" if replied else f"answered none of the first {GIVE_UP} rows"
        return EndpointError(
            f"{self.follower.model.card.reference} {how} ({failure.kind}: {failure.message.rstrip('.')}).", failure.kind
        )

    @property
    def _threads(self) -> int:
        return 1 if self._batches else self.follower.model.card.concurrency

    @property
    def _batches(self) -> bool:
        """Label many rows per call, as a local model does, and also a calibration by the texts labelled together."""
        return self.follower.model.card.batches or READS[self.follower.calibration] is Reads.QUERY

    def _answered(self, lacks: Callable[[int], bool]) -> Iterator[Answered]:
        rows = (PendingRow(n, row, text) for n, (row, text) in enumerate(self.texts) if lacks(n))
        if self._batches:
            yield from self._sequential(rows)
            return
        while window := list(islice(rows, WINDOW * self._threads)):
            yield from self._concurrent(window)

    def _sequential(self, rows: Iterator[PendingRow]) -> Iterator[Answered]:
        """One batch at a time, of growing size."""
        size = MIN_BATCH
        while batch := list(islice(rows, size)):
            started = time.perf_counter()
            yield self._predict(batch)
            if time.perf_counter() - started < TARGET_SECONDS:
                size = min(2 * size, MAX_BATCH)

    def _concurrent(self, window: Sequence[PendingRow]) -> Iterator[Answered]:
        """One row per call, so that each answer can be written as soon as it comes.

        Before an error propagates, yields the rows answered so far; rows between them count as unanswered.
        """
        done: deque[tuple[PendingRow, Prediction]] = deque()
        answered: set[int] = set()

        def take() -> Answered:
            """All new answers at once, because each write flushes the disk."""
            pairs = [done.popleft() for _ in range(len(done))]
            answered.update(row.position for row, _ in pairs)
            return pairs

        try:
            for _ in parallel(lambda row: done.extend(self._predict([row])), window, self._threads):
                if done:
                    yield take()
        except GeneratorExit:
            raise
        except BaseException:
            yield take()
            end = max(answered, default=-1)
            yield [(row, UNANSWERED) for row in window if row.position < end and row.position not in answered]
            raise

    def _predict(self, batch: Sequence[PendingRow]) -> Answered:
        """Rows with their predictions. Empty texts cost no call."""
        answers = iter(self.follower.predict(self.instruction, [row.text for row in batch if row.text.strip()]))
        return [(row, next(answers) if row.text.strip() else Prediction(None)) for row in batch]
