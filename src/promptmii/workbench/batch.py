"""Labels through a server's Batch API: submit, leave, come back, collect. The same call does whatever comes next."""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from promptmii.config import Endpoint
from promptmii.data import Source, read_texts
from promptmii.errors import ConfigError, SpendingLimitError
from promptmii.follower import Follower, Prediction
from promptmii.instruction import Instruction, Mode
from promptmii.models.http.config import addresses
from promptmii.models.http.deferred import Deferred
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain
from promptmii.workbench.answering import Labelling
from promptmii.workbench.bind import Confirm, bind, refuse
from promptmii.workbench.file_run import FileRun, Labelled, file_run
from promptmii.workbench.formats import Row
from promptmii.workbench.growing import GrowingTable

HALF = 0.5
"""Factor on prices where `--price` names no other with `batch=`."""
HELLO = "Hello."


@dataclass(frozen=True)
class Pending:
    """Batches that are not over yet."""

    output: Path
    requests: int
    done: int
    submitted: bool
    """By this call."""
    most_money: float | None = None
    """What they cost at most, where the price is known and this call submitted them."""


@dataclass(frozen=True)
class BatchFollower:
    """A follower whose requests go to the Batch API."""

    follower: Follower
    deferred: Deferred
    max_cost: float | None


@contextmanager
def bound_for_batch(
    instruction: Instruction,
    reference: str | None,
    endpoint: Endpoint,
    progress: Progress = QUIET,
    confirm: Confirm = refuse,
    *,
    mode: Mode | None = None,
) -> Generator[BatchFollower]:
    """As `bind`, for `predict_by_batch`. Raises `UnsupportedError` where the server has no Batch API."""
    if len(addresses(endpoint.base_url)) > 1:
        raise ConfigError("--batch-api sends to one server; give one address with --base-url.")
    halved = {name: p._replace(batch=HALF) if p.batch == 1 else p for name, p in endpoint.prices.items()}
    with closing(Deferred()) as deferred:
        # What may be spent is checked before a batch is sent: no answer that is paid for is left out.
        free = endpoint.model_copy(update={"prices": halved, "max_cost": None})
        follower = bind(instruction, reference, free, progress, confirm, deferred=deferred)
        follower = replace(follower, mode=mode or follower.mode)
        with closing(follower.model):
            if not follower.model.card.reference.startswith("openai:"):
                raise ConfigError(
                    f"--batch-api needs a server, an openai: model; {follower.model.card.reference} is none."
                )
            deferred.check()
            yield BatchFollower(follower, deferred, endpoint.max_cost)


def predict_by_batch(
    instruction: Instruction,
    source: Source,
    batch: BatchFollower,
    text: str | tuple[str, ...] | None = None,
    *,
    output: str | Path,
    force: bool = False,
    abstain: Abstain | None = None,
    progress: Progress = QUIET,
) -> Labelled | Pending:
    """Submit what lacks an answer, or tell how far the batches are, or label with the answers that have come.

    What is under way is kept in a folder beside `output`. Rows that failed, or whose batch expired, are submitted again
    by the next call. Raises as `predict` does, and `SpendingLimitError` before a batch that may cost too much.
    """
    texts = read_texts(source, text or instruction.text_source, progress)
    job = Labelling(instruction, batch.follower, texts)
    with file_run(job, Path(output), abstain or Abstain(), progress, force=force) as run:
        # Which parameters and which constraint the server takes is found out directly: a batch is too slow to try them.
        batch.follower.predict(instruction, [HELLO])
        batch.deferred.begin(run.folder)
        progress.step("Asking for the batches")
        batches = batch.deferred.batches
        if not batches or any(one.batch_id is None for one in batches):
            return _submit(run, batch, progress)
        batches = batch.deferred.collect()
        if not all(one.collected for one in batches):
            requests, done = sum(one.requests for one in batches), sum(one.done for one in batches)
            return Pending(run.output, requests, done, submitted=False)
        result = run.label(progress)
        batch.deferred.forget()
        return result


def _submit(run: FileRun, batch: BatchFollower, progress: Progress) -> Labelled | Pending:
    if not batch.deferred.batches:
        run.job.run(_Unwritten(run.table), run.job.texts.n - run.table.answered, progress)
        price = batch.follower.model.card.price
        if batch.max_cost is not None:
            if price is None:
                reference = batch.follower.model.card.reference
                raise ConfigError(f"--max-cost needs the price of {reference}: give --price PROMPT,COMPLETION.")
            if (most := batch.deferred.most_money(price)) > batch.max_cost:
                raise SpendingLimitError(
                    f"The batch may cost {most:.4g}, more than --max-cost {batch.max_cost:g}. Nothing was submitted."
                )
        if not batch.deferred.usage.calls:  # every answer is known, or no row has a text
            return run.label(progress)
    progress.step("Sending the batches")
    batches = batch.deferred.submit()
    price = batch.follower.model.card.price
    most = batch.deferred.most_money(price) if price else None
    return Pending(run.output, sum(one.requests for one in batches), 0, submitted=True, most_money=most)


class _Unwritten:
    """A table that takes nothing: rows are asked for in order to keep their requests."""

    def __init__(self, table: GrowingTable) -> None:
        self.lacks = table.lacks

    def write(self, rows: Sequence[tuple[int, Row]], predictions: Sequence[Prediction], /) -> None:
        """See `RowSink`."""
