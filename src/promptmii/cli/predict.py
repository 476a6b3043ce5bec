"""`promptmii predict`: label new texts."""

import json as json_module
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.group import CALLS_FAILED, app
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
from promptmii.cli.terminal import confirmed, data, dump, listening, say
from promptmii.errors import DataError, counted
from promptmii.files import check_writable, write_text

if TYPE_CHECKING:
    from promptmii.follower import Follower
    from promptmii.instruction import Instruction
    from promptmii.workbench import Labelled


@app.command()
def predict(
    instruction: File,
    input: Annotated[
        str, typer.Argument(help="A table or .txt file, - for lines from standard input, or the text itself.")
    ],
    output: Output = None,
    text: Text = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    price: Prices = None,
    max_cost: MaxCost = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Label new texts. Writes the input's columns with label, probabilities and failures beside them."""
    from promptmii import workbench
    from promptmii.instruction import Instruction

    if output:
        check_writable(output, force=force)
    made = Instruction.load(instruction)
    source = _source(input)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache, price, max_cost)
    with listening(quiet=json) as progress:
        bound = workbench.bind(made, follower, endpoint, progress, confirmed)
        with closing(bound.model):
            tell_uncalibrated(made, bound)
            labelled = workbench.predict(made, source, bound, columns_of(text, None, None).text, progress=progress)
    _write(labelled, output, as_json=json, force=force)
    unlabelled = len(labelled.rows) - labelled.n_labelled - labelled.n_failed
    counts = f"{labelled.n_labelled} labelled, {unlabelled} without a label, {labelled.n_failed} failed"
    say(f"{counted(len(labelled.rows), 'row')}: {counts}." + (f" Saved to {output}." if output else ""))
    if labelled.n_failed:
        raise typer.Exit(CALLS_FAILED)


def _write(result: "Labelled", path: Path | None, *, as_json: bool, force: bool) -> None:
    """To a CSV or JSONL file, or to standard output as CSV."""
    if path and path.suffix in (".jsonl", ".ndjson"):
        lines = (json_module.dumps(row, ensure_ascii=False, default=str) + "\n" for row in result.rows)
        write_text(path, "".join(lines), force=force)
    elif path:
        write_text(path, result.csv(), force=force)
    elif as_json:
        dump(list(result.rows))
    else:
        data(result.csv())


def tell_uncalibrated(instruction: "Instruction", follower: "Follower") -> None:
    """Say why a calibration is left out."""
    from promptmii.instruction import EDITED

    if EDITED in instruction.provenance.notes:
        say(f"The instruction was {EDITED}.")
    if follower.own(instruction) is not instruction:
        reference = follower.model.card.reference
        say(f"No calibration: it was fitted to {instruction.follower}, and {reference} answers.")


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
