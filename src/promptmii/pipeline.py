"""The main job, end to end: a labelled table in, a measured instruction out; then using and re-measuring it.

The command line and the Python API are thin covers of this module. Nothing here prints: progress goes to `progress`,
and results are values.
"""

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmii import metrics
from promptmii.break_even import BreakEven, Prompting, break_even
from promptmii.config import Columns, Endpoint, InduceSettings
from promptmii.data import LoadedTask, Source, draw_notes, load_task, read_table, read_texts, sample
from promptmii.errors import ConfigError, DataError, OutputError, ScoreRefusedError, counted
from promptmii.files import check_writable, free_name
from promptmii.follower import Follower, Prediction, resolve_calibration
from promptmii.inducers import BestOf, InContext, MetaInducer, Naive, Writer
from promptmii.instruction import EDITED, Inducer, Instruction
from promptmii.models.base import LanguageModel
from promptmii.models.http.config import Served, addresses
from promptmii.models.wrappers import watched
from promptmii.progress import QUIET, Progress
from promptmii.prompts import META_SLOTS, meta_prompt, read_template
from promptmii.scoring import Scored, score
from promptmii.task import Episode, Support, row_key
from promptmii.version import VERSION

Confirm = Callable[[str], bool]
"""Asks the user a question; true for yes."""
ALPHA = 0.05


def refuse(_: str) -> bool:
    """The default answer to a question: no."""
    return False


@dataclass(frozen=True)
class Row:
    """One way of prompting, measured on the held-back rows."""

    instruction: Instruction
    scored: Scored


@dataclass(frozen=True)
class Induced:
    """What `induce` found."""

    instruction: Instruction
    rows: tuple[Row, ...]
    """Naive, ICL and the induced instruction, in this order; empty when nothing was measured."""
    differences: dict[str, metrics.Difference]
    """The induced instruction minus each other method, on the same rows."""
    break_even: BreakEven | None
    notes: tuple[str, ...]
    """What was detected, dropped, cut, trimmed."""
    path: Path | None = None
    """Where the instruction was saved."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Methods that the induced instruction does not beat beyond noise."""
        doubtful = {name: d for name, d in self.differences.items() if d.p > ALPHA or d.mean <= 0}
        return tuple(_warning(name, difference) for name, difference in doubtful.items())


def _warning(name: str, difference: metrics.Difference) -> str:
    verdict = "worse than" if difference.mean < 0 and difference.p <= ALPHA else "not better beyond noise than"
    return (
        f"The induced instruction is {verdict} {name}: macro-F1 {difference.mean:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}], p = {difference.p:.3f}."
    )


def induce(
    source: Source | LoadedTask,
    settings: InduceSettings | None = None,
    *,
    output: str | Path | None = None,
    force: bool = False,
    progress: Progress = QUIET,
    **changes: Any,
) -> Induced:
    """Make an instruction from labelled data, and measure it beside naive and ICL on rows that no method has seen.

    `source` is anything that `load` takes, or what it made; `changes` override `settings` by name
    (`induce(data, n=50, generator="openai:gpt-4.1-mini")`).

    The instruction is saved to `output` as soon as it is written, and again once it is measured. `force` replaces a
    file that exists; a file that appears meanwhile is never replaced, and the instruction is saved beside it.

    Raises `DataError`, `ConfigError`, `ModelError`, `ScoreRefusedError`, and `OutputError`, before any call if it can.
    """
    settings = InduceSettings.of(**((settings.model_dump() if settings else {}) | changes))
    kept = _Kept(Path(output) if output else None, force, progress)
    if not isinstance(source, LoadedTask):
        progress.step("Reading the data")
    loaded = source if isinstance(source, LoadedTask) else load(source, settings.columns, seed=settings.seed)
    episode = sample(loaded.task, settings.n, settings.seed, query=settings.evaluate)
    progress.step(f"Loading {settings.generator}")
    with closing(watched(settings.endpoint.load(settings.generator), progress)) as generator:
        follower = make_follower(settings, generator, progress)
        with closing(follower.model):
            inducer = make_inducer(settings, generator, follower)
            return _induced(inducer, follower, (episode, loaded), kept, progress)


