"""`promptmii evaluate` and `promptmii report`: compare methods on many tasks, and report the results."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from promptmii.cli.bars import listening
from promptmii.cli.blocks import blocks
from promptmii.cli.group import CALLS_FAILED, app
from promptmii.cli.options import (
    BaseUrl,
    Context,
    Json,
    ListRecipes,
    MaxCost,
    N,
    Prices,
    Recipe,
    Set,
    comma_separated,
    prices_of,
    settings_of,
    show_defaults,
    whole_numbers,
)
from promptmii.cli.terminal import count, dump, out, say, table, warn
from promptmii.files import quoted
from promptmii.messages import counted

if TYPE_CHECKING:
    from promptmii.evaluation import MethodEstimate
    from promptmii.inducers import Method
    from promptmii.records import Run
    from promptmii.report.results import Results


class Evaluate(TyperCommand):
    """Shows defaults and methods in its help. They are imported only for that, because the import is slow."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from promptmii.config import Endpoint
        from promptmii.evaluation.plan import EvaluateSettings

        show_defaults(self, Endpoint, EvaluateSettings)
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write one line per method, with the model that writes for it and its options."""
        from promptmii.inducers import METHODS

        self.epilog = "\n\n".join(("Methods:", *map(_described, METHODS.values())))
        super().format_epilog(ctx, formatter)


def _described(method: "type[Method]") -> str:
    from promptmii.inducers import WrittenBy

    options = [
        f"options.{method.name}.{name}={field.default}" + (f" ({field.description})" if field.description else "")
        for name, field in method.model_fields.items()
    ]
    writer = "" if method.written_by is WrittenBy.NOBODY else f" Written by --{method.written_by.value}."
    return f"{method.name}: {method.summary}.{writer}" + (f" --set {', '.join(options)}." if options else "")


@dataclass(frozen=True)
class _GridOptions:
    """The grid to compare. Options override the recipe."""

    tasks: Annotated[
        list[str] | None, typer.Option(help="Task file, folder of them, corpus[:split], hub:... or suite; repeatable.")
    ] = None
    methods: Annotated[str | None, typer.Option(help="Comma-separated; listed below.")] = None
    n: Annotated[str | None, N("Numbers of examples, comma-separated.")] = None
    seeds: Annotated[int | None, typer.Option(help="How often to draw the examples, for each n.")] = None
    evaluate: Annotated[int | None, typer.Option("--eval", help="Test rows per task.")] = None
    generator: Annotated[list[str] | None, typer.Option(help="Model under test; repeatable.")] = None
    follower: Annotated[list[str] | None, typer.Option(help="Model that labels; repeatable.")] = None
    untrained: Annotated[list[str] | None, typer.Option(help="Untrained model; repeatable. Default: the follower.")] = (
        None
    )
    searcher: Annotated[
        str | None, typer.Option(help="Model that proposes candidates in searches. Default: the follower.")
    ] = None
    mode: Annotated[
        Literal["choose", "generate"] | None,
        typer.Option(help="choose compares label likelihoods; generate reads the label from text."),
    ] = None
    nameless: Annotated[bool | None, typer.Option(help="Hide the label names behind A, 7, class 3.")] = None
    budget: Annotated[int | None, typer.Option(help="Maximum length of an instruction, in tokens.")] = None
    workers: Annotated[int | None, typer.Option(help="Cells to run at once.")] = None
    base_url: BaseUrl = None
    context_length: Context = None
    concurrency: Annotated[int | None, typer.Option(help="Concurrent requests, over all workers.")] = None
    price: Prices = None
    max_cost: MaxCost = None
    ray: Annotated[bool, typer.Option("--ray", help="Spread the cells over a Ray cluster (table [ray]).")] = False
    set_: Set = None

    @property
    def settings(self) -> dict[str, Any]:
        """The options as in the TOML file; `None` if not given."""
        from promptmii.schema import merged

        endpoint = {name: getattr(self, name) for name in ("base_url", "context_length", "concurrency", "max_cost")}
        unchanged = ("tasks", "seeds", "evaluate", "nameless", "untrained", "searcher", "mode", "budget", "workers")
        changes = {name: getattr(self, name) for name in unchanged} | {
            "methods": comma_separated(self.methods),
            "n": whole_numbers(self.n),
            "generators": self.generator,
            "followers": self.follower,
            "endpoint": endpoint | {"prices": prices_of(self.price) or None},
            "ray": {} if self.ray else None,
        }
        return merged(settings_of(self.set_), changes)


@app.command("evaluate", cls=Evaluate)
@blocks
def run_grid(
    grid: _GridOptions,
    recipe: Annotated[str | None, Recipe] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; its finished cells are not run again.")
    ] = Path("runs/eval"),
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the failed cells again.")] = False,
    forget_answers: Annotated[
        bool, typer.Option("--forget-answers", help="First delete the cached answers; finished cells stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the grid, its calls, tokens, time and money; run no cell.")
    ] = False,
    json: Json = False,
    _list: ListRecipes = False,
) -> None:
    """Compare methods on a grid of tasks. Finished cells are kept; after an interruption, run it again to continue."""
    from promptmii.configs import config_path
    from promptmii.evaluation import estimate
    from promptmii.evaluation import evaluate as evaluate_grid
    from promptmii.evaluation.plan import EvaluateSettings

    settings = EvaluateSettings.read(config_path("evaluate", recipe) if recipe else None, **grid.settings)
    if dry_run:
        with listening(quiet=json) as progress:
            estimates = estimate(settings, output, retry_failed=retry_failed, progress=progress)
        _show_estimate(estimates, as_json=json)
        return
    with listening(quiet=json) as progress:
        run = evaluate_grid(
            settings, output, retry_failed=retry_failed, forget_answers=forget_answers, progress=progress
        )
    _show(run, output, as_json=json)
    if run.failed:
        raise typer.Exit(CALLS_FAILED)


def _show(run: "Run", folder: Path, *, as_json: bool) -> None:
    done = [record for record in run.records.values() if record.status == "done"]
    if as_json:
        failed = [record.model_dump(mode="json") for record in run.failed]
        dump({"folder": str(folder), "done": len(done), "failed": failed, "damaged": run.damaged})
        return
    out.write_line(f"{counted(len(done), 'cell')} done, {len(run.failed)} failed in {folder}.")
    for record in run.failed:
        warn(f"{record.cell.name}: {record.error or ''}", word="Failed:")
    for line in run.damaged:
        warn(f"{line}; its cell was run again.", word="Unreadable:")
    if run.failed:
        out.write_line("Once the cause is gone, run the failed cells again with --retry-failed.")
    if done:
        from promptmii.report.results import Results

        _show_results(Results(run))
    out.write_line(f"See figures and tests with: promptmii report {quoted(folder)}")


def _show_results(results: "Results") -> None:
    for summary in results.summaries:
        grid = table(summary.title, *map(str, summary.shown.columns))
        for row in summary.shown.itertuples(index=False):
            grid.add_row(*map(str, row))
        out.write_table(grid)


def _show_estimate(estimates: Sequence["MethodEstimate"], *, as_json: bool) -> None:
    if as_json:
        costs = [e.cost.model_dump() | ({"seconds": None} if isnan(e.cost.seconds) else {}) for e in estimates]
        dump([asdict(e) | {"cost": cost} for e, cost in zip(estimates, costs, strict=True)])
        return
    priced = any(e.cost.money is not None for e in estimates if e.cost.calls)
    headers = ("cells", "done", "calls", "prompt tokens", "written tokens", "model time", *["money"] * priced)
    grid = table("Estimate for the cells that are not done", "method", *headers)
    for e in estimates:
        time = "unknown" if isnan(e.cost.seconds) else str(timedelta(seconds=round(e.cost.seconds)))
        money = ["unknown" if e.cost.money is None else f"{e.cost.money:.4f}"] * priced
        counts = (e.cells, e.done, e.cost.calls, e.cost.prompt_tokens, e.cost.completion_tokens)
        grid.add_row(e.method, *map(count, counts), time, *money)
    out.write_table(grid)
    out.write_line(
        "Model time counts one call after the other. Servers answer several at once; equal prompts are asked once."
    )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `promptmii evaluate` and `promptmii train`.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the page, the figures and the tables.", show_default="report"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write one Markdown page, with its figures in a folder beside it; -o adds the full report."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page about runs, with figures and tables.

    The page is self-contained. Next to it are the figures (SVG, PNG, PDF, LaTeX) and tables (CSV, Markdown, LaTeX).
    """
    from promptmii.report.markdown import write_markdown
    from promptmii.report.page import write_report
    from promptmii.report.results import Results

    with listening(quiet=json) as progress:
        progress.step("Writing the report")
        results = Results.read(runs)
        markdown_page = write_markdown(results, markdown) if markdown else None
        page = write_report(results, output or Path("report")) if output or not markdown else None
    if json:
        rows = [row for summary in results.summaries for row in summary.rows]
        dump({"markdown": markdown_page, "page": page, "results": rows})
        return
    _show_results(results)
    if markdown_page:
        say(f"Wrote {markdown_page}.")
    if page:
        say(f"Open {page} in a browser.")
