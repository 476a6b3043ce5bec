"""`promptmii predict`: label new texts."""

import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from promptmii.cli.blocks import AbstainOptions, FollowerOptions, ServeOptions, blocks
from promptmii.cli.group import CALLS_FAILED, NOT_YET, app
from promptmii.cli.options import File, Force, Json, Output, Text, text_setting
from promptmii.cli.terminal import data, dump, out, say
from promptmii.errors import ConfigError, DataError
from promptmii.markup import brief
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.workbench import Labelled, Pending

SAMPLE = 60
"""Characters of an answer to show in the summary."""


@app.command()
@blocks
def predict(
    instruction: File,
    input: Annotated[str, typer.Argument(help="A table or .txt file, - for standard input, or the text itself.")],
    answers: FollowerOptions,
    unsure: AbstainOptions,
    servers: ServeOptions,
    output: Output = None,
    text: Text = None,
    format: Annotated[
        Literal["txt", "csv", "tsv", "jsonl"], typer.Option(help="Format of standard input; txt has one text per line.")
    ] = "txt",
    batch_api: Annotated[
        bool,
        typer.Option(
            "--batch-api",
            help="Use the server's Batch API, at half the price. Run the same command again to collect, within a day.",
        ),
    ] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Label new texts. Writes the input's columns with labels, probabilities and failures.

    With -o (.csv, .tsv, .jsonl, .parquet), rows are saved as they are labelled; if it stops, run it again to continue.
    """
    from promptmii import workbench
    from promptmii.instruction import Instruction

    _check(answers, servers, output, batch_api=batch_api, force=force)
    loaded = Instruction.load(instruction)
    settings: dict[str, Any] = {"text": text_setting(text), "force": force, "abstain": unsure.abstain}
    with (
        _source(input, format) as source,
        answers.followers(quiet=json, servers=servers, named=loaded.follower, batch=batch_api) as followers,
    ):
        for note in workbench.calibration_notes(loaded, followers.of(loaded)):
            say(f"{note[0].upper()}{note[1:]}.")
        if batch_api and output:
            limit = answers.max_cost
            result = workbench.predict_by_batch(loaded, source, followers, output=output, max_cost=limit, **settings)
        else:
            rows = output or (None if json or out.is_terminal else data)
            result = workbench.predict(loaded, source, followers, output=rows, **settings)
    if isinstance(result, workbench.Pending):
        _wait(result, as_json=json)
    _show(result, as_json=json)
    if result.n_failed:
        raise typer.Exit(CALLS_FAILED)


def _check(
    answers: FollowerOptions, servers: ServeOptions, output: Path | None, *, batch_api: bool, force: bool
) -> None:
    """Raise `ConfigError` if options conflict or the output cannot be written."""
    from promptmii.workbench import check_output

    if output:
        check_output(output, force=force)
    elif answers.max_cost is not None and answers.server.cache is None:
        raise ConfigError("--max-cost needs -o FILE or --cache FOLDER, to keep the paid answers.")
    if batch_api and output is None:
        raise ConfigError("--batch-api needs -o FILE: the state of the batch is kept beside it.")
    if batch_api and servers.serve:
        raise ConfigError("Use --serve or --batch-api, not both: servers started by --serve have no Batch API.")


def _wait(pending: "Pending", *, as_json: bool) -> NoReturn:
    """Print the state of the batches. Exits with `NOT_YET`."""
    if as_json:
        dump({"file": str(pending.output), "requests": pending.requests, "done": pending.done})
    most = f", for {pending.most_money:.4g} at most" if pending.most_money else ""
    state = f"submitted{most}" if pending.submitted else f"under way, {pending.done:,} done"
    say(f"{counted(pending.requests, 'request')} {state}. Run the same command again to collect, within 24 hours.")
    raise typer.Exit(NOT_YET)


def _show(labelled: "Labelled", *, as_json: bool) -> None:
    """Print the rows, unless they are saved or already printed, and a summary."""
    tally, threshold = labelled.tally, labelled.threshold
    if as_json and labelled.path:
        dump({"file": str(labelled.path), **asdict(tally), "cost": labelled.cost.model_dump()})
    elif as_json:
        dump(list(labelled.rows))
    elif labelled.rows:
        data(labelled.csv())
    unlabelled = tally.rows - tally.labelled - tally.unsure - tally.failed
    sample = f" (the model wrote, for instance, {brief(tally.unread, SAMPLE)!r})" if tally.unread else ""
    counts = [f"{tally.labelled} labelled", f"{unlabelled} without a label{sample}", f"{tally.failed} failed"]
    if threshold:
        counts.insert(1, f"{tally.unsure} below the threshold of {threshold.value:g}")
    money = labelled.cost.money
    summary = f"{counted(tally.rows, 'row')}: {', '.join(counts)}."
    summary += f" This run cost {money:.4g}." if money else ""
    if labelled.path:
        summary += f" Saved to {labelled.path}."
        summary += " Run the same command again to retry the failed ones." if tally.failed else ""
    say(summary)
    if threshold and threshold.chosen:
        say(f"The threshold: {threshold.chosen}")


@contextmanager
def _source(argument: str, form: str) -> Generator[str | Path | list[str]]:
    """The rows to read: a file, standard input, or the argument itself.

    Rows are read twice, first to find unreadable ones before anything is sent. So standard input is copied to a
    temporary file, not held in memory.
    """
    from promptmii.inputs import is_path

    if argument != "-":
        is_file = is_path(argument)
        if is_file and " " in argument and not Path(argument).exists():
            raise DataError(f"There is no file {argument!r}. If it is a text to label, give it on standard input (-).")
        yield argument if is_file or argument.startswith("hub:") else [argument]
        return
    with TemporaryDirectory(prefix="promptmii-") as folder:
        path = Path(folder) / f"Standard input.{form}"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if not path.stat().st_size:
            raise DataError(f"Standard input is empty; expected {'a text per line' if form == 'txt' else form}.")
        try:
            yield path
        except DataError as error:
            raise DataError(str(error).replace(str(path), "Standard input")) from error
