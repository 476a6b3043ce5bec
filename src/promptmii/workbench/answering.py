"""The loop that labels: rows in, rows with answers out, in order, however many requests are under way at once."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeAlias

from promptmii.data import Texts
from promptmii.errors import DataError, EndpointError
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import Failure, FailureKind, Usage
from promptmii.models.threads import parallel
from promptmii.progress import Progress
from promptmii.workbench.abstain import Threshold, gives_probabilities
from promptmii.workbench.formats import Row, batches

FEWEST, MOST = 16, 4096
"""Rows of a batch for a local model; a kill loses at most one."""
QUICK = 0.1
"""Seconds below which a batch is too small to be worth its overhead."""
UNDER_WAY = 3
"""Batches in flight at a server, each as long as its concurrency, so that one slow answer does not hold it up."""
WINDOW = 64
"""Batches after which the loop waits for the slowest."""
GIVE_UP = 256
"""The run ends after this many consecutive rows without a server, or if this many first rows all fail."""
OUTAGES = (FailureKind.CONNECTION, FailureKind.RATE_LIMIT, FailureKind.SERVER, FailureKind.TIMEOUT)
DIGITS = 6

UNANSWERED = Prediction(None, failure=Failure(FailureKind.UNANSWERED, "The run ended before the answer came."))


class PendingRow(NamedTuple):
    """A row to label."""

    position: int
    row: Row
    text: str


Answered: TypeAlias = tuple[Sequence[PendingRow], Sequence[Prediction]]
"""Rows, and a prediction for each."""
Write: TypeAlias = Callable[[Sequence[tuple[int, Row]], Sequence[Prediction]], object]
"""Takes labelled rows with their positions, in order, and the predictions behind them."""


@dataclass(frozen=True)
class Labelling:
    """An instruction, the follower that reads it, and rows to label."""

    instruction: Instruction
    follower: Follower
    texts: Texts
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        """Raises `DataError` if the input has a column of a name that labelling adds."""
        clashes = [name for name in self.added if name in self.texts.columns]
        if clashes:
            raise DataError(
                f"The input already has a column {clashes[0]!r}, perhaps from an earlier run. Rename or drop it."
            )

    @cached_property
    def added(self) -> Row:
        """The columns that labelling adds, with the values of an empty row."""
        return self._answer(Prediction(None))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a labelled row."""
        return (*self.texts.columns, *self.added)

    @cached_property
    def _scored(self) -> bool:
        return gives_probabilities(self.follower)

    @cached_property
    def _names(self) -> list[str]:
        return [f"p({name})" for name in self.instruction.labels]

    def _answer(self, prediction: Prediction) -> Row:
        probabilities = prediction.probabilities
        label, best = prediction.label or "", max(probabilities) if probabilities else None
        columns: Row = {"predicted_label": label}
        if self.threshold:
            unsure = best is not None and best < self.threshold.value
            columns = {"predicted_label": "" if unsure else label, "unsure_label": label if unsure else ""}
        if self._scored:
            columns["probability"] = best and round(best, DIGITS)
            values = [round(p, DIGITS) for p in probabilities] if probabilities else [None] * len(self._names)
            columns |= zip(self._names, values, strict=True)
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
        """Label every row for which `lacks` is true; `answered` counts the others.

        Raises `EndpointError` when the server no longer answers, or answers none of the first rows.
        """
        progress.step("Labelling", self.texts.n - answered)
        usage, outage, replied = Usage(), 0, bool(answered)
        noted: set[FailureKind] = set()
        for batch, predictions in self._answers(lacks):
            rows = [(row.position, row.row | self._answer(p)) for row, p in zip(batch, predictions, strict=True)]
            write(rows, predictions)
            progress.advance(sum(not row.text.strip() for row in batch))
            usage = sum((p.usage for p in predictions), usage)
            failures = [p.failure for p in predictions]
            for row, failure in zip(batch, failures, strict=True):
                if failure and failure.kind not in noted:
                    noted.add(failure.kind)
                    progress.note(f"Row {row.position + 1} failed ({failure.kind}): {failure.message}")
            replied = replied or not all(failures)
            out = all(failure and (failure.kind in OUTAGES or not replied) for failure in failures)
            outage = outage + len(failures) if out else 0
            if failures[-1] and outage >= GIVE_UP:
                raise self._gone(failures[-1], replied=replied)
        return Cost.of(usage, self.follower.model.card.price)

    def _gone(self, failure: Failure, *, replied: bool) -> EndpointError:
        how = "no longer answers" if replied else f"answered none of the first {GIVE_UP} rows"
        return EndpointError(
            f"{self.follower.model.card.reference} {how} ({failure.kind}: {failure.message.rstrip('.')}). What it "
            "answered is kept; run the same command again to continue.",
            failure.kind,
        )

    def _answers(self, lacks: Callable[[int], bool]) -> Iterator[Answered]:
        rows = (PendingRow(n, row, text) for n, (row, text) in enumerate(self.texts) if lacks(n))
        concurrency = self.follower.model.card.concurrency
        if concurrency == 1:
            yield from self._one_by_one(rows)
        else:
            parts = batches(rows, concurrency)
            while window := list(islice(parts, WINDOW)):
                yield from _in_order(self._ask, window)

    def _one_by_one(self, rows: Iterator[PendingRow]) -> Iterator[Answered]:
        size = FEWEST
        while batch := list(islice(rows, size)):
            started = time.perf_counter()
            yield batch, self._ask(batch)
            if time.perf_counter() - started < QUICK:
                size = min(2 * size, MOST)

    def _ask(self, batch: Sequence[PendingRow]) -> Sequence[Prediction]:
        """A prediction for each row; rows without a text cost no call."""
        answers = iter(self.follower.predict(self.instruction, [row.text for row in batch if row.text.strip()]))
        return [next(answers) if row.text.strip() else Prediction(None) for row in batch]


def _in_order(
    ask: Callable[[Sequence[PendingRow]], Sequence[Prediction]], parts: Sequence[Sequence[PendingRow]]
) -> Generator[Answered]:
    """Parts with their answers in order, several in flight at once.

    Before an error propagates, yields the parts answered so far; rows between them count as unanswered.
    """
    done: dict[int, Sequence[Prediction]] = {}
    following = 0

    def keep(position: int) -> None:
        done[position] = ask(parts[position])

    try:
        for _ in parallel(keep, range(len(parts)), UNDER_WAY):
            while following in done:
                yield parts[following], done.pop(following)
                following += 1
    except GeneratorExit:
        raise
    except BaseException:
        for position in range(following, max(done, default=-1) + 1):
            yield parts[position], done.get(position, [UNANSWERED] * len(parts[position]))
        raise
