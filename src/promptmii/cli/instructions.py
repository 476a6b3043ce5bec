"""Make instructions, use them, measure them."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from promptmii import display, pipeline
from promptmii.cli.bars import progress as listening
from promptmii.cli.group import app
from promptmii.cli.options import (
    BaseUrl,
    Cache,
    Concurrency,
    Context,
    Data,
    File,
    Follow,
    Force,
    Json,
    Label,
    Labels,
    Output,
    Prices,
    Text,
    columns_of,
    endpoint_of,
)
from promptmii.cli.terminal import confirmed
from promptmii.config import InduceSettings
from promptmii.files import check_writable
from promptmii.instruction import Instruction, Mode
from promptmii.models import DEFAULT


@app.command()
def induce(
    data: Data,
    n: Annotated[int, typer.Option("-n", help="Examples the generator reads.")] = 20,
    output: Output = None,
    text: Text = None,
    label: Label = None,
    labels: Labels = None,
    generator: Annotated[str, typer.Option(help="Model that writes: smol, hf:..., openai:...")] = DEFAULT,
    follower: Follow = None,
    mode: Annotated[
        Mode,
        typer.Option(help="choose compares label likelihoods; generate reads the label from text, as in the paper."),
    ] = "choose",
    calibration: Annotated[
        Literal["auto", "none", "contextual", "support", "supervised", "batch"],
        typer.Option(help="Correction of label bias."),
    ] = "auto",
    template: Annotated[Path | None, typer.Option(help="File with the generator's own template.")] = None,
    best_of: Annotated[int, typer.Option("--best-of", help="Drafts to choose from, on a part of the examples.")] = 1,
    budget: Annotated[int | None, typer.Option(help="Most tokens of the instruction.")] = None,
    evaluate: Annotated[int, typer.Option("--eval", help="Held-back rows to measure on; 0 measures nothing.")] = 200,
    price: Prices = None,
    seed: Annotated[int, typer.Option(help="Of the split, the examples and the drafts.")] = 0,
    base_url: BaseUrl = None,
    context_length: Context = None,
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
        columns=columns_of(text, label, labels),
        endpoint=endpoint_of(base_url, context_length, concurrency, cache, price),
    )
    with listening(quiet=json) as progress:
        induced = pipeline.induce(data, settings, progress=progress)
    if output:
        induced.instruction.save(output, force=force)
    display.induced(induced, output, as_json=json)


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
    json: Json = False,
    force: Force = False,
) -> None:
    """Label new texts. Writes the input's columns with label, probabilities and failures beside them."""
    if output:
        check_writable(output, force=force)
    made = Instruction.load(instruction)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache)
    with listening(quiet=json) as progress:
        bound = pipeline.bind(made, follower, endpoint, progress, confirmed)
        labelled = pipeline.predict(made, _texts(input), bound, columns_of(text, None, None).text, progress=progress)
    display.foreign(made, bound)
    display.labelled(labelled, output, as_json=json, force=force)


@app.command()
def score(
    instruction: File,
    data: Data,
    text: Text = None,
    label: Label = None,
    follower: Follow = None,
    base_url: BaseUrl = None,
    context_length: Context = None,
    concurrency: Concurrency = 16,
    cache: Cache = None,
    json: Json = False,
) -> None:
    """Measure an instruction again on labelled data: per-label scores, confusion matrix, failure counts."""
    made = Instruction.load(instruction)
    endpoint = endpoint_of(base_url, context_length, concurrency, cache)
    with listening(quiet=json) as progress:
        bound = pipeline.bind(made, follower, endpoint, progress, confirmed)
        scored, notes = pipeline.rescore(made, data, bound, columns_of(text, label, None), progress=progress)
    display.foreign(made, bound)
    display.scored(made, scored, notes, as_json=json)


@app.command()
def show(instruction: File, json: Json = False) -> None:
    """Print an instruction file for reading, or only its JSON."""
    display.shown(Instruction.load(instruction), as_json=json)


def _texts(given: str) -> str | list[str]:
    """What `predict` is to read: a file, the lines of standard input, or the argument itself."""
    if given == "-":
        return [line.rstrip("\n") for line in sys.stdin]
    looks_like_file = Path(given).suffix and " " not in given.strip()
    return given if _exists(given) or given.startswith("hub:") or looks_like_file else [given]


def _exists(given: str) -> bool:
    try:
        return bool(given) and Path(given).exists()
    except OSError:  # longer than any name of a file
        return False
