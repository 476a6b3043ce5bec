"""A whole build: the stages one after the other, as far as they are wanted, then the proof."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from promptmii.data.corpus.card import write_card
from promptmii.data.corpus.journal import Entry
from promptmii.data.corpus.leakage import LeakageReport, check_corpus
from promptmii.data.corpus.settings import CorpusSettings, absolute
from promptmii.data.corpus.stages import STAGES, Build, Fetcher, Stage
from promptmii.data.corpus.workers import Cluster, Here
from promptmii.data.corpus_files import SPLITS
from promptmii.data.sources import read_tasks
from promptmii.files import locked, write_text
from promptmii.models.base import LanguageModel
from promptmii.progress import QUIET, Progress


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
    progress: Progress = QUIET,
) -> Built:
    """Build a corpus, or go on with one. What is done is not done again, unless its settings changed.

    Raises `DataError` and `ConfigError` for what cannot be built, `EndpointError` where the hub is away, `OutputError` where the folder
    cannot be written. The same call goes on after each.
    """
    settings = absolute(settings)
    with locked(folder), ExitStack() as stack:
        write_text(folder / "config.json", settings.model_dump_json(indent=2) + "\n", force=True)
        build = Build(folder, settings, retry=retry, progress=progress)

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
                    done[stage] = build.split(done["clean"], read_tasks(settings.split.exclude_content, splits=SPLITS))
        if until != "split":
            return Built(folder, done, None)
        progress.step("Checking for leaks, and writing the card")
        leakage = check_corpus(folder, settings.split.similarity)
        write_card(folder, leakage)
        return Built(folder, done, leakage)