class _Kept:
    """The output file, which holds the instruction from the moment it is written."""

    def __init__(self, path: Path | None, force: bool, progress: Progress) -> None:
        """Raises `OutputError` if the file could not be written."""
        if path:
            check_writable(path, force=force)
        self.path = path
        self._force = force
        self._progress = progress

    def __call__(self, instruction: Instruction) -> None:
        """Save it. Raises `OutputError` that holds the text."""
        if self.path is None:
            return
        try:
            if not self._force and (free := free_name(self.path)) != self.path:
                self._progress.note(f"{self.path} appeared meanwhile and is kept; the instruction goes to {free}.")
                self.path = free
            instruction.save(self.path, force=self._force)
        except OutputError as error:
            raise OutputError(f"{error} The instruction that was written: {instruction.text!r}") from error
        self._force = True  # from now on the file is ours


def _induced(
    inducer: Inducer, follower: Follower, drawn: tuple[Episode, LoadedTask], kept: _Kept, progress: Progress
) -> Induced:
    """The instruction, and its measurement where there is a query."""
    episode, loaded = drawn
    notes = (*loaded.notes, *draw_notes(loaded.task, episode))
    instruction = _prepared(inducer, follower, drawn, progress, kept)
    kept(instruction)
    if not episode.query:
        return Induced(instruction, (), {}, None, notes, kept.path)
    try:
        rows = [
            _measure(
                _prepared(method, follower, drawn, progress) if method else instruction, follower, episode, progress
            )
            for method in (Naive(), InContext(follower.model), None)
        ]
    except ScoreRefusedError as error:
        where = f" and saved to {kept.path}" if kept.path else ""
        raise ScoreRefusedError(f"{error} The instruction is written{where}: {instruction.text!r}") from error
    measured = rows[-1].instruction
    kept(measured)
    differences = {row.instruction.method: _difference(rows[-1], row) for row in rows[:-1]}
    return Induced(measured, tuple(rows), differences, _break_even(rows, follower.model), notes, kept.path)


def load(source: Source, columns: Columns, *, seed: int = 0) -> LoadedTask:
    """The task in a table: a path, a `hub:` reference, a DataFrame, a list of dicts or pairs, and more (`Source`)."""
    return load_task(source, text=columns.text, label=columns.label, labels=columns.labels, seed=seed)


def make_follower(settings: InduceSettings, generator: LanguageModel, progress: Progress = QUIET) -> Follower:
    """The follower that the settings name, or the generator itself; the same model is loaded once."""
    reference, model = settings.follower or settings.generator, generator
    if reference != settings.generator:
        progress.step(f"Loading {reference}")
        model = watched(settings.endpoint.load(reference), progress)
    return Follower(model, settings.mode, resolve_calibration(settings.calibration, settings.mode, model.card))


def make_inducer(settings: InduceSettings, generator: LanguageModel, follower: Follower) -> Inducer:
    """Prompt-MII as the settings want it."""
    template = read_template(Path(settings.template), META_SLOTS) if settings.template else meta_prompt()
    writer = Writer(generator, template, settings.budget)
    return BestOf(writer, follower, settings.best_of) if settings.best_of > 1 else MetaInducer(writer)


def _prepared(
    inducer: Inducer,
    follower: Follower,
    drawn: tuple[Episode, LoadedTask],
    progress: Progress,
    keep: Callable[[Instruction], None] | None = None,
) -> Instruction:
    """The method's instruction, stamped with where it comes from, kept, and then calibrated for the follower."""
    episode, loaded = drawn
    progress.step(f"Writing {inducer.name}", unit="drafts")
    instruction = inducer.induce(episode.support, seed=episode.seed)
    provenance = instruction.provenance.model_copy(
        update={
            "source": loaded.task.source.get("origin", ""),
            "text_columns": loaded.columns.text,
            "text_template": loaded.columns.template,
            "label_column": loaded.columns.label,
            "version": VERSION,
        }
    )
    instruction = instruction.model_copy(update={"provenance": provenance})
    if keep:
        keep(instruction)
    if follower.calibration != "none":
        progress.step(f"Calibrating {inducer.name}", len(episode.support.examples))
    return follower.prepare(instruction, episode.support)


