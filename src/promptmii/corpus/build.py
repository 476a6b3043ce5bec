"""Runs the five stages of a build. A stage handles one dataset at a time, and journals each outcome at once."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from promptmii.corpus.card import write_card
from promptmii.corpus.clean import clean_task, find_columns
from promptmii.corpus.fetch import read_sample
from promptmii.corpus.hub import list_hub
from promptmii.corpus.journal import Entry, Journal, write_table
from promptmii.corpus.listing import Candidate, distinct, list_local
from promptmii.corpus.overlap import LeakageReport, check_corpus, sign_texts
from promptmii.corpus.settings import CorpusSettings
from promptmii.corpus.split import TaskName, TextRemover, assign
from promptmii.corpus.workers import fetch_here, fetch_on_ray
from promptmii.data.columns import ChosenColumns, with_fields
from promptmii.data.corpus_files import SPLITS, Split, Tasks, write_split, write_tasks
from promptmii.data.sources import read_tasks
from promptmii.data.table import Table
from promptmii.errors import DataError
from promptmii.files import locked, private_folder, remove_temporary, write_text
from promptmii.messages import counted
from promptmii.models.base import LanguageModel
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key

Stage = Literal["list", "fetch", "columns", "clean", "split"]
STAGES: tuple[Stage, ...] = get_args(Stage)
STEPS: Mapping[Stage, str] = {
    "list": "Listing the hub",
    "fetch": "Fetching",
    "columns": "Choosing columns",
    "clean": "Cleaning",
    "split": "Splitting",
}
EVALUATED: tuple[Split, ...] = ("validation", "heldout")
"""The splits that take a share of the tasks, named as their settings; training gets the rest."""
FILES: Mapping[Stage, tuple[str, str]] = {"fetch": ("raw", ".jsonl.gz"), "clean": ("tasks", ".parquet")}
"""Folder and suffix of the files that a stage writes, one per dataset."""
DETAILS: Mapping[Stage, tuple[str, ...]] = {
    "list": ("repository", "config", "revision", "licence", "languages"),
    "fetch": ("rows", "seen", "splits", "columns", "notes"),
    "columns": ("text", "label", "template", "notes"),
    "clean": ("labels", "train", "test", "dropped"),
    "split": ("split", "group", "labels", "train", "test"),
}
"""Columns of each stage's table after name, kept and reason."""
_OPTION = re.compile(r"--(text|label)\b")
"""An option of other commands, which messages on tables name. In a build, it is a setting of the table [columns]."""


@dataclass(frozen=True)
class Built:
    folder: Path
    stages: dict[Stage, list[Entry]]
    """The journal entries of each stage that ran."""
    leakage: LeakageReport | None
    """None if the corpus was not split."""


def build_corpus(
    settings: CorpusSettings, folder: Path, *, until: Stage = "split", retry: bool = False, progress: Progress = QUIET
) -> Built:
    """Build a corpus, or resume an unfinished build. Finished work is repeated only if its settings changed.

    Raises `DataError` (also if no task is left), `ConfigError`, `OutputError`, and `EndpointError` if the hub is down.
    """
    settings = settings.absolute()
    with locked(folder), closing(_Build(folder, settings, retry, progress)) as build:
        remove_temporary(folder)
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        entries: list[Entry] = []
        done: dict[Stage, list[Entry]] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            entries = build.run(stage, [entry for entry in entries if entry.kept])
            write_table(folder, stage, entries, DETAILS[stage])
            done[stage] = entries
        if until != "split":
            return Built(folder, done, None)
        if not any(entry.kept for entry in entries):
            raise DataError(f"No task is left in any split: {folder / 'split.csv'} says why.")
        progress.step("Checking for leaks and writing the card")
        leakage = check_corpus(folder, settings.split.similarity)
        write_card(folder, leakage)
        return Built(folder, done, leakage)


