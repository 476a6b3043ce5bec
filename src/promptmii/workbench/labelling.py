"""The labelling loop: it writes labelled rows in input order, with any number of requests in flight."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeAlias

from promptmii.data import Texts
from promptmii.data.table import Row
from promptmii.errors import DataError, EndpointError
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import Answer, Chat, Choice, Completion, Failure, FailureKind, Sampling, Usage, unanswered
from promptmii.models.threads import parallel
from promptmii.models.wrappers import Wrapper
from promptmii.progress import Progress
from promptmii.workbench.abstain import Threshold, gives_probabilities
from promptmii.workbench.formats import DIGITS, batches

MIN_BATCH, MAX_BATCH = 16, 4096
"""Rows per batch for a local model. A kill loses at most one batch."""
TARGET_SECONDS = 0.1
"""Batches that finish sooner are doubled, because their overhead dominates."""
BATCHES_IN_FLIGHT = 3
"""For a server; each batch has as many rows as the server takes requests, so that one slow answer does not idle it."""
WINDOW = 64
"""Batches after which the loop waits for the slowest."""
GIVE_UP = 256
"""The run ends after this many consecutive rows failed with an outage, or if this many first rows all fail."""
OUTAGES = (FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER, FailureKind.TIMEOUT)

UNANSWERED = Prediction(None, failure=Failure(FailureKind.UNANSWERED, "The run ended before the answer came."))


class PendingRow(NamedTuple):
    """A row to label."""

    position: int
    row: Row
    text: str


Answered: TypeAlias = tuple[Sequence[Prediction], EndpointError | None]
"""Predictions, and the error that ends the run, if any."""
AnsweredBatch: TypeAlias = tuple[Sequence[PendingRow], Sequence[Prediction]]
"""Rows and their predictions."""
Write: TypeAlias = Callable[[Sequence[tuple[int, Row]], Sequence[Prediction]], object]
"""Receives labelled rows with their positions, in order, and their predictions."""


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
    def _has_probabilities(self) -> bool:
        return gives_probabilities(self.follower)

    @cached_property
    def _probability_columns(self) -> list[str]:
        return [f"p({label})" for label in self.instruction.labels]

    def _answer_columns(self, prediction: Prediction) -> Row:
        """The added columns of one row."""
        probabilities = prediction.probabilities
        label, best = prediction.label or "", max(probabilities) if probabilities else None
        columns: Row = {"predicted_label": label}
        if self.threshold:
            unsure = best is not None and best < self.threshold.value
            columns = {"predicted_label": "" if unsure else label, "unsure_label": label if unsure else ""}
        if self._has_probabilities:
            columns["probability"] = best and round(best, DIGITS)
            names = self._probability_columns
            values = [round(p, DIGITS) for p in probabilities] if probabilities else [None] * len(names)
            columns |= zip(names, values, strict=True)
        columns["failure"] = str(prediction.failure.kind) if prediction.failure else ""
        return columns

    def run(
        self,
        write: Write,
        progress: Progress,
        *,
        lacks: Callable[[int], bool] = lambda _: True,
        answered: int = 0,
    ) -> Cost:
        """Label every row whose position `lacks` accepts. `answered` is the number of rows labelled before.

        Raises `EndpointError` if the server stops answering, or answers none of the first rows.
        """
        progress.step("Labelling", self.texts.n - answered)
        usage, outage_rows, replied = Usage(), 0, bool(answered)
        reported: set[FailureKind] = set()
        for batch, predictions in self._answered_batches(lacks):
            pairs = list(zip(batch, predictions, strict=True))
            write([(row.position, row.row | self._answer_columns(p)) for row, p in pairs], predictions)
            progress.advance(sum(not row.text.strip() for row in batch))  # the follower advances for the others
            usage = sum((p.usage for p in predictions), usage)
            for row, prediction in pairs:
                failure = prediction.failure
                if failure and failure.kind not in reported and prediction is not UNANSWERED:
                    reported.add(failure.kind)
                    progress.note(f"Row {row.position + 1} failed ({failure.kind}): {failure.message}")
            failures = [prediction.failure for row, prediction in pairs if row.text.strip()]
            replied = replied or not all(failures)
            # Rows that still wait for a Batch API are not an outage.
            is_outage = all(
                failure and failure.kind != FailureKind.UNANSWERED and (failure.kind in OUTAGES or not replied)
                for failure in failures
            )
            outage_rows = outage_rows + len(failures) if is_outage else 0
            if failures and failures[-1] and outage_rows >= GIVE_UP:
                raise self._outage_error(failures[-1], replied=replied)
        return Cost.of(usage, self.follower.model.card.price)

    def _outage_error(self, failure: Failure, *, replied: bool) -> EndpointError:
        how = "no longer answers" if replied else f"answered none of the first {GIVE_UP} rows"
        return EndpointError(
            f"{self.follower.model.card.reference} {how} ({failure.kind}: {failure.message.rstrip('.')}).", failure.kind
        )

    def _answered_batches(self, lacks: Callable[[int], bool]) -> Iterator[AnsweredBatch]:
        rows = (PendingRow(n, row, text) for n, (row, text) in enumerate(self.texts) if lacks(n))
        concurrency = self.follower.model.card.concurrency
        if concurrency == 1:
            yield from self._sequential(rows)
        else:
            pending = batches(rows, concurrency)
            while window := list(islice(pending, WINDOW)):
                yield from _concurrent(self._predict, window)

    def _sequential(self, rows: Iterator[PendingRow]) -> Iterator[AnsweredBatch]:
        """One batch at a time, of growing size."""
        size = MIN_BATCH
        while batch := list(islice(rows, size)):
            started = time.perf_counter()
            predictions, error = self._predict(batch)
            if predictions:
                yield batch, predictions
            if error:
                raise error
            if time.perf_counter() - started < TARGET_SECONDS:
                size = min(2 * size, MAX_BATCH)

    def _predict(self, batch: Sequence[PendingRow]) -> Answered:
        """A prediction for each row, and the error that ends the run, if any; no prediction if it left no answer.

        Empty texts cost no call.
        """
        model = _Kept(self.follower.model)
        follower = replace(self.follower, model=model)
        predictions = follower.predict(self.instruction, [row.text for row in batch if row.text.strip()])
        if model.error:
            lost = [p.failure is not None and p.failure.kind is FailureKind.UNANSWERED for p in predictions]
            if all(lost):
                return [], model.error
            predictions = [UNANSWERED if gone else p for p, gone in zip(predictions, lost, strict=True)]
        answers = iter(predictions)
        return [next(answers) if row.text.strip() else Prediction(None) for row in batch], model.error


class _Kept(Wrapper):
    """Keeps the answers of a batch in which the server begins to refuse every call."""

    error: EndpointError | None = None

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        return self._kept(chats, lambda: self._model.generate(chats, sampling))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        return self._kept(chats, lambda: self._model.choose(chats, options))

    def _kept(self, chats: Sequence[Chat], call: Callable[[], list[Answer | Failure]]) -> list[Answer | Failure]:
        answers: list[Answer | Failure] = []
        try:
            if not self.error:
                return call()
        except EndpointError as error:
            if not error.lasting:
                raise
            self.error = error
            answers = [*error.answers]
        return [*answers, *[unanswered(self.error)] * (len(chats) - len(answers))]


def _concurrent(
    predict: Callable[[Sequence[PendingRow]], Answered], window: Sequence[Sequence[PendingRow]]
) -> Generator[AnsweredBatch]:
    """The batches of a window with their predictions, in order, several in flight at once.

    Before an error propagates, yields the batches answered so far; rows between them count as unanswered.
    """
    done: dict[int, Sequence[Prediction]] = {}
    errors: list[EndpointError] = []
    next_index = 0

    def run(index: int) -> None:
        if errors:
            return
        predictions, error = predict(window[index])
        if error:
            errors.append(error)  # the batches in flight finish, because they are paid
        if predictions:
            done[index] = predictions

    try:
        for _ in parallel(run, range(len(window)), BATCHES_IN_FLIGHT):
            while next_index in done:
                yield window[next_index], done.pop(next_index)
                next_index += 1
        if errors:
            raise errors[0]
    except GeneratorExit:
        raise
    except BaseException:
        for index in range(next_index, max(done, default=-1) + 1):
            yield window[index], done.get(index, [UNANSWERED] * len(window[index]))
        raise
