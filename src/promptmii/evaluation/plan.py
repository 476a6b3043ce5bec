"""Plan a grid: its settings, and its cells. A cell's key hashes everything that its result depends on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from promptmii.calibration_kinds import READS, CalibrationKind, Reads
from promptmii.config import Columns, Endpoint, RayOptions, ServeSettings
from promptmii.data import load_task
from promptmii.data.nameless import is_nameless, nameless, shown_name
from promptmii.data.sources import read_tasks
from promptmii.errors import ConfigError, DataError
from promptmii.follower import resolve_calibration
from promptmii.inducers import METHODS, Method, WrittenBy, method_named
from promptmii.instruction import Mode
from promptmii.messages import nearest
from promptmii.models import DEFAULT, WRITER
from promptmii.models.base import ModelCard
from promptmii.prompts import follower_frame
from promptmii.records import Cell
from promptmii.schema import Settings, merged
from promptmii.styles import split_style, style_for
from promptmii.task import Task, content_key


def _default_methods() -> tuple[str, ...]:
    """The methods of a grid that does not name any."""
    return tuple(name for name, method in METHODS.items() if method.by_default)


class EvaluateSettings(Settings):
    """The grid: every task x method x n x seed x generator x follower."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Task files, folders of them, `hub:...`, `suite`, or a corpus (held-out split, or `FOLDER:validation`)."""
    only: tuple[str, ...] = ()
    """Names of the tasks to take from the sources; empty for all."""
    methods: tuple[str, ...] = Field(default_factory=_default_methods, min_length=1)
    n: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(5, 10, 20, 50, 100), min_length=1)
    seeds: int = Field(default=3, ge=1, le=1000)
    """Number of draws of the examples, with seeds from 0. All are measured on the same rows."""
    evaluate: int = Field(default=200, ge=1)
    """Test rows per task."""
    nameless: bool = False
    """Replace label names by meaningless ones (A, 7, class 3), to measure what the instruction alone contributes."""
    generators: tuple[str, ...] = Field(default=(WRITER,), min_length=1)
    """Models under test, which write the instructions."""
    followers: tuple[str, ...] = Field(default=(DEFAULT,), min_length=1)
    untrained: tuple[str, ...] = ()
    """Models of the method `zero`. By default each follower writes for itself."""
    searcher: str | None = None
    """Model that proposes candidates in searches. By default each follower proposes for itself."""
    mode: Mode = "choose"
    calibration: Literal["auto", CalibrationKind] = "auto"
    budget: int | None = Field(default=None, ge=8)
    """Maximum length of an instruction, in tokens."""
    template: str | None = None
    """Template file for the generators."""
    workers: int = Field(default=16, ge=1)
    """Concurrent cells. Local models write for several of them in one batch."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """Options by method: `{"ape": {"calls": 500}}`."""
    columns: Columns = Columns()
    endpoint: Endpoint = Endpoint()
    serve: ServeSettings | None = None
    """Start servers for the models named `openai:<model>`: `"vllm"`, `"llama.cpp"`, or a table. With `ray`, each runs
    on a node of the cluster with enough GPUs."""
    ray: RayOptions | None = None
    also: tuple[dict[str, Any], ...] = ()
    """More grids in the same run, each given by the settings that differ from this one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (*self.methods, *self.options):
            self.method(name)
        if self.ray and self.endpoint.max_cost is not None:
            raise ValueError("max_cost works in one process, but --ray starts several; leave one of them out")
        for number, part in enumerate(self.also, 1):
            if shared := sorted(SHARED & set(part)):
                raise ConfigError(f"also, number {number}: {shared[0]} is the same for all grids; leave it out.")
        _ = self.parts  # raises for a setting of `also` that is unknown or refused
        return self

    @property
    def parts(self) -> tuple[Self, ...]:
        """This grid and those of `also`, with all their settings."""
        base = self.model_dump(exclude={"also"}, exclude_unset=True)
        return (self.model_copy(update={"also": ()}), *(self.of(**merged(base, part)) for part in self.also))

    def method(self, name: str) -> Method:
        """A method with its options. Raises `ConfigError`."""
        return method_named(name, self.options.get(name))


KEYED = ("budget", "calibration", "evaluate", "options", "template")
"""Settings that are part of a cell's key, but not of the cell."""
SHARED = {"also", "columns", "endpoint", "ray", "serve", "tasks", "workers"}
"""Settings that a grid of `also` cannot change, because all grids share the sources and models."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell to run, with its key and settings."""

    key: str
    cell: Cell
    calibration: CalibrationKind
    settings: EvaluateSettings
    """The settings of the cell's grid."""


def grid_tasks(settings: EvaluateSettings) -> dict[str, Task]:
    """The tasks of all grids by name, in order. Raises `DataError`, for example if two tasks have the same name."""
    parts = settings.parts
    for part in parts:
        _check_styles(part)  # before anything is loaded
    load = partial(load_task, **dict(settings.columns))
    names = [name for part in parts for name in part.only]
    loaded = read_tasks(settings.tasks, load=load, only=names if all(part.only for part in parts) else ())
    for name in names:
        if name not in loaded:  # if only some grids select, `read_tasks` does not know the names
            raise DataError(f"{', '.join(settings.tasks)}: no task {name!r}. {nearest(name, loaded)}")
    tasks: dict[str, Task] = {}
    for part in parts:
        for task in _selected(part, loaded):
            task = nameless(task) if part.nameless else task
            tasks[task.name] = task
    return tasks


def _selected(part: EvaluateSettings, tasks: Mapping[str, Task]) -> list[Task]:
    return [task for name, task in tasks.items() if not part.only or shown_name(name) in part.only]


