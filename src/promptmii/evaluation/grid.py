"""The cells of an evaluation, each under a key that hashes everything its result depends on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptmii.config import EvaluateSettings
from promptmii.data import load_task
from promptmii.data.nameless import nameless
from promptmii.data.sources import read_tasks
from promptmii.errors import ConfigError
from promptmii.follower import resolve_calibration
from promptmii.inducers import METHODS, Method, Written, method
from promptmii.instruction import CalibrationKind
from promptmii.models.base import ModelCard
from promptmii.prompts import META_SLOTS, Template, bundled, follower_frame, meta_prompt, read_template
from promptmii.records import Cell
from promptmii.task import Task, content_key

INDEPENDENT: tuple[CalibrationKind, ...] = ("none", "contextual", "batch")
"""Calibrations that read no support."""
SEARCH_TEMPLATES = (("ape_propose", META_SLOTS), ("ape_vary", ("instruction",)))


@dataclass(frozen=True)
class Job:
    """A cell, and what it takes to run it."""

    key: str
    cell: Cell
    calibration: CalibrationKind


def grid_tasks(settings: EvaluateSettings) -> dict[str, Task]:
    """The tasks by name, in order. Raises `DataError` for a path that is none, and for two tasks of one name."""
    columns = settings.columns
    load = partial(load_task, text=columns.text, label=columns.label, labels=columns.labels)
    tasks = read_tasks(settings.tasks, load=load).values()
    return {task.name: task for task in (map(nameless, tasks) if settings.nameless else tasks)}


def references(settings: EvaluateSettings) -> list[str]:
    """The models that the grid needs."""
    methods = [METHODS[name] for name in settings.methods if name in METHODS]
    writers = [
        writer for how in methods for follower in settings.followers for writer in _writers(settings, how, follower)
    ]
    return list(dict.fromkeys([*settings.followers, *filter(None, writers)]))


def plan(settings: EvaluateSettings, tasks: Mapping[str, Task], cards: Mapping[str, ModelCard]) -> list[Job]:
    """Every cell once, those that write first, because writing goes fastest in one batch.

    Raises `ConfigError` for an unknown method, or one that no task can be given to.
    """
    jobs: dict[str, Job] = {}
    for name in settings.methods:
        how = method(name)
        if name == "human" and not any(task.instruction for task in tasks.values()):
            raise ConfigError(
                'No task carries a human\'s instruction. Give it in a task file: {"instruction": "...", "data": [...]}.'
            )
        for follower in settings.followers:
            calibration = resolve_calibration(settings.calibration, settings.mode, cards[follower])
            for job in _jobs(settings, (name, how), follower, calibration, tasks, cards):
                jobs.setdefault(job.key, job)
    return sorted(jobs.values(), key=lambda job: METHODS[job.cell.method].written is Written.BY_NONE)


def _jobs(
    settings: EvaluateSettings,
    named: tuple[str, Method],
    follower: str,
    calibration: CalibrationKind,
    tasks: Mapping[str, Task],
    cards: Mapping[str, ModelCard],
) -> Iterator[Job]:
    name, how = named
    depends = how.reads_examples or calibration not in INDEPENDENT
    draws = [(n, seed) for n in settings.n for seed in range(settings.seeds)] if depends else [(0, 0)]
    for task in tasks.values():
        if name == "human" and not task.instruction:
            continue
        for n, seed in draws:
            for writer in _writers(settings, how, follower):
                cell = Cell(
                    task=task.name, method=name, n=n, seed=seed, generator=writer, follower=follower, mode=settings.mode
                )
                yield Job(_key(settings, cell, task, calibration, cards), cell, calibration)


def _writers(settings: EvaluateSettings, how: Method, follower: str) -> Sequence[str | None]:
    match how.written:
        case Written.BY_NONE:
            return [None]
        case Written.BY_GENERATOR:
            return settings.generators
        case Written.BY_UNTRAINED:
            return settings.untrained or [follower]
        case Written.BY_SEARCHER:
            return [settings.searcher or follower]


def meta_template(settings: EvaluateSettings) -> Template:
    """What generators are asked with."""
    return read_template(Path(settings.template), META_SLOTS) if settings.template else meta_prompt()


def _key(
    settings: EvaluateSettings, cell: Cell, task: Task, calibration: CalibrationKind, cards: Mapping[str, ModelCard]
) -> str:
    models = [_behaviour(cards[reference]) for reference in (cell.generator, cell.follower) if reference]
    templates = [follower_frame().key]
    if cell.generator:
        templates.append(meta_template(settings).key)
    if cell.method == "ape":
        templates += [bundled(*template).key for template in SEARCH_TEMPLATES]
    parts: dict[str, Any] = {
        "cell": cell.model_dump(),
        "task": task.key,
        "human": task.instruction if cell.method == "human" else None,
        "models": models,
        "templates": templates,
        "budget": settings.budget if cell.generator else None,
        "options": _relevant(settings, cell.method),
        "calibration": calibration,
        "evaluate": settings.evaluate,
    }
    return content_key(parts)


def _behaviour(card: ModelCard) -> Any:
    """What a result depends on of a model: the revision alone, unless the same weights may be used in several ways."""
    served = card.reference.startswith("openai:")
    return [card.revision, {"context_length": card.context_length}] if served else card.revision


def _relevant(settings: EvaluateSettings, name: str) -> dict[str, Any]:
    """The options of this method alone, so that changing another's keeps its results."""
    prefix = {"best-of-k": "best_of", "ape": "ape_", "gepa": "gepa_", "sft": "sft_"}.get(name)
    return {key: value for key, value in settings.options.model_dump().items() if prefix and key.startswith(prefix)}
