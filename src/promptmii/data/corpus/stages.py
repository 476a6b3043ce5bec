"""The five stages, each a loop over datasets whose every turn leaves a line in its journal before the next begins."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from promptmii.data.columns import Chosen
from promptmii.data.corpus.choosing import find_columns
from promptmii.data.corpus.guard import Answer
from promptmii.data.corpus.hub import list_hub
from promptmii.data.corpus.journal import Entry, Journal, write_table
from promptmii.data.corpus.listing import Candidate, check_sources, list_local
from promptmii.data.corpus.overlap import read_texts
from promptmii.data.corpus.raw import read_raw
from promptmii.data.corpus.settings import CorpusSettings
from promptmii.data.corpus.splitting import Scrubber, Verdicts, decide
from promptmii.data.corpus.tidying import tidy
from promptmii.data.corpus_files import SPLITS, Split, Tasks, write_split, write_tasks
from promptmii.errors import DataError
from promptmii.models.base import LanguageModel
from promptmii.progress import QUIET, Progress
from promptmii.task import Task, content_key

Stage = Literal["list", "fetch", "columns", "clean", "split"]
STAGES: tuple[Stage, ...] = get_args(Stage)
DETAILS: Mapping[Stage, tuple[str, ...]] = {
    "list": ("repository", "config", "revision", "licence", "languages"),
    "fetch": ("rows", "seen", "splits", "columns", "notes"),
    "columns": ("text", "label", "template", "notes"),
    "clean": ("labels", "train", "test", "dropped"),
    "split": ("split", "group", "labels", "train", "test"),
}
"""What the table of each stage shows beside name, verdict and reason."""


class Fetcher(Protocol):
    """Where datasets are fetched: `workers.Here` or `workers.Cluster`."""

    def fetch(self, jobs: Sequence[tuple[Candidate, Path]]) -> Iterator[tuple[Candidate, Answer]]:
        """Answers as they come. Raises `EndpointError` where the hub is away, `OutputError` where a disk is full."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Build:
    """A corpus folder, its settings, and what was found out so far."""

    def __init__(
        self, folder: Path, settings: CorpusSettings, *, retry: bool = False, progress: Progress = QUIET
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._progress = progress
        self._journals = {stage: Journal(folder, stage, retry=retry) for stage in STAGES}

    def listed(self) -> list[Entry]:
        """What there is. A listing of the hub is kept, so that a build that goes on builds what it began."""
        settings = self._settings.list
        check_sources(settings)
        journal, key = self._journals["list"], self._settings.key("list")
        entries = list(list_local(settings))
        pinned = journal.get(key)
        if pinned:
            entries += [entry for found in pinned.detail["keys"] if (entry := journal.get(found))]
        elif settings.hub:
            entries += (found := list(list_hub(settings)))
            self._progress.step("Listing the hub", len(found), "datasets")
            for entry in found:
                self._tell(journal.add(entry))
            journal.add(Entry(key=key, name="(hub)", kept=True, detail={"keys": [entry.key for entry in found]}))
        return self._table("list", entries)

    def fetched(self, listed: Sequence[Entry], fetcher: Callable[[], Fetcher]) -> list[Entry]:
        """A sample of each."""
        candidates = [Candidate.model_validate(entry.detail) for entry in listed if entry.kept]
        keys = {candidate.name: self._key(candidate.key, "fetch") for candidate in candidates}
        journal = self._journals["fetch"]
        jobs = [
            (c, self.raw_path(keys[c.name]))
            for c in candidates
            if not self._is_done(journal.get(keys[c.name]), self.raw_path(keys[c.name]))
        ]
        if jobs:
            jobs[0][1].parent.mkdir(parents=True, exist_ok=True)
            self._progress.step("Fetching", len(jobs), "datasets")
            with closing(fetcher()) as place:
                for candidate, answer in place.fetch(jobs):
                    detail = answer.detail | {"candidate": candidate.model_dump(mode="json")}
                    temporary = answer.kind == "unavailable" or bool(detail.pop("temporary", False))
                    entry = Entry(
                        key=keys[candidate.name],
                        name=candidate.name,
                        kept=answer.kind == "kept",
                        reason=answer.reason,
                        temporary=temporary,
                        detail=detail,
                    )
                    self._tell(journal.add(entry))
        return self._table("fetch", [journal.get(key) for key in keys.values()])

    def chosen(self, fetched: Sequence[Entry], model: Callable[[], LanguageModel | None]) -> list[Entry]:
        """Text and label columns of each."""

        def decide_columns(entry: Entry) -> dict[str, Any]:
            table, header = read_raw(self.raw_path(entry.key), entry.name)
            chosen = find_columns(table, model())
            return {
                "text": list(chosen.text),
                "label": chosen.label,
                "template": chosen.template,
                "notes": [*chosen.notes, *header.notes],
                "candidate": entry.detail["candidate"],
                "raw": entry.key,
            }

        return self._each("columns", fetched, decide_columns)

    def cleaned(self, chosen: Sequence[Entry]) -> list[Entry]:
        """A task of each."""

        def make_task(entry: Entry) -> dict[str, Any]:
            table, _ = read_raw(self.raw_path(entry.detail["raw"]), entry.name)
            columns = Chosen(tuple(entry.detail["text"]), entry.detail["template"], entry.detail["label"], ())
            tidied = tidy(table, columns, Candidate.model_validate(entry.detail["candidate"]), self._settings.clean)
            write_tasks(self.task_path(self._key(entry.key, "clean")), [tidied.task])
            sizes = {
                "repository": tidied.task.source["repository"],
                "labels": len(tidied.task.labels),
                "train": len(tidied.task.train),
                "test": len(tidied.task.test),
            }
            return sizes | {"dropped": [f"{count} rows: {reason}" for reason, count in tidied.dropped.items()]}

        return self._each("clean", chosen, make_task)

    def split(self, cleaned: Sequence[Entry], evaluation: Mapping[str, Task]) -> list[Entry]:
        """The corpus. Always made anew: a task's place depends on every other task."""
        good = [entry for entry in cleaned if entry.kept]
        if not good:
            raise DataError(f"No task is left to split. The tables in {self._folder} say why.")
        self._progress.step("Splitting", len(good), "datasets")
        texts = read_texts(chain(map(self._load, good), evaluation.values()), self._settings.split.similarity)
        names, repositories = [entry.name for entry in good], [str(entry.detail["repository"]) for entry in good]
        verdicts = decide(names, repositories, list(evaluation), texts, self._settings.split)
        scrub = Scrubber(len(good), texts, verdicts, self._settings.clean)
        sizes: dict[int, dict[str, int]] = {}

        def tasks_of(split: Split) -> Iterator[Task]:
            for number in [number for number, place in verdicts.split.items() if place == split]:
                task = scrub(number, self._load(good[number]))
                if task is not None:
                    sizes[number] = {"labels": len(task.labels), "train": len(task.train), "test": len(task.test)}
                    yield task

        for split in SPLITS:
            write_split(self._folder, split, tasks_of(split))
        entries = [_verdict(entry, number, verdicts, sizes.get(number, {})) for number, entry in enumerate(good)]
        for entry in entries:
            self._tell(entry)
        return self._table("split", entries)

    def _tell(self, entry: Entry) -> None:
        self._progress.advance()
        if not entry.kept:
            self._progress.note(entry.line)

    def _load(self, entry: Entry) -> Task:
        (task,) = Tasks([self.task_path(entry.key)])
        return task

    def raw_path(self, key: str) -> Path:
        """Where the sample of a dataset lies."""
        return self._folder / "raw" / f"{key[:24]}.jsonl.gz"

    def task_path(self, key: str) -> Path:
        """Where the task of a dataset lies."""
        return self._folder / "tasks" / f"{key[:24]}.parquet"

    def _each(self, stage: Stage, before: Sequence[Entry], act: Callable[[Entry], dict[str, Any]]) -> list[Entry]:
        journal = self._journals[stage]
        kept = [entry for entry in before if entry.kept]
        entries: list[Entry] = []
        self._progress.step("Finding columns" if stage == "columns" else "Cleaning", len(kept), "datasets")
        for entry in kept:
            key = self._key(entry.key, stage)
            known = journal.get(key)
            if known is None or (stage == "clean" and known.kept and not self.task_path(key).exists()):
                try:
                    known = Entry(key=key, name=entry.name, kept=True, detail=act(entry))
                except DataError as error:
                    known = Entry(key=key, name=entry.name, kept=False, reason=str(error))
                self._tell(journal.add(known))
            else:
                self._progress.advance()
            entries.append(known)
        return self._table(stage, entries)

    def _key(self, before: str, stage: Stage) -> str:
        return content_key([before, self._settings.key(stage)])

    def _is_done(self, entry: Entry | None, path: Path) -> bool:
        return entry is not None and (not entry.kept or path.exists())

    def _table(self, stage: Stage, entries: Iterable[Entry | None]) -> list[Entry]:
        there = [entry for entry in entries if entry is not None]
        write_table(self._folder, stage, there, DETAILS[stage])
        return there


def _verdict(entry: Entry, number: int, verdicts: Verdicts, sizes: Mapping[str, int]) -> Entry:
    place = {"split": verdicts.split.get(number, ""), "group": verdicts.groups[number]}
    reason = verdicts.dropped.get(number) or "; ".join(verdicts.notes.get(number, ()))
    return Entry(
        key=entry.key, name=entry.name, kept=number in verdicts.split, reason=reason, detail=place | dict(sizes)
    )
