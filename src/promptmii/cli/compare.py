"""`promptmii compare`: instructions, texts and methods side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptmii.cli.blocks import FollowerOptions, RowOptions, blocks
from promptmii.cli.group import CHECK_FAILED, app
from promptmii.cli.options import Force, Json, N, prompt_of
from promptmii.cli.terminal import count, dump, error, notes, out, say, table
from promptmii.errors import ConfigError
from promptmii.markup import share
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.instruction import Measurement
    from promptmii.workbench import Comparison
    from promptmii.workbench.compare import Check


@app.command()
@blocks
def compare(
    prompts: Annotated[
        list[str],
        typer.Argument(
            help="Instruction files, text files, texts, - for standard input, naive or icl. "
            "The first is compared with the rest."
        ),
    ],
    data: Annotated[str, typer.Option(help="Labelled rows to measure on.")],
    rows: RowOptions,
    answers: FollowerOptions,
    examples: Annotated[
        str | None, typer.Option(metavar="ROWS", help="Labelled rows for icl to show, and to calibrate on.")
    ] = None,
    n: Annotated[
        int | None,
        N("Examples to use, or to draw from the data. Default: 20, or more if an instruction was made from more."),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", metavar="F1", help="Exit with code 1 if the first prompt has a lower macro-F1."),
    ] = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with code 1 if the first is worse than another beyond noise.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file for the rows on which the prompts disagree.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit file for the results of the checks.")] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Compare prompts on the same rows: scores, paired differences, cost, disagreements."""
    from promptmii import workbench
    from promptmii.files import check_writable, write_text
    from promptmii.workbench.compare import junit as junit_report

    for path in filter(None, (output, junit)):
        check_writable(path, force=force)
    if output and junit and output.absolute() == junit.absolute():
        raise ConfigError(f"-o and --junit both name {output}. Name two files.")
    if fail_if_worse and len(prompts) < 2:
        raise ConfigError("--fail-if-worse needs a second prompt, such as naive (the label list alone).")
    texts = [prompt_of(prompt) for prompt in prompts]
    with answers.followers(quiet=json) as followers:
        comparison = workbench.compare(texts, data, followers, rows.columns, examples=examples, n=n)
    checks = comparison.checks(at_least=fail_under, not_worse=fail_if_worse)
    try:
        if output:
            write_text(output, comparison.csv(), force=force)
        if junit:
            write_text(junit, junit_report(checks), force=force)
    finally:  # a result whose file cannot be written was paid for too
        _show(comparison, checks, as_json=json)
    if output and not json:
        say(f"The rows on which they disagree are saved to {output}.")
    _exit_if_failed(checks)


def _show(comparison: "Comparison", checks: "Sequence[Check]", *, as_json: bool) -> None:
    if as_json:
        results = [{"name": check.name, "passed": not check.failure, "failure": check.failure} for check in checks]
        dump(comparison.as_json() | {"checks": results})
    else:
        show_comparison(comparison)


def _exit_if_failed(checks: "Sequence[Check]") -> None:
    failed = [check for check in checks if check.failure]
    for check in failed:
        error(f"The check {check.name!r} failed: {check.failure}.")
    if failed:
        raise typer.Exit(CHECK_FAILED)


def show_comparison(comparison: "Comparison") -> None:
    """Print the scores and the number of rows on which the prompts disagree."""
    notes(comparison.notes)
    first, priced = comparison.rows[0], any(row.spent.money for row in comparison.rows)
    scores = [row.scored.measurement() for row in comparison.rows]
    calibrated = any(row.instruction.is_calibrated for row in comparison.rows)
    title = f"{counted(first.scored.n, 'row')}; tokens per query"
    headers = ["F1 [95 %]", "tokens"]
    if calibrated:
        title += "; plain F1: without calibration"
        headers.insert(1, "plain F1")
    if priced:
        headers.append("per 1,000")
    if comparison.differences:
        title += f"\ndifference: {first.name} minus the other; p after Holm"
        headers += ["difference [95 %]", "p"]
    grid = table(title, "prompt", *headers)
    for row, score in zip(comparison.rows, scores, strict=True):
        cells = score_cells(score, calibrated=calibrated)
        if priced:
            money = row.spent.money
            cells.append("unknown" if money is None else f"{money / row.scored.n * 1000:.4f}")
        if comparison.differences:
            d = comparison.differences.get(row.name)
            cells += [f"{d.mean:+.3f} [{d.low:+.2f}, {d.high:+.2f}]", f"{d.p:.3f}"] if d else ["", ""]
        grid.add_row(row.name, *cells)
    out.write_table(grid)
    if len(comparison.rows) > 1:
        out.write_line(f"They disagree on {counted(len(comparison.disagreements), 'row')}.")


def score_cells(score: "Measurement", *, calibrated: bool) -> list[str]:
    """Table cells: macro-F1 with its interval, if `calibrated` also without calibration, and tokens per query."""
    interval = f"{share(score.macro_f1)} [{share(score.low, 2)}, {share(score.high, 2)}]"
    plain = [share(score.uncalibrated_macro_f1)] if calibrated else []
    return [interval, *plain, count(score.prompt_tokens_per_query)]
