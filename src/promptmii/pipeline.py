"""Turns a labelled table into a measured instruction, end to end. `workbench` has everything after that.

The command line and the Python API are thin wrappers around this module. Nothing here prints: progress goes to
`progress`, and results are values.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptmii import metrics
from promptmii.break_even import BreakEven, PromptCost, break_even
from promptmii.config import InduceSettings
from promptmii.data import LoadedTask, Source, draw_notes, load_task, sample
from promptmii.errors import ModelError, OutputError, ScoreRefusedError, SpendingLimitError
from promptmii.files import check_writable, free_name, quoted
from promptmii.follower import Follower, resolve_calibration
from promptmii.inducers import (
    BestOf,
    FixedInstruction,
    InContext,
    Inducer,
    Keeping,
    MetaInducer,
    Naive,
    Writer,
    marked_lines,
)
from promptmii.inputs import prompt_text, with_test_rows
from promptmii.instruction import Instruction
from promptmii.measured import Measured, differences, measure, measured_html
from promptmii.messages import counted
from promptmii.models import check_reference
from promptmii.models.base import LanguageModel, Models
from promptmii.models.references import default_follower
from promptmii.models.wrappers import watched
from promptmii.progress import QUIET, Progress
from promptmii.scoring import caveats
from promptmii.styles import split_style, style_for
from promptmii.task import Episode
from promptmii.version import VERSION


@dataclass(frozen=True)
class Induced:
    """The result of `induce`."""

    instruction: Instruction
    rows: tuple[Measured, ...]
    """Naive, ICL, the prompt given as `start` if any, and the induced instruction last.

    Empty if nothing was measured.
    """
    differences: dict[str, metrics.Difference]
    """The induced instruction minus each other method, on the same rows. The p-values are Holm-adjusted."""
    break_even: BreakEven | None
    notes: tuple[str, ...]
    """Notes on detected columns, dropped rows and shortened texts."""
    path: Path | None = None
    """The file that the instruction was saved to."""
    announced: tuple[str, ...] = ()
    """Those of the notes that `progress` received before the first call."""

    @property
    def verdicts(self) -> tuple[str, ...]:
        """A sentence for each other method: is the induced instruction better, beyond noise?"""
        return tuple(_verdict(name, difference) for name, difference in self.differences.items())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Caveats on the scores, then the verdicts on methods that the instruction does not beat beyond noise."""
        verdicts = zip(self.differences.values(), self.verdicts, strict=True)
        doubts = caveats({row.name: row.scored for row in self.rows})
        return (*doubts, *(verdict for difference, verdict in verdicts if not _beats(difference)))

    def __repr__(self) -> str:
        return f"<Induced {self.instruction!r}>"

    def _repr_html_(self) -> str:
        measured = measured_html(self.rows, self.differences) if self.rows else ""
        return self.instruction._repr_html_() + measured  # pyright: ignore[reportPrivateUsage]

    def as_json(self) -> dict[str, Any]:
        """The whole result as JSON values, for other programs."""
        return {
            "instruction": self.instruction.model_dump(mode="json"),
            "comparison": [
                {
                    "method": row.instruction.method,
                    "examples": row.instruction.provenance.n,
                    "seconds": row.scored.usage.seconds,
                    **(row.instruction.measured.model_dump() if row.instruction.measured else {}),
                    "cost": row.instruction.cost.model_dump(),
                    "calibration_cost": row.instruction.calibration_cost.model_dump(),
                }
                for row in self.rows
            ],
            "differences": {name: asdict(difference) for name, difference in self.differences.items()},
            "break_even": asdict(self.break_even) if self.break_even else None,
            "warnings": self.warnings,
            "notes": self.notes,
        }


def _beats(difference: metrics.Difference) -> bool:
    return difference.mean > 0 and difference.beyond_noise


def _verdict(name: str, difference: metrics.Difference) -> str:
    worse = difference.mean < 0 and difference.beyond_noise
    verdict = "better than" if _beats(difference) else "worse than" if worse else "within noise of"
    return f"The induced instruction is {verdict} {name}: {difference}."


