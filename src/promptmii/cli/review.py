"""`promptmii review`: rows worth a human's look, as a table to correct."""

from typing import Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.group import CALLS_FAILED, app
from promptmii.cli.options import Data, Force, Json, Output, Prompt, prompt_of
from promptmii.cli.terminal import data as write_data
from promptmii.cli.terminal import dump, say
from promptmii.errors import counted


@app.command()
@blocks
def review(
    instruction: Prompt,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    most: Annotated[int, typer.Option(min=1, help="Most rows to write.")] = 100,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Find rows worth a look: suspected label errors, wrong rows, and those it is least sure of, labelled or not.

    The result is CSV on standard output, or the file of -o. Correct its label column, and it is data.
    """
    from promptmii.files import check_writable, write_text
    from promptmii.workbench import review as service

    if output:
        check_writable(output, force=force)
    given = prompt_of(instruction)
    with answers.followers(quiet=json) as followers:
        found = service.review(given, data, followers, rows.columns, most=most)
    if output:
        write_text(output, found.csv(), force=force)
    if json:
        dump({"rows": [row._asdict() for row in found.rows], "looked_at": found.n, "notes": found.notes})
    elif not output:
        write_data(found.csv())
    for note in () if json else found.notes:
        say(f"· {note}")
    counts = ", ".join(f"{count} {reason}" for reason, count in found.counts.items())
    if not json:
        say(f"{counted(found.n, 'row')}: {counts}." + (f" Saved to {output}." if output else ""))
    if found.counts[service.FAILED]:
        raise typer.Exit(CALLS_FAILED)
