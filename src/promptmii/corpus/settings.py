"""Settings of a corpus build, one table per stage. docs/corpus.md explains the stages."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from promptmii.config import Endpoint, RayOptions
from promptmii.schema import Settings
from promptmii.task import content_key


class ListSettings(Settings):
    """Datasets to consider."""

    local: tuple[str, ...] = ()
    """Folders with data files (and an optional `index.csv`) or dataset folders."""
    hub: bool = False
    """List the hub (`HF_ENDPOINT`, with `HF_TOKEN` if set)."""
    repositories: tuple[str, ...] = ()
    """Hub repositories to list, instead of all with these tags: `owner/name[:configuration][@commit]`."""
    tags: tuple[str, ...] = ("task_categories:text-classification",)
    """Tags required of hub datasets; all must match."""
    languages: tuple[str, ...] = ()
    """Keep datasets that declare one of these languages (`en`, `de`, ...)."""
    licences: tuple[str, ...] = ()
    """Keep datasets that declare one of these licences (`mit`, `cc-by-4.0`, ...), or several of them and no other."""
    sizes: tuple[str, ...] = ()
    """Keep hub datasets of one of these size categories (`1K<n<10K`, ...)."""
    search: str | None = None
    author: str | None = None
    most: int | None = Field(default=None, ge=1)
    """Maximum hub repositories, most downloaded first."""


class FetchSettings(Settings):
    """Sample size per configuration, and limits on reading."""

    rows: int = Field(default=1500, ge=20)
    """Rows sampled from each split."""
    where: dict[str, str] = Field(default_factory=dict[str, str])
    """Keep only rows with these values, by column: for example, text pairs with the label `entailment`."""
    scan_rows: int = Field(default=200_000, ge=100)
    """Rows read per split. Larger files are read in evenly spread parts."""
    scan_mib: int = Field(default=256, ge=1)
    """MiB read per split, for formats that do not state their number of rows."""
    seconds: float = Field(default=300, gt=0)
    """Time limit per configuration, not counting waits for rate limits."""
    memory_mib: int = Field(default=2048, ge=256)
    """Memory limit of each reading process; on Linux only, unless Ray runs them."""
    patience: float = Field(default=300, ge=0)
    """Seconds to wait for a hub that is down, before the build stops. The same command resumes it."""


class ColumnSettings(Settings):
    """Choice of text and label columns."""

    text: str | None = None
    """The text column of every dataset, if known."""
    label: str | None = None
    """The label column of every dataset, if known."""
    model: str | None = None
    """Model to ask if names, schema and values do not decide. Without one, such datasets are dropped."""
    endpoint: Endpoint = Endpoint()


class CleanSettings(Settings):
    """Filters on rows and label sets."""

    most_chars: int = Field(default=8000, ge=100)
    least_labels: int = Field(default=2, ge=2)
    most_labels: int = Field(default=150, ge=2)
    per_label: int = Field(default=2, ge=1)
    """Labels with fewer rows are dropped."""
    train_rows: int = Field(default=1000, ge=2)
    test_rows: int = Field(default=200, ge=1)
    least_train: int = Field(default=20, ge=2)
    least_test: int = Field(default=10, ge=1)
    languages: tuple[str, ...] = ()
    """Drop texts that are clearly in none of these languages."""
    quality: bool = True
    """Drop texts with broken encoding, or that are nearly all one character."""
    personal: Literal["keep", "mask", "drop"] = "keep"
    """What to do with e-mail and IP addresses, phone, card and account numbers."""


class SplitSettings(Settings):
    """Assignment of tasks to splits."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the tasks, in whole groups; at least one task if two are not held out, unless the share is 0."""
    heldout: float = Field(default=0.1, ge=0, lt=1)
    heldout_tasks: tuple[str, ...] = ()
    """Tasks or repositories to hold out, each with its group. Replaces `heldout`."""
    exclude: tuple[str, ...] = ()
    """Names of evaluation sets (tasks or repositories) to leave out, with their copies."""
    exclude_content: tuple[str, ...] = ()
    """Evaluation sets (task files, folders, corpora, `suite`) whose texts are left out, with their copies."""
    per_repository: int = Field(default=10, ge=1)
    """Maximum configurations per repository."""
    similarity: float = Field(default=0.7, gt=0, le=1)
    """Minimum Jaccard similarity of five-character shingles for two texts to count as one."""
    shared: float = Field(default=0.05, gt=0, le=1)
    """Tasks that share this fraction of the smaller task's texts form a group ..."""
    shared_rows: int = Field(default=5, ge=1)
    """... and so do tasks that share this many texts of 30 characters or more."""
    seed: int = 0


class CorpusSettings(Settings):
    """All settings of a build."""

    list: ListSettings = ListSettings()
    fetch: FetchSettings = FetchSettings()
    columns: ColumnSettings = ColumnSettings()
    clean: CleanSettings = CleanSettings()
    split: SplitSettings = SplitSettings()
    workers: int = Field(default=1, ge=1)
    """Number of fetching processes."""
    ray: RayOptions | None = None

    def key(self, stage: str) -> str:
        """Content hash of a stage's settings, without those that do not affect results."""
        values: dict[str, Any] = getattr(self, stage).model_dump(mode="json")
        for irrelevant in ("seconds", "memory_mib", "patience", "endpoint"):
            values.pop(irrelevant, None)
        return content_key({stage: values})

    def absolute(self) -> "CorpusSettings":
        """The same settings with absolute local folders, for workers that run elsewhere."""
        local = tuple(str(Path(folder).absolute()) for folder in self.list.local)
        return self.model_copy(update={"list": self.list.model_copy(update={"local": local})})