def induce(
    source: Source | LoadedTask,
    settings: InduceSettings | None = None,
    *,
    output: str | Path | None = None,
    force: bool = False,
    progress: Progress = QUIET,
    models: Models | None = None,
    **changes: Any,
) -> Induced:
    """Write an instruction from labelled data, and measure it beside naive and ICL on rows that no method has seen.

    `source` is anything that `load_task` accepts, or its result; `changes` override `settings` by name
    (`induce(data, n=50, generator="openai:gpt-4.1-mini")`).

    Saves the instruction to `output` as soon as it is written, and again once it is measured. `force` replaces an
    existing file; without it, a file that appears during the run is kept, and the instruction is saved beside it.
    `models` replaces the endpoint's loader if the caller keeps models open between calls.

    Raises `DataError`, `ConfigError`, `ModelError`, `ScoreRefusedError` and `OutputError`, if possible before any
    model call.
    """
    settings = InduceSettings.of(**((settings.model_dump(exclude_unset=True) if settings else {}) | changes))
    output_file = _OutputFile(None if output is None else Path(output), force, progress)
    if not isinstance(source, LoadedTask):
        progress.step("Reading the data")
        source = load_task(source, **dict(settings.columns), seed=settings.seed)
    loaded = with_test_rows(source, settings.test) if settings.test else source
    query_size = len(loaded.task.test) if settings.test else settings.evaluate
    n, most, lowered = settings.n, len(loaded.task.train), ()
    if "n" not in settings.model_fields_set and 0 < most < n:
        lowered = (f"{counted(most, 'example')} instead of {n}: the training part has no more",)
        n = most
    episode = sample(loaded.task, n, settings.seed, query=query_size)
    drawn = (*lowered, *draw_notes(loaded.task, episode))
    for note in drawn:  # before the first call, because it may be a reason to stop
        progress.note(note)
    if settings.start is not None:
        settings = settings.model_copy(update={"start": prompt_text(settings.start)})
    # Raise for a word of `keep` that no line contains, and for a wrong style, before a model is loaded.
    marked_lines(settings.start or "", settings.keep)
    style_for(settings.generator, settings.template)
    if settings.follower and not models:
        check_reference(settings.follower, settings.endpoint.base_url)
    reference, _ = split_style(settings.generator)
    progress.step(f"Loading {reference}")
    models = models or settings.endpoint.loader()
    with closing(watched(models(reference), progress)) as generator:
        follower = make_follower(settings, models, progress, generator)
        with closing(follower.model):
            follower.check(loaded.task.labels)
            baselines: list[Inducer] = [Naive(), InContext(follower.model)]
            if settings.start is not None:
                baselines.append(FixedInstruction(settings.start, name="start"))
            inducer = make_inducer(settings, generator, follower)
            with output_file.text_in_errors(_measuring(settings, follower, loaded)):
                return _Run(follower, loaded, episode, drawn, progress).induce(baselines, inducer, output_file)


class _OutputFile:
    """The output file, written for the first time as soon as the generator has written the instruction."""

    def __init__(self, path: Path | None, force: bool, progress: Progress) -> None:
        """Raises `OutputError` if the file cannot be written."""
        if path:
            check_writable(path, force=force)
        self.path = path
        self._written: Instruction | None = None
        """What the generator wrote, also if there is no file."""
        self._force = force
        self._progress = progress

    def save(self, instruction: Instruction) -> None:
        """Save the instruction. Raises `OutputError`."""
        self._written = instruction
        if self.path is None:
            return
        if not self._force and (free := free_name(self.path)) != self.path:
            self._progress.note(f"{self.path} was created meanwhile and is kept; the instruction goes to {free}.")
            self.path = free
        instruction.save(self.path, force=self._force)
        self._force = True  # the next save replaces our own file

    @contextmanager
    def text_in_errors(self, measuring: Sequence[str]) -> Generator[None]:
        """Add what was written to an error's message, its file, and how to measure it: it is paid for."""
        try:
            yield
        except (ModelError, OutputError, ScoreRefusedError, SpendingLimitError) as error:
            if self._written:
                saved = self.path and not isinstance(error, OutputError)
                where = f" and saved to {self.path}" if saved else ""
                command = " ".join(map(quoted, ["promptmii", "compare", str(self.path), *measuring]))
                then = f" Measure it without writing it again: {command}" if saved else ""
                error.args = (f"{error} The instruction is written{where}: {self._written.text!r}{then}",)
            raise


