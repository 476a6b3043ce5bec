"""Settings of a corpus build, one table per stage. docs/corpus.md says what they do to the paper's corpus."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from promptmii.config import Endpoint, RayOptions
from promptmii.schema import Settings
from promptmii.task import content_key


class ListSettings(Settings):
    """Which datasets are looked at."""

    local: tuple[str, ...] = ()
    """Folders of data: plain files (with `index.csv` beside them, where there is one), and folders that are datasets themselves."""
    hub: bool = False
    """List the hub (`HF_ENDPOINT`, with `HF_TOKEN` where it is set)."""
    tags: tuple[str, ...] = ("task_categories:text-classification",)
    """Tags that a hub dataset must have, every one."""
    languages: tuple[str, ...] = ()
    """Languages (`en`, `de`, ...) of which one must be among a dataset's; those that name none are dropped then."""
    licences: tuple[str, ...] = ()
    """Licences (`mit`, `cc-by-4.0`, ...) of which one must be the dataset's; those that name none are dropped then."""
    sizes: tuple[str, ...] = ()
    """Size categories of the hub (`1K<n<10K`, ...) of which one must be the dataset's."""
    search: str | None = None
    author: str | None = None
    most: int | None = Field(default=None, ge=1)
    """Hub repositories to list, the most downloaded first."""


class FetchSettings(Settings):
    """What is taken of each configuration, and what it may cost."""

    rows: int = Field(default=1500, ge=20)
    """Rows sampled of each split, over the whole of it."""
    scan_rows: int = Field(default=200_000, ge=100)
    """Rows looked at, of each split. Larger files are read in parts that are spread evenly over them."""
    scan_mib: int = Field(default=256, ge=1)
    """The same in MiB, for files whose rows nobody has counted."""
    seconds: float = Field(default=300, gt=0)
    """Time of one configuration, waiting for rate limits aside."""
    memory_mib: int = Field(default=2048, ge=256)
    """Memory of the process that reads; one that needs more is stopped, and the dataset with it."""
    patience: float = Field(default=300, ge=0)
    """Seconds to wait for a hub that is down, before the run stops (it goes on where it stopped)."""


class ColumnSettings(Settings):
    """How text and label columns are found."""

    model: str | None = None
    """Model that is asked where names, schema and values do not settle it; without one such datasets are dropped."""
    endpoint: Endpoint = Endpoint()


class CleanSettings(Settings):
    """Which rows and label sets are worth keeping."""

    most_chars: int = Field(default=8000, ge=100)
    """Longer texts are dropped."""
    least_labels: int = Field(default=2, ge=2)
    most_labels: int = Field(default=150, ge=2)
    per_label: int = Field(default=2, ge=1)
    """Rows of labels with fewer are dropped."""
    train_rows: int = Field(default=1000, ge=2)
    test_rows: int = Field(default=200, ge=1)
    least_train: int = Field(default=20, ge=2)
    least_test: int = Field(default=10, ge=1)
    languages: tuple[str, ...] = ()
    """Languages of which one must be that of the texts, as far as their letters tell (see docs/corpus.md)."""
    quality: bool = True
    """Drop broken encodings and texts that are nearly all one character."""
    personal: Literal["keep", "mask", "drop"] = "keep"
    """E-mail addresses, telephone, card and account numbers, IP addresses: what to do with them, or with the texts that hold them."""


class SplitSettings(Settings):
    """How tasks are put apart."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the tasks, in whole groups."""
    heldout: float = Field(default=0.1, ge=0, lt=1)
    heldout_tasks: tuple[str, ...] = ()
    """Tasks or repositories to hold out, each with its group; then `heldout` is not used."""
    exclude: tuple[str, ...] = ()
    """Names of evaluation sets (tasks or repositories): they and their mirrors come into no split."""
    exclude_content: tuple[str, ...] = ()
    """Evaluation sets themselves (task files, folders, corpora, `suite`): what shares texts with them comes into no split."""
    per_repository: int = Field(default=10, ge=1)
    """Configurations of one repository, at most."""
    similarity: float = Field(default=0.7, gt=0, le=1)
    """Texts whose sets of five-character pieces overlap by this much (Jaccard) count as one."""
    shared: float = Field(default=0.05, gt=0, le=1)
    """Tasks of which this share of the smaller one's texts is in the other belong to one group ..."""
    shared_rows: int = Field(default=5, ge=1)
    """... and so do those that have this many texts of 30 characters or more in common."""
    seed: int = 0


class CorpusSettings(Settings):
    """A whole build."""

    list: ListSettings = ListSettings()
    fetch: FetchSettings = FetchSettings()
    columns: ColumnSettings = ColumnSettings()
    clean: CleanSettings = CleanSettings()
    split: SplitSettings = SplitSettings()
    workers: int = Field(default=1, ge=1)
    """Processes that fetch. A run that is killed repeats at most one dataset for each."""
    ray: RayOptions | None = None

    def key(self, *stages: str) -> str:
        """Content hash of the settings of these stages, without what changes no result."""
        chosen: dict[str, Any] = {stage: getattr(self, stage).model_dump(mode="json") for stage in stages}
        for unrelated in ("seconds", "memory_mib", "patience"):
            chosen.get("fetch", {}).pop(unrelated, None)
        chosen.get("columns", {}).pop("endpoint", None)
        return content_key(chosen)


def absolute(settings: CorpusSettings) -> CorpusSettings:
    """The same settings with local folders that do not depend on where they are used, for workers elsewhere."""
    local = tuple(str(Path(folder).absolute()) for folder in settings.list.local)
    return settings.model_copy(update={"list": settings.list.model_copy(update={"local": local})})