def _measure(instruction: Instruction, follower: Follower, episode: Episode, progress: Progress) -> Row:
    progress.step(f"Scoring {instruction.method}", len(episode.query))
    scored = score(follower, instruction, episode.query)
    return Row(instruction.measured_as(scored.measurement()), scored)


def _difference(ours: Row, other: Row) -> metrics.Difference:
    return metrics.paired_difference(ours.scored.gold, ours.scored.labels, other.scored.labels)


def _break_even(rows: Sequence[Row], model: LanguageModel) -> BreakEven | None:
    """The last row against ICL."""
    shared = model.count_tokens([row.instruction.prompt("") for row in rows])
    ways = {
        row.instruction.method: Prompting(
            row.instruction.cost + row.instruction.calibration_cost, row.scored.prompt_tokens_per_query, tokens
        )
        for row, tokens in zip(rows, shared, strict=True)
    }
    return break_even(ways[rows[-1].instruction.method], ways["icl"], model.card.price)


def bind(
    instruction: Instruction,
    follower: str | None,
    endpoint: Endpoint,
    progress: Progress = QUIET,
    confirm: Confirm = refuse,
) -> Follower:
    """The follower that an instruction was made for, or another one.

    `confirm` is asked before texts go to a server that only the instruction names. Raises `ConfigError` if it declines,
    or if neither `follower` nor the instruction names a model.
    """
    reference, keyless = (follower, False) if follower else _named_follower(instruction, endpoint, confirm)
    progress.step(f"Loading {reference}")
    return Follower(
        watched(endpoint.load(reference, keyless=keyless, limit=endpoint.limit()), progress),
        instruction.mode or "choose",
    )


def _named_follower(instruction: Instruction, endpoint: Endpoint, confirm: Confirm) -> tuple[str, bool]:
    """The follower that an instruction names, and whether to keep the API key from it.

    An instruction comes from a file that anybody may have written. A server named there is used only after a yes, and
    never gets the key; a server that the user names replaces it.
    """
    named = instruction.follower
    if named is None:
        raise ConfigError("The instruction names no follower; give one with --follower.")
    served = Served.parse(named)
    if served is None or served.address is None or served.address in addresses(endpoint.base_url):
        return named, False
    if endpoint.base_url:
        return f"openai:{served.model}", False
    if confirm(f"The instruction names the server {served.address}. Send your texts there, without your API key?"):
        return named, True
    raise ConfigError(
        f"The instruction names the server {served.address}, and no text is sent there unless you say so. "
        f"If you trust it: --follower {named}. To use another server: --base-url."
    )