def references(settings: EvaluateSettings) -> list[str]:
    """The models that the grids need."""
    return list(dict.fromkeys(name for part in settings.parts for name in (*part.followers, *_all_writers(part))))


def _all_writers(settings: EvaluateSettings) -> list[str]:
    methods = [settings.method(name) for name in settings.methods]
    writers = [writer for method in methods for f in settings.followers for writer in _writers(settings, method, f)]
    return [writer for writer in writers if writer]


def plan(settings: EvaluateSettings, tasks: Mapping[str, Task], cards: Mapping[str, ModelCard]) -> list[PlannedCell]:
    """Every cell once, grid by grid. In each grid, cells that write come first: writing is fastest in one batch.

    Raises `ConfigError` for a method that fits no task, and for grids that cannot be in one run.
    """
    jobs: dict[str, PlannedCell] = {}
    for part in settings.parts:
        part_tasks = [task for task in _selected(part, tasks) if is_nameless(task.name) == part.nameless]
        for job in _plan_part(part, part_tasks, cards):
            jobs.setdefault(job.key, job)
    _check_grids(jobs.values())
    return list(jobs.values())


def _check_grids(jobs: Iterable[PlannedCell]) -> None:
    """Raise `ConfigError` if a report could not show all cells, because grids measure the same with other settings.

    It shows the latest of equal cells, of a method at n = 0 and at others (`Run.superseded`), and of a task's rows.
    """
    first: dict[Any, tuple[Any, PlannedCell]] = {}
    for job in jobs:
        cell = job.cell
        for subject, value in ((cell, job.key), (cell.without_draw, cell.n == 0), (cell.task, job.settings.evaluate)):
            other_value, other = first.setdefault(subject, (value, job))
            if value != other_value:
                differing = [name for name in KEYED if getattr(job.settings, name) != getattr(other.settings, name)]
                raise ConfigError(
                    f"also: two grids measure {cell.name} with different settings ({', '.join(differing)}), so a "
                    "report could show only one of them. Run them one by one, each in a folder of its own (-o)."
                )


def _plan_part(settings: EvaluateSettings, tasks: Sequence[Task], cards: Mapping[str, ModelCard]) -> list[PlannedCell]:
    jobs: list[PlannedCell] = []
    methods = [settings.method(name) for name in settings.methods]
    for method in methods:
        method.check()
        suitable = [task for task in tasks if task.instruction or not method.needs_human]
        if not suitable:
            raise ConfigError(
                f"The method {method.name} needs a human-written instruction, but no task has one. "
                'Give it in a task file: {"instruction": "...", "data": [...]}.'
            )
        for follower in settings.followers:
            jobs += _jobs(settings, method, follower, suitable, cards)
    writes_nothing = {method.name for method in methods if method.written_by is WrittenBy.NOBODY}
    return sorted(jobs, key=lambda job: job.cell.method in writes_nothing)


def _jobs(
    settings: EvaluateSettings, method: Method, follower: str, tasks: Sequence[Task], cards: Mapping[str, ModelCard]
) -> Iterator[PlannedCell]:
    calibration: CalibrationKind = "none"
    if method.asks_follower:
        calibration = resolve_calibration(settings.calibration, settings.mode, cards[follower])
    draws = [(0, 0)]
    if not method.reads_all and (method.reads_examples or READS[calibration] is Reads.SUPPORT):
        draws = [(n, seed) for n in settings.n for seed in range(settings.seeds)]
    for task, (n, seed), writer in product(tasks, draws, _writers(settings, method, follower)):
        cell = Cell(
            task=task.name, method=method.name, n=n, seed=seed, generator=writer, follower=follower, mode=settings.mode
        )
        yield PlannedCell(_key(settings, method, cell, task, calibration, cards), cell, calibration, settings)


def _writers(settings: EvaluateSettings, method: Method, follower: str) -> Sequence[str | None]:
    """The models that write for the method, or a single `None` if nothing is written."""
    match method.written_by:
        case WrittenBy.NOBODY:
            return [None]
        case WrittenBy.GENERATOR:
            return settings.generators
        case WrittenBy.UNTRAINED:
            return settings.untrained or [follower]
        case WrittenBy.SEARCHER:
            return [settings.searcher or follower]


def _check_styles(settings: EvaluateSettings) -> None:
    for follower in settings.followers:
        if split_style(follower)[1]:
            raise ConfigError(f"{follower}: a style belongs to a generator; followers take that of the instruction.")
    for writer in _all_writers(settings):
        style_for(writer, settings.template)


def _key(
    settings: EvaluateSettings,
    method: Method,
    cell: Cell,
    task: Task,
    calibration: CalibrationKind,
    cards: Mapping[str, ModelCard],
) -> str:
    style = style_for(cell.generator, settings.template) if cell.generator else None
    parts: dict[str, Any] = {
        "cell": cell.model_dump(),
        "task": task.key,
        "human": task.instruction if method.needs_human else None,
        "models": [_behaviour(cards[reference]) for reference in (cell.generator, cell.follower) if reference],
        "templates": [template.key for template in (follower_frame(), *method.templates())],
        "style": style.key if style else None,
        "budget": settings.budget if cell.generator else None,
        "options": method.model_dump(),
        "calibration": calibration,
        "evaluate": settings.evaluate,
    }
    return content_key(parts)


def _behaviour(card: ModelCard) -> Any:
    """The model's part of the key: its revision, and for a served model the context length, which the server sets."""
    served = card.reference.startswith("openai:")
    return [card.revision, {"context_length": card.context_length}] if served else card.revision
