"""`promptmii predict`: label new texts."""

import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from promptmii.cli.group import CALLS_FAILED, NOT_YET, app
from promptmii.cli.options import (
    BaseUrl,
    Cache,
    Concurrency,
    Context,
    File,
    Follow,
    Force,
    Json,
    MaxCost,
    Output,
    Prices,
    Text,
    columns_of,
    endpoint_of,
)
from promptmii.cli.terminal import confirmed, data, dump, listening, out, say
from promptmii.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from promptmii.workbench import Labelled, Pending

HeldBack = Annotated[
    Path | None, typer.Option(help="Labelled rows on which --precision chooses the threshold, not seen before.")
]


@app.command()
def predict(
    instruction: File,
    input: Annotated[
        str, typer.Argument(help="A table or .txt file, - for lines from standard input, or the text itself.")
    ],
    output: Output = None,
    text: Text = None,
    follower: Follow = None,
    threshold: Annotated[
        float | None, typer.Option(help="Give no label to rows whose label has a lower probability than this.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="As --threshold, chosen so that this share of the labels given is right.")
    ] = None,
    held_back: HeldBack = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    price: Prices = None,
    max_cost: MaxCost = None,
    batch_api: Annotated[
        bool,
        typer.Option(
            "--batch-api",
            help="Submit to the server's Batch API, at half the price. The same command collects, within a day.",
        ),
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Label new texts. Writes the input's columns with label, probabilities and failures beside them.

    A file given with -o (.csv, .tsv, .jsonl, .parquet) grows row by row; after a kill the same command goes on.
    """
    from promptmii import workbench
    from promptmii.instruction import Instruction

    if output:
        workbench.check_output(output, force=force)
    elif max_cost is not None and cache is None:
        raise ConfigError("--max-cost needs -o FILE or --cache FOLDER, which keep the answers that were paid for.")
    if batch_api and output is None:
        raise ConfigError("--batch-api needs -o FILE: what is under way is kept beside it.")
    made = Instruction.load(instruction)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache, price, max_cost)
    given = (made, _source(input))
    columns = columns_of(text, None, None).text
    abstain = workbench.Abstain(threshold, precision, held_back)
    with listening(quiet=json) as progress:
        if batch_api and output:
            with workbench.bound_for_batch(made, follower, endpoint, progress, confirmed) as batch:
                result = workbench.predict_by_batch(
                    *given, batch, columns, output=output, force=force, abstain=abstain, progress=progress
                )
        else:
            bound = workbench.bind(made, follower, endpoint, progress, confirmed)
            with closing(bound.model):
                for note in workbench.calibration_notes(made, bound):
                    say(f"{note[0].upper()}{note[1:]}.")
                rows = output or (None if json or out.is_terminal else data)
                result = workbench.predict(
                    *given, bound, columns, output=rows, force=force, abstain=abstain, progress=progress
                )
    if isinstance(result, workbench.Pending):
        _wait(result, as_json=json)
    _show(result, as_json=json)
    if result.n_failed:
        raise typer.Exit(CALLS_FAILED)


def _wait(pending: "Pending", *, as_json: bool) -> NoReturn:
    """Say how far the batches are, and end with a code of its own."""
    if as_json:
        dump({"file": str(pending.output), "requests": pending.requests, "done": pending.done})
    most = f", for {pending.most_money:.4g} at most" if pending.most_money else ""
    state = f"submitted{most}" if pending.submitted else f"under way, {pending.done:,} of them done"
    say(f"{counted(pending.requests, 'request')} {state}. Run the same command again to collect, within 24 hours.")
    raise typer.Exit(NOT_YET)


def _show(labelled: "Labelled", *, as_json: bool) -> None:
    """The rows, unless they are in a file or were shown already, and how many became what."""
    tally, threshold = labelled.tally, labelled.threshold
    if as_json:
        file = {"file": str(labelled.path), **asdict(tally), "cost": labelled.cost.model_dump()}
        dump(file if labelled.path else list(labelled.rows))
    elif labelled.rows:
        data(labelled.csv())
    unlabelled = tally.rows - tally.labelled - tally.unsure - tally.failed
    counts = [f"{tally.labelled} labelled", f"{unlabelled} without a label", f"{tally.failed} failed"]
    if threshold:
        counts.insert(1, f"{tally.unsure} below the threshold of {threshold.value:g}")
    money = labelled.cost.money
    spent = f" This run cost {money:.4g}." if money else ""
    say(f"{counted(tally.rows, 'row')}: {', '.join(counts)}.{spent}{_saved(labelled)}")
    if threshold and threshold.chosen:
        say(f"The threshold: {threshold.chosen}")


def _saved(labelled: "Labelled") -> str:
    if labelled.path is None:
        return ""
    again = " The same command asks again for those that failed." if labelled.n_failed else ""
    return f" Saved to {labelled.path}.{again}"


def _source(given: str) -> str | list[str]:
    """What to read: a file, the lines of standard input, or the argument itself."""
    from promptmii.data.decoding import decode, split_lines

    if given == "-":
        lines = split_lines(decode(sys.stdin.buffer.read(), "Standard input"))
        if not lines:
            raise DataError("Standard input is empty; expected a text per line.")
        return lines
    looks_like_file = Path(given).suffix and " " not in given.strip()
    return given if _exists(given) or given.startswith("hub:") or looks_like_file else [given]


def _exists(given: str) -> bool:
    try:
        return bool(given) and Path(given).exists()
    except (OSError, ValueError):  # longer than any file name, or with a null byte
        return False
