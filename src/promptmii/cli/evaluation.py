"""Compare methods on many tasks, and draw what was found."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii import display
from promptmii.cli.bars import progress as listening
from promptmii.cli.group import app
from promptmii.cli.options import BaseUrl, Context, Json, Prices, comma_separated, prices_of, whole_numbers
from promptmii.cli.terminal import say
from promptmii.config import EvaluateSettings
from promptmii.evaluation import estimate
from promptmii.evaluation import evaluate as evaluate_grid
from promptmii.inducers import METHODS
from promptmii.instruction import Mode


@app.command("evaluate")
def run_grid(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file with any of the settings; the options below change them.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; what it holds already is not run again.")
    ] = Path("runs/eval"),
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Task file or folder of them, corpus[:split], hub:..., or suite; repeatable."),
    ] = None,
    methods: Annotated[str | None, typer.Option(help=f"Comma-separated: {', '.join(METHODS)}.")] = None,
    n: Annotated[str | None, typer.Option("--n", "-n", help="Numbers of examples, comma-separated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Draws of the examples.")] = None,
    evaluate: Annotated[int | None, typer.Option("--eval", help="Test rows of each task.")] = None,
    generator: Annotated[
        list[str] | None, typer.Option(help="Model that writes for mii and best-of-k; repeat it for several.")
    ] = None,
    follower: Annotated[list[str] | None, typer.Option(help="Model that labels; repeat it for several.")] = None,
    untrained: Annotated[
        list[str] | None, typer.Option(help="Model that writes for zero; the follower itself when absent.")
    ] = None,
    searcher: Annotated[
        str | None, typer.Option(help="Model that proposes for ape and gepa; the follower itself when absent.")
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="choose or generate.")] = None,
    nameless: Annotated[bool | None, typer.Option(help="Labels under names that say nothing: A, 7, class 3.")] = None,
    budget: Annotated[int | None, typer.Option(help="Most tokens of an instruction.")] = None,
    workers: Annotated[int | None, typer.Option(help="Cells under way at once.")] = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once, over all workers.")] = None,
    price: Prices = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread the grid over a Ray cluster (table [ray] of the configuration).")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the failed cells again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the grid, its calls, tokens, time and money; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run every method on a grid of tasks, and keep each finished cell. Interrupted or killed, the same command goes on."""
    settings = EvaluateSettings.read(
        config,
        tasks=tasks,
        methods=comma_separated(methods),
        n=whole_numbers(n),
        seeds=seeds,
        evaluate=evaluate,
        nameless=nameless,
        generators=generator,
        followers=follower,
        untrained=untrained,
        searcher=searcher,
        mode=mode,
        budget=budget,
        workers=workers,
        endpoint={
            "base_url": base_url,
            "context_length": context_length,
            "concurrency": concurrency,
            "prices": prices_of(price or []) or None,
        },
        ray={} if ray else None,
    )
    with listening(quiet=json) as progress:
        if dry_run:
            display.estimated(estimate(settings, output, retry_failed=retry_failed, progress=progress), as_json=json)
            return
    with listening(quiet=json) as progress:
        run = evaluate_grid(settings, output, retry_failed=retry_failed, progress=progress)
    display.evaluated(run, as_json=json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `promptmii evaluate` and of training.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the page, the figures and the tables.")
    ] = Path("report"),
) -> None:
    """Draw what runs found: one self-contained page, figures as SVG and PNG, tables as CSV and Markdown."""
    from promptmii.report.page import write_report

    with listening() as progress:
        progress.step("Writing the report")
        page = write_report(runs, output)
    say(f"Open {page} in a browser.")
