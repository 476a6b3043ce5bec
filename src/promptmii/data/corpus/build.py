"""A whole build: the stages one after the other, as far as they are wanted, then the proof."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from promptmii.data import load_task, suite_folder
from promptmii.data.corpus.card import write_card
from promptmii.data.corpus.format import corpus_reference, read_corpus
from promptmii.data.corpus.journal import Entry
from promptmii.data.corpus.leakage import LeakageReport, check_corpus
from promptmii.data.corpus.settings import CorpusSettings, absolute
from promptmii.data.corpus.stages import STAGES, Build, Fetcher, Stage, Told, unheard
from promptmii.data.corpus.workers import Cluster, Here
from promptmii.data.load import SUFFIXES, is_saved_dataset
from promptmii.errors import DataError
from promptmii.instruction import write_text
from promptmii.models.base import LanguageModel
from promptmii.records import locked
from promptmii.task import Task


@dataclass(frozen=True)
class Built:
    """What a build did."""

    folder: Path
    stages: dict[Stage, list[Entry]]
    """The lines of each stage that was run."""
    leakage: LeakageReport | None
    """Once the corpus is split."""


def build_corpus(
    settings: CorpusSettings,
    folder: Path,
    *,
    until: Stage = "split",
    retry: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    told: Told = unheard,
) -> Built:
    """Build a corpus, or go on with one. What is done is not done again, unless its settings changed.

    Raises `DataError` and `ConfigError` for what cannot be built, `EndpointError` where the hub is away, `OutputError` where the folder
    cannot be written. The same call goes on after each.
    """
    settings = absolute(settings)
    with locked(folder), ExitStack() as stack:
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        build = Build(folder, settings, retry=retry, told=told)

        @cache
        def model() -> LanguageModel | None:
            if settings.columns.model is None:
                return None
            loaded = settings.columns.endpoint.load(settings.columns.model)
            stack.callback(loaded.close)
            return loaded

        def fetcher() -> Fetcher:
            return Cluster(settings.fetch, settings.ray) if settings.ray else Here(settings.fetch, settings.workers)

        done: dict[Stage, list[Entry]] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            progress(f"Stage {stage}")
            match stage:
                case "list":
                    done[stage] = build.listed()
                case "fetch":
                    done[stage] = build.fetched(done["list"], fetcher)
                case "columns":
                    done[stage] = build.chosen(done["fetch"], model)
                case "clean":
                    done[stage] = build.cleaned(done["columns"])
                case "split":
                    done[stage] = build.split(done["clean"], evaluation_sets(settings.split.exclude_content))
        if until != "split":
            return Built(folder, done, None)
        progress("Checking for leaks, and writing the card")
        leakage = check_corpus(folder, settings.split.similarity)
        write_card(folder, leakage)
        return Built(folder, done, leakage)


def evaluation_sets(sources: Sequence[str]) -> dict[str, Task]:
    """Tasks that are for measuring, by name: files, folders, corpora (every split) and `suite`."""
    tasks: dict[str, Task] = {}
    for source in sources:
        corpus = corpus_reference(source)
        folder = suite_folder() if source == "suite" else Path(source)
        if corpus:
            tasks |= {task.name: task for task in read_corpus(*corpus)}
        elif folder.is_dir() and not is_saved_dataset(folder):
            files = [
                file
                for file in sorted(folder.iterdir())
                if file.name.removesuffix(".gz").endswith(SUFFIXES) and file.stem != "index"
            ]
            if not files:
                raise DataError(f"exclude_content names {source}, a folder without task files.")
            tasks |= {file.name.split(".")[0]: load_task(file).task for file in files}
        else:
            tasks[source] = load_task(source).task
    return tasks