def _measuring(settings: InduceSettings, follower: Follower, loaded: LoadedTask) -> list[str]:
    """The arguments of `promptmii compare`, after the instruction, that measure it on the data of this run."""
    origin = settings.test or loaded.task.source.get("origin", "DATA")
    data = origin if ":" in origin or Path(origin).exists() else "DATA"
    address = ["--base-url", settings.endpoint.base_url] if settings.endpoint.base_url else []
    model = ["--follower", follower.model.card.reference, "--mode", follower.mode]
    return ["naive", "icl", "--data", data, *model, *address]


@dataclass(frozen=True)
class _Run:
    """What all methods of a run share: the follower, the task, and the examples and query rows drawn from it."""

    follower: Follower
    loaded: LoadedTask
    episode: Episode
    drawn: tuple[str, ...]
    """Notes on these."""
    progress: Progress

    def induce(self, baselines: Sequence[Inducer], inducer: Inducer, output_file: _OutputFile) -> Induced:
        """The instruction of the inducer, measured beside those of the baselines if there are query rows."""
        loaded, episode = self.loaded, self.episode
        notes = (*loaded.notes, *loaded.split_notes, *self.drawn)
        instruction = self._prepared(inducer, output_file.save)
        output_file.save(instruction)
        if instruction.shortlist:
            notes = (*notes, f"compared for each text: {instruction.shortlist}")
        if not episode.query:
            return Induced(instruction, (), {}, None, notes, output_file.path, self.drawn)
        rows = [self._measured(self._prepared(baseline)) for baseline in baselines]
        own = self._measured(instruction)
        output_file.save(own.instruction)
        saving = _break_even([*rows, own], self.follower.model)
        found = differences([own, *rows])
        return Induced(own.instruction, (*rows, own), found, saving, notes, output_file.path, self.drawn)

    def _prepared(self, inducer: Inducer, save: Callable[[Instruction], None] | None = None) -> Instruction:
        """Write the method's instruction, pass it to `save`, and calibrate it for the follower."""
        loaded, support = self.loaded, self.episode.support
        self.progress.step(f"Writing {inducer.name}", unit="drafts")
        instruction = inducer.induce(support, seed=self.episode.seed).with_provenance(
            source=loaded.task.source.get("origin", ""),
            text_columns=loaded.columns.text,
            text_template=loaded.columns.template,
            label_column=loaded.columns.label,
            version=VERSION,
        )
        if save:
            save(instruction)
        if self.follower.calibration != "none":
            self.progress.step(f"Calibrating {inducer.name}", len(support.examples))
        return self.follower.prepare(instruction, support)

    def _measured(self, instruction: Instruction) -> Measured:
        query, follower = self.episode.query, self.follower
        self.progress.step(f"Scoring {instruction.method}", len(query))
        row = measure(instruction.method, follower, instruction, query, follower.model.card.price)
        row.refuse_failures()
        return row


def make_follower(
    settings: InduceSettings, models: Models, progress: Progress = QUIET, generator: LanguageModel | None = None
) -> Follower:
    """The follower that the settings name, by default the generator's base model.

    If that is the generator itself, a `generator` that is already open also follows.
    """
    writer, _ = split_style(settings.generator)
    reference = settings.follower or default_follower(writer)
    if generator and reference == writer:
        model = generator
    else:
        progress.step(f"Loading {reference}")
        model = watched(models(reference), progress)
    kind = resolve_calibration(settings.calibration, settings.mode, model.card)
    return Follower(model, settings.mode, kind, settings.shortlist)


def make_inducer(settings: InduceSettings, generator: LanguageModel, follower: Follower) -> Inducer:
    """Prompt-MII as the settings configure it."""
    style = style_for(settings.generator, settings.template)
    writer = Writer(generator, style, settings.budget, start=settings.start)
    several = settings.best_of > 1
    inducer = BestOf(writer, follower, settings.best_of) if several else MetaInducer(writer, keeps_first=True)
    lines = marked_lines(settings.start or "", settings.keep)
    return Keeping(inducer, lines) if lines else inducer


def _break_even(rows: Sequence[Measured], model: LanguageModel) -> BreakEven | None:
    """The break-even of the last row against ICL."""
    prompt_tokens = model.count_tokens([row.instruction.prompt("") for row in rows])
    costs = {
        row.instruction.method: PromptCost(
            row.instruction.cost + row.instruction.calibration_cost, row.scored.prompt_tokens_per_query, tokens
        )
        for row, tokens in zip(rows, prompt_tokens, strict=True)
    }
    return break_even(costs[rows[-1].instruction.method], costs["icl"], model.card.price)