@dataclass(frozen=True)
class Labelled:
    """The rows of a table with what the follower made of them."""

    rows: tuple[dict[str, Any], ...]
    """The input's columns, then `predicted_label`, `probability`, one `p(<label>)` per label, and `failure`."""
    predictions: tuple[Prediction, ...]

    @property
    def n_labelled(self) -> int:
        """Rows with a label."""
        return sum(p.label is not None for p in self.predictions)

    @property
    def n_failed(self) -> int:
        """Rows whose call failed."""
        return sum(p.failure is not None for p in self.predictions)

    def csv(self) -> str:
        """The rows as CSV with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else ["label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def predict(
    instruction: Instruction,
    source: Source,
    follower: Follower,
    text: str | tuple[str, ...] | None = None,
    *,
    progress: Progress = QUIET,
) -> Labelled:
    """Label a table, a list of texts, or one text; empty texts get neither a label nor a call.

    Raises `DataError` where a column of the input has the name of one that is to be added.
    """
    chosen = text or instruction.provenance.text_template or instruction.provenance.text_columns or None
    inputs = read_texts(source, chosen)
    added = _answer_columns(instruction, Prediction(None), scored=True)
    clashes = [name for name in added if inputs.rows and name in inputs.rows[0]]
    if clashes:
        raise DataError(
            f"The input has a column {clashes[0]!r} already, as if it were labelled before. Rename or drop it."
        )
    asked = [i for i, one in enumerate(inputs.texts) if one.strip()]
    progress.step("Labelling", len(asked))
    answers = dict(zip(asked, follower.predict(instruction, [inputs.texts[i] for i in asked]), strict=True))
    predictions = tuple(answers.get(i, Prediction(None)) for i in range(len(inputs.texts)))
    scored = any(prediction.probabilities for prediction in predictions)
    rows = (
        columns | _answer_columns(instruction, answer, scored=scored)
        for columns, answer in zip(inputs.rows, predictions, strict=True)
    )
    return Labelled(tuple(rows), predictions)


def _answer_columns(instruction: Instruction, prediction: Prediction, *, scored: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {"predicted_label": prediction.label or ""}
    if scored:
        known = [round(p, 6) for p in prediction.probabilities or ()]
        columns["probability"] = max(known, default=None)
        columns |= dict(
            zip((f"p({name})" for name in instruction.labels), known or [None] * len(instruction.labels), strict=True)
        )
    return columns | {"failure": str(prediction.failure.kind) if prediction.failure else ""}


def rescore(
    instruction: Instruction, source: Source, follower: Follower, columns: Columns, *, progress: Progress = QUIET
) -> tuple[Scored, tuple[str, ...]]:
    """Measure an instruction on the rows of a table, except those that it was made from or calibrated on.

    The notes say how many rows were left out. Raises `DataError` if none remain.
    """
    loaded = _table_of(instruction, source, columns)
    known = set(instruction.provenance.support_rows)
    rows = (*loaded.task.train, *loaded.task.test)
    fresh = [row for row in rows if row_key(row.text) not in known]
    if not fresh:
        raise DataError(
            "The instruction was made from all of these rows, so they cannot measure it. Give it other rows."
        )
    seen = len(rows) - len(fresh)
    left_out = (f"{counted(seen, 'row')} left out: the instruction was made from them",) if seen else ()
    progress.step("Scoring", len(fresh))
    return score(follower, instruction, fresh), (*loaded.notes, *left_out)


def recalibrate(
    instruction: Instruction, source: Source, follower: Follower, columns: Columns, *, progress: Progress = QUIET
) -> tuple[Instruction, tuple[str, ...]]:
    """The instruction with `follower`'s calibration fitted on the rows of a table, without its old score.

    The notes say what was found in the table.
    """
    loaded = _table_of(instruction, source, columns)
    rows = (*loaded.task.train, *loaded.task.test)
    progress.step("Calibrating", len(rows))
    kept = tuple(note for note in instruction.provenance.notes if note != EDITED)
    made = instruction.provenance.model_copy(update={"notes": kept})
    plain = instruction.model_copy(update={"measured": None, "provenance": made})
    return follower.prepare(plain, Support(instruction.labels, rows)), loaded.notes


def _table_of(instruction: Instruction, source: Source, columns: Columns) -> LoadedTask:
    """A table, read as the one that the instruction was made from unless `columns` say otherwise.

    Rows with labels that the instruction lacks are dropped, with a note.
    """
    made = instruction.provenance
    own = Columns(
        text=made.text_template or made.text_columns or None, label=made.label_column, labels=instruction.labels
    )
    table = read_table(source)
    if not {own.label, *made.text_columns} <= set(table.columns):  # another table: detect its columns anew
        own = Columns(labels=instruction.labels)
    given = {name: value for name, value in columns.model_dump(exclude={"labels"}).items() if value is not None}
    return load(table, own.model_copy(update=given))
