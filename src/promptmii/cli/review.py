"""`promptmii review`: a table of rows for a human to check and correct."""

from typing import Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.group import CALLS_FAILED, app
from promptmii.cli.options import Data, Force, Json, Output, Prompt, prompt_of
from promptmii.cli.terminal import data as write_data
from promptmii.cli.terminal import dump, say, shown_if_unsaved
from promptmii.errors import counted


@app.command()
@blocks
def review(
    instruction: Prompt,
    data: Data,
    rows: RowOptions,
    answers: FollowerOptions,
    most: Annotated[int, typer.Option(min=1, help="Maximum number of rows to write.")] = 100,
    output: Output = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Find rows worth checking: suspected label errors, wrong predictions, and the least certain.

    Writes the table's columns and the reasons as CSV to standard output, or to -o. Correct the label column, and use
    the file as data.
    """
    from promptmii.data.texts import csv_style
    from promptmii.files import check_writable, write_text
    from promptmii.workbench.review import review as find_suspects

    if output:
        check_writable(output, force=force)
    prompt = prompt_of(instruction)
    with answers.followers(quiet=json) as followers:
        result = find_suspects(prompt, data, followers, rows.columns, most=most)
    with shown_if_unsaved(lambda: write_data(result.csv())):
        if output:
            write_text(output, result.csv(csv_style(data)), force=force)
    if json:
        suspects = [row._asdict() for row in result.rows]
        counts = {"looked_at": result.n, "failed": result.n_failed, "counts": result.counts}
        dump({"rows": suspects, **counts, "notes": result.notes})
    else:
        if not output:
            write_data(result.csv())
        for note in result.notes:
            say(f"· {note}")
        counts = ", ".join(f"{count} {reason}" for reason, count in result.counts.items()) or "nothing to look at"
        first = f" The first {most} are written; a higher --most writes more." if result.counts.total() > most else ""
        say(f"{counted(result.n, 'row')}: {counts}.{first}" + (f" Saved to {output}." if output else ""))
    if result.n_failed:
        raise typer.Exit(CALLS_FAILED)
