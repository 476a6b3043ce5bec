"""Label through a server's Batch API. Each call does the next step: submit, check on the batches, or collect them."""

from dataclasses import dataclass
from pathlib import Path

from promptmii.config import Endpoint
from promptmii.data import Source, read_texts
from promptmii.errors import ConfigError, SpendingLimitError
from promptmii.instruction import Instruction, Mode
from promptmii.models.http.config import addresses
from promptmii.models.http.deferred import Deferred
from promptmii.progress import QUIET, Progress
from promptmii.workbench.abstain import Abstain
from promptmii.workbench.followers import Confirm, Followers
from promptmii.workbench.labelling import Labelling
from promptmii.workbench.predict import FileRun, Labelled, file_run

HALF = 0.5
"""Price factor of a batch, unless `--price` sets another with `batch=`."""
PROBE = "Hello."


@dataclass(frozen=True)
class Pending:
    """Batches that are still running."""

    output: Path
    requests: int
    done: int
    submitted: bool
    """Whether this call submitted them."""
    most_money: float | None = None
    """Their highest possible cost, or `None` if the price is unknown or an earlier call submitted them."""


def batch_followers(
    reference: str | None,
    endpoint: Endpoint,
    progress: Progress = QUIET,
    confirm: Confirm | None = None,
    *,
    mode: Mode | None = None,
) -> Followers:
    """Followers for `predict_by_batch`. They queue requests for a batch, at half the price unless `batch=` differs.

    They have no spending limit, which would refuse answers already paid for; `predict_by_batch` checks it before it
    submits.
    """
    if len(addresses(endpoint.base_url)) > 1:
        raise ConfigError("--batch-api uses one server; give one address with --base-url.")
    prices = {name: p._replace(batch=HALF) if p.batch == 1 else p for name, p in endpoint.prices.items()}
    unlimited = endpoint.model_copy(update={"prices": prices, "max_cost": None})
    return Followers(reference, unlimited, progress, confirm, mode=mode, deferred=Deferred())


def predict_by_batch(
    instruction: Instruction,
    source: Source,
    followers: Followers,
    text: str | tuple[str, ...] | None = None,
    *,
    output: str | Path,
    force: bool = False,
    abstain: Abstain | None = None,
    max_cost: float | None = None,
) -> Labelled | Pending:
    """Submit the rows without an answer, report on running batches, or write the labels once all batches are done.

    State is saved in a folder beside `output`. The next call resubmits requests that failed or expired.
    Raises the errors of `predict`, `UnsupportedError` if the server has no Batch API, and `SpendingLimitError` instead
    of submitting batches that may cost more than `max_cost`.
    """
    follower, deferred = followers.of(instruction), followers.deferred
    if deferred is None or not follower.model.card.reference.startswith("openai:"):
        raise ConfigError(f"--batch-api needs an openai: model; the follower is {follower.model.card.reference}.")
    deferred.check()
    progress = followers.progress
    job = Labelling(instruction, follower, read_texts(source, text or instruction.text_source, progress))
    with file_run(job, source, Path(output), abstain or Abstain(), progress, force=force) as run:
        # A direct request finds out which parameters and constraints the server supports; a batch would take too long.
        follower.predict(instruction, [PROBE])
        deferred.begin(run.folder)
        progress.step("Asking for the batches")
        batches = deferred.batches
        if not batches or any(batch.batch_id is None for batch in batches):
            return _submit(run, deferred, max_cost, progress)
        batches = deferred.collect()
        if not all(batch.collected for batch in batches):
            requests, done = sum(batch.requests for batch in batches), sum(batch.done for batch in batches)
            return Pending(run.output, requests, done, submitted=False)
        result = run.label(progress)
        deferred.forget()
        return result


def _submit(run: FileRun, deferred: Deferred, max_cost: float | None, progress: Progress) -> Labelled | Pending:
    card, table = run.job.follower.model.card, run.table
    if not deferred.batches:
        # This only queues the requests: it writes no rows, and each row counts as not yet answered.
        run.job.run(lambda _rows, _predictions: None, QUIET, lacks=table.lacks, answered=table.answered)
        if max_cost is not None:
            if card.price is None:
                raise ConfigError(f"--max-cost needs the price of {card.reference}: give --price PROMPT,COMPLETION.")
            highest_cost = deferred.most_money(card.price)
            if highest_cost > max_cost:
                raise SpendingLimitError(
                    f"The batch may cost {highest_cost:.4g}, more than --max-cost {max_cost:g}. Nothing was submitted."
                )
        if not deferred.usage.calls:  # every row has its answer already, or no text
            return run.label(progress)
    progress.step("Sending the batches")
    requests = sum(batch.requests for batch in deferred.submit())
    highest_cost = deferred.most_money(card.price) if card.price else None
    return Pending(run.output, requests, 0, submitted=True, most_money=highest_cost)
