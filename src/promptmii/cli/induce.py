"""`promptmii induce`: write an instruction and measure it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptmii.calibration_kinds import CalibrationKind
from promptmii.cli.bars import listening
from promptmii.cli.blocks import RowOptions, ServerOptions, blocks
from promptmii.cli.compare import score_cells
from promptmii.cli.group import app
from promptmii.cli.options import Data, Force, Generator, Json, N, Output, prompt_of
from promptmii.cli.terminal import confirmed, dump, interactive, notes, out, say, styled, table, warn
from promptmii.errors import ConfigError
from promptmii.files import quoted
from promptmii.markup import brief
from promptmii.messages import counted, listed
from promptmii.models.references import DEFAULT, PREFIXES, WRITER

if TYPE_CHECKING:
    from rich.table import Table

    from promptmii.config import Columns, InduceSettings
    from promptmii.data import LoadedTask
    from promptmii.measured import Measured
    from promptmii.pipeline import Induced

MOST_LABELS = 20
"""Maximum number of labels listed before the first model call."""
LONGEST_TEXT = 100
"""Maximum characters shown of a row's text."""


@dataclass(frozen=True)
class _WritingOptions:
    """How to write and measure the instruction."""

    n: Annotated[int | None, N("Examples the generator reads. Default: 20, or fewer from a small table.")] = None
    generator: Generator = WRITER
    follower: Annotated[
        str | None, typer.Option(help=f"Model that labels: {DEFAULT}, {PREFIXES} Default: the generator's base model.")
    ] = None
    mode: Annotated[
        Literal["choose", "generate"],
        typer.Option(help="choose compares label likelihoods; generate reads the label from text, as in the paper."),
    ] = "choose"
    calibration: Annotated[Literal["auto", CalibrationKind], typer.Option(help="How to correct label bias.")] = "auto"
    shortlist: Annotated[
        Literal["auto", "embedding", "tfidf", "none"],
        typer.Option(help="With more than 30 labels, compare only those most similar to each text; none compares all."),
    ] = "auto"
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="PROMPT", help="Prompt to improve: instruction file, text file, the text itself, or -."
        ),
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Keep the lines of --from that contain these words unchanged; repeatable."),
    ] = None
    template: Annotated[Path | None, typer.Option(help="File with your own prompt template for the generator.")] = None
    best_of: Annotated[int, typer.Option("--best-of", help="Drafts to write; the best one is kept.")] = 1
    budget: Annotated[int | None, typer.Option(help="Maximum length of the instruction, in tokens.")] = None
    evaluate: Annotated[int, typer.Option("--eval", help="Held-back rows to measure on; 0 skips the measurement.")] = (
        200
    )
    test: Annotated[
        str | None, typer.Option(metavar="ROWS", help="Measure on all rows of this table instead of held-back ones.")
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the split, the examples and the drafts.")] = 0

    def settings(self, columns: "Columns", server: ServerOptions) -> "InduceSettings":
        from promptmii.config import InduceSettings

        names = "n generator follower mode calibration shortlist best_of budget evaluate test seed"
        values = {name: getattr(self, name) for name in names.split()}
        return InduceSettings.of(
            **{name: value for name, value in values.items() if value is not None},
            template=str(self.template) if self.template else None,
            start=None if self.start is None else prompt_of(self.start),
            keep=tuple(self.keep or ()),
            columns=columns,
            endpoint=server.endpoint(),
        )


@app.command()
@blocks
def induce(
    data: Data,
    writing: _WritingOptions,
    server: ServerOptions,
    rows: RowOptions,
    output: Output = None,
    json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Use the detected columns without asking.")] = False,
    force: Force = False,
) -> None:
    """Write an instruction from labelled examples, and measure it on held-back rows.

    Its score stands next to those of the label list alone (naive) and of the same examples in the prompt (icl).
    """
    from promptmii import pipeline
    from promptmii.data import load_task

    settings = writing.settings(rows.columns, server)
    with listening(quiet=json) as progress:
        progress.step("Reading the data")
        loaded = load_task(data, **dict(settings.columns), seed=settings.seed)
    if not json:
        _show_data(loaded)
    if loaded.columns.doubts and not (yes or json) and interactive() and not confirmed("Continue?", default=True):
        raise ConfigError("Stopped before the first call. Name the columns with --text and --label.")
    if not (output or json):
        say("The instruction is printed, not saved. Use -o FILE to save it.")
    with listening(quiet=json) as progress:
        induced = pipeline.induce(loaded, settings, output=output, force=force, progress=progress)
    if json:
        dump(induced.as_json())
    else:
        _show(induced, writing.best_of, server.repeated)


def _show_data(loaded: "LoadedTask") -> None:
    """Print the columns, label counts and three rows to standard error, before the first model call."""
    columns, rows = loaded.columns, loaded.task.rows
    counts = Counter(row.label for row in rows)
    labels = [f"{label} ({counts[label]})" for label in loaded.task.labels]
    say(f"Text: {', '.join(columns.text)}. Label: {columns.label}. {len(rows)} rows.")
    say(f"Labels: {listed(labels, MOST_LABELS)}")
    for row in rows[:: max(len(rows) // 3, 1)][:3]:
        say(f"  {brief(row.text, LONGEST_TEXT)} -> {row.label}")
    if columns.doubts:
        say(f"Other columns might be meant: {', '.join(columns.doubts)}. Name yours with --text and --label.")


def _show(result: "Induced", drafts: int, server: str) -> None:
    from rich.panel import Panel

    unread = (note for note in result.notes if note not in result.announced)
    notes((*unread, *result.instruction.provenance.notes))
    out.print(Panel(styled(result.instruction.text), title=styled("Instruction"), title_align="left"))
    if result.rows:
        out.write_table(_comparison(result.rows))
        unknown = "The saving over ICL is unknown: the server does not report token counts."
        out.write_line(str(result.break_even or unknown))
        for warning in result.warnings:
            warn(warning)
        for verdict in result.verdicts:
            if verdict not in result.warnings:
                out.write_line(verdict)
        # The other warnings doubt the score, which no other text would mend.
        if result.path and result.warnings and set(result.warnings) <= set(result.verdicts):
            command = f"promptmii edit {quoted(result.path)}{server}"
            out.write_line(
                f"Next: edit the text and measure it again ({command}), or let more drafts compete "
                f"(--best-of {max(5, 2 * drafts)})."
            )
    if result.path:
        command = f"promptmii predict {quoted(result.path)} NEW_DATA{server}"
        out.write_line(f"Saved to {result.path}. Use it with: {command}")


def _comparison(rows: Sequence["Measured"]) -> "Table":
    """A table with short headers, so that it fits into 80 columns. The title explains them."""
    calibrated = any(row.instruction.is_calibrated for row in rows)
    title = f"{counted(rows[0].scored.n, 'held-back row')}; tokens per query"
    headers = ["n", "F1 [95 %]", "tokens", "calls", "s"]
    if calibrated:
        title += "; plain F1: without calibration"
        headers = ["n", "F1 [95 %]", "plain F1", "tokens", "calls", "fit calls", "s"]
    grid = table(title, "method", *headers)
    for row in rows:
        instruction = row.instruction
        if instruction.measured:
            calls = [str(instruction.cost.calls)]
            if calibrated:
                calls.append(str(instruction.calibration_cost.calls))
            grid.add_row(
                instruction.method,
                str(instruction.provenance.n),
                *score_cells(instruction.measured, calibrated=calibrated),
                *calls,
                f"{row.scored.usage.seconds:.1f}",
            )
    return grid