class _Build:
    def __init__(self, folder: Path, settings: CorpusSettings, retry: bool, progress: Progress) -> None:
        self._folder, self._settings, self._progress = folder, settings, progress
        # Read these first, so that an error in them comes before hours of work.
        self._evaluation = read_tasks(settings.split.exclude_content, splits=SPLITS)
        self._journals = {stage: Journal(folder, stage, retry=retry) for stage in STAGES}
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    def run(self, stage: Stage, entries: Sequence[Entry]) -> list[Entry]:
        """Run a stage on the datasets that the previous stage kept."""
        match stage:
            case "list":
                return self._list()
            case "fetch":
                return self._fetch(entries)
            case "columns":
                return self._each(stage, entries, self._choose_columns)
            case "clean":
                return self._each(stage, entries, self._make_task)
            case "split":
                return self._split(entries)

    def _list(self) -> list[Entry]:
        settings = self._settings.list
        if not settings.local and not settings.hub:
            raise DataError(
                "Nothing to list. Give --local FOLDER, --hub, or both (or `local` and `hub` in the table [list])."
            )
        return list(distinct([*list_local(settings), *(self._list_hub() if settings.hub else ())]))

    def _list_hub(self) -> list[Entry]:
        """List the hub. A resumed build uses the listing in the journal, and so the same datasets.

        Only what the journal lacks is listed: with `retry`, the named repositories that were not found.
        """
        journal, settings = self._journals["list"], self._settings.list
        key = content_key({"hub": settings.model_dump(mode="json", exclude={"local"})})
        listing = journal.get(key)
        keys: list[str] = listing.detail["keys"] if listing else []
        entries = [entry for known in keys if (entry := journal.get(known))]
        if listing and len(entries) == len(keys):
            return entries
        new = list(list_hub(settings, {entry.detail["repository"] for entry in entries}))
        self._progress.step(STEPS["list"], len(new), "datasets")
        for entry in new:
            self._report(journal.add(entry))
        entries += new
        journal.add(Entry(key=key, name="(hub)", kept=True, detail={"keys": [entry.key for entry in entries]}))
        return entries

    def _fetch(self, listed: Sequence[Entry]) -> list[Entry]:
        journal = self._journals["fetch"]
        candidates = [Candidate.model_validate(entry.detail) for entry in listed]
        keys = {candidate.name: self._key(candidate.key, "fetch") for candidate in candidates}
        jobs = [
            (candidate, self._path("fetch", keys[candidate.name]))
            for candidate in candidates
            if not self._finished("fetch", keys[candidate.name])
        ]
        if jobs:
            private_folder(self._folder / "raw")
            settings, ray = self._settings.fetch, self._settings.ray
            workers = min(self._settings.workers, len(jobs))
            self._progress.step(STEPS["fetch"], len(jobs), "datasets")
            with closing(fetch_on_ray(jobs, settings, ray) if ray else fetch_here(jobs, settings, workers)) as results:
                for entry in results:
                    self._report(journal.add(entry.model_copy(update={"key": keys[entry.name]})))
        return [entry for key in keys.values() if (entry := journal.get(key))]

    def _sample(self, key: str, name: str) -> Table:
        settings = self._settings.columns
        return with_fields(read_sample(self._path("fetch", key), name), settings.text, settings.label)

    def _choose_columns(self, entry: Entry, _key: str) -> dict[str, Any]:
        table, settings = self._sample(entry.key, entry.name), self._settings.columns
        columns = find_columns(table, self._model, text=settings.text, label=settings.label)
        return {
            "text": list(columns.text),
            "label": columns.label,
            "template": columns.template,
            "notes": [*columns.notes, *table.notes],
            "candidate": entry.detail["candidate"],
            "raw": entry.key,
        }

    @cached_property
    def _model(self) -> LanguageModel | None:
        settings = self._settings.columns
        if settings.model is None:
            return None
        model = settings.endpoint.load(settings.model)
        self._stack.callback(model.close)
        return model

    def _make_task(self, entry: Entry, key: str) -> dict[str, Any]:
        table = self._sample(entry.detail["raw"], entry.name)
        columns = ChosenColumns(tuple(entry.detail["text"]), entry.detail["template"], entry.detail["label"], ())
        candidate = Candidate.model_validate(entry.detail["candidate"])
        task, dropped = clean_task(table, columns, candidate, self._settings.clean)
        write_tasks(self._path("clean", key), [task])
        reasons = [f"{counted(count, 'row')}: {reason}" for reason, count in dropped.items()]
        return {"repository": task.source["repository"], **_sizes(task), "dropped": reasons}

    def _split(self, cleaned: Sequence[Entry]) -> list[Entry]:
        """Write the corpus, always from scratch, because a task's split depends on all other tasks."""
        if not cleaned:
            raise DataError(f"No task is left to split. The tables in {self._folder} say why.")
        self._progress.step(STEPS["split"], len(cleaned), "datasets")
        tasks = chain(map(self._task, cleaned), self._evaluation.values())
        texts = sign_texts(tasks, self._settings.split.similarity)
        names = [TaskName(entry.name, str(entry.detail["repository"])) for entry in cleaned]
        assignment = assign(names, list(self._evaluation), texts, self._settings.split)
        remove = TextRemover(len(cleaned), texts, assignment, self._settings.clean)
        sizes: dict[int, dict[str, int]] = {}

        def tasks_of(split: Split) -> Iterator[Task]:
            numbers = [number for number, assigned in assignment.split.items() if assigned == split]
            for number in numbers:
                task = remove(number, self._task(cleaned[number]))
                if task is not None:
                    sizes[number] = _sizes(task)
                    yield task

        for split in SPLITS:
            write_split(self._folder, split, tasks_of(split))
        for split in EVALUATED:
            share: float = getattr(self._settings.split, split)
            if share and assignment.split and split not in assignment.split.values():
                tasks = counted(len(assignment.split), "task")
                self._progress.note(
                    f"The split {split} is empty: its share is {share} of {tasks}, and groups of tasks stay together. "
                    f"Add datasets, or raise split.{split} in a TOML file."
                )
        entries: list[Entry] = []
        for number, entry in enumerate(cleaned):
            assigned = assignment.split.get(number)
            reason = assignment.dropped.get(number) or "; ".join(assignment.notes.get(number, ()))
            detail = {"split": assigned or "", "group": assignment.groups[number], **sizes.get(number, {})}
            kept = assigned is not None
            entries.append(Entry(key=entry.key, name=entry.name, kept=kept, reason=reason, detail=detail))
            self._report(entries[-1])
        return entries

    def _task(self, entry: Entry) -> Task:
        (task,) = Tasks([self._path("clean", entry.key)])
        return task

    def _each(
        self, stage: Stage, entries: Sequence[Entry], process: Callable[[Entry, str], dict[str, Any]]
    ) -> list[Entry]:
        """Process each dataset unless it is finished. A `DataError` drops it."""
        results: list[Entry] = []
        self._progress.step(STEPS[stage], len(entries), "datasets")
        for entry in entries:
            key = self._key(entry.key, stage)
            result = self._finished(stage, key)
            if result:
                self._progress.advance()
            else:
                try:
                    result = Entry(key=key, name=entry.name, kept=True, detail=process(entry, key))
                except DataError as error:
                    result = Entry(key=key, name=entry.name, kept=False, reason=_OPTION.sub(r"columns.\1", str(error)))
                self._report(self._journals[stage].add(result))
            results.append(result)
        return results

    def _report(self, entry: Entry) -> None:
        """Advance the progress, with a note if the dataset was dropped."""
        self._progress.advance()
        if not entry.kept:
            self._progress.note(f"{entry.name}: dropped, {entry.reason}")

    def _key(self, previous: str, stage: Stage) -> str:
        return content_key([previous, self._settings.key(stage)])

    def _path(self, stage: Stage, key: str) -> Path:
        """The file that a stage writes for a dataset: a sample, or a task."""
        folder, suffix = FILES[stage]
        return self._folder / folder / f"{key[:24]}{suffix}"

    def _finished(self, stage: Stage, key: str) -> Entry | None:
        """The journal entry of a dataset, or None if it has none or the file that the stage wrote is missing."""
        entry = self._journals[stage].get(key)
        if entry and entry.kept and stage in FILES and not self._path(stage, key).exists():
            return None
        return entry


def _sizes(task: Task) -> dict[str, int]:
    return {"labels": len(task.labels), "train": len(task.train), "test": len(task.test)}
