"""The card of a corpus, which the hub shows beside the data: its contents in numbers and figures. And the upload to the
hub.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from promptmii.corpus.leakage import LeakageReport, check_corpus
from promptmii.data.corpus_files import SPLITS, Split, corpus_splits, read_corpus, split_file
from promptmii.files import write_text
from promptmii.models.push import upload
from promptmii.task import Task

FIGURES = "figures"
UPLOADED = ("README.md", "data/*.parquet", f"{FIGURES}/*.png")
LABEL_BINS = (2, 3, 5, 10, 20, 50)
LENGTH_BINS = (0, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Facts:
    """What the card says of one task."""

    split: Split
    group: str
    licence: str
    languages: tuple[str, ...]
    domain: str
    labels: int
    rows: int
    length: float
    """Median characters of a text."""

    @classmethod
    def of(cls, task: Task, split: Split) -> "Facts":
        """Those of one task."""
        lengths = [len(example.text) for example in (*task.train, *task.test)]
        return cls(
            split,
            task.source.get("group", task.name),
            task.source.get("licence", "unstated"),
            tuple(filter(None, task.source.get("languages", "").split(", "))) or ("unstated",),
            task.source.get("domain") or "unstated",
            len(task.labels),
            len(lengths),
            median(lengths) if lengths else 0.0,
        )


def write_card(folder: Path, leakage: LeakageReport | None = None) -> Path:
    """Write README.md and figures into a corpus folder. Raises `ArtefactError` if it is no corpus, `OutputError`."""
    facts = [Facts.of(task, split) for split in corpus_splits(folder) for task in read_corpus(folder, split)]
    report = leakage or check_corpus(folder)
    parts = (_front(folder, facts), _overview(facts), _tables(facts), _leakage(report), _figures(folder, facts))
    return write_text(folder / "README.md", "\n".join(line for part in parts for line in part) + "\n", force=True)


def push_corpus(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload data and card to `owner/name`; returns its address. Raises `EndpointError`, `ArtefactError`."""
    corpus_splits(folder)
    return upload(folder, repository, kind="dataset", patterns=UPLOADED, private=private, message="Corpus")


def _front(folder: Path, facts: Sequence[Facts]) -> list[str]:
    """The metadata that `datasets` and the hub read."""
    files = {split: split_file(folder, split) for split in SPLITS}
    lines = [
        f"  - split: {split}\n    path: {path.relative_to(folder).as_posix()}"
        for split, path in files.items()
        if path.exists()
    ]
    configs = ["configs:", "- config_name: default", "  data_files:", *lines] if lines else []
    title = f"# A corpus of {len(facts)} text-classification tasks"
    return ["---", "task_categories:", "- text-classification", *configs, "---", "", title, ""]


def _overview(facts: Sequence[Facts]) -> list[str]:
    rows: list[list[object]] = []
    for split in SPLITS:
        part = [fact for fact in facts if fact.split == split]
        if part:
            labels = [fact.labels for fact in part]
            groups, texts = len({fact.group for fact in part}), sum(fact.rows for fact in part)
            length = f"{median(fact.length for fact in part):g}"
            rows.append([split, len(part), groups, texts, f"{median(labels):g}, {max(labels)}", length])
    header = ["split", "tasks", "groups", "rows", "labels (median, most)", "characters of a text (median)"]
    return [*_table(header, rows), "One row per task: name, origin, labels, training and test rows.", ""]


def _tables(facts: Sequence[Facts]) -> list[str]:
    lines: list[str] = []
    for title, counts in {
        "Domains": Counter(fact.domain for fact in facts),
        "Languages": Counter(language for fact in facts for language in fact.languages),
        "Licences": Counter(fact.licence for fact in facts),
        "Label-set sizes": _binned((fact.labels for fact in facts), LABEL_BINS),
        "Lengths (median characters)": _binned((fact.length for fact in facts), LENGTH_BINS),
    }.items():
        shown: list[tuple[str, object]] = [*(counts.most_common(30) if isinstance(counts, Counter) else counts.items())]
        shown += [(f"{len(counts) - len(shown)} others", "")] if len(counts) > len(shown) else []
        lines += [f"## {title}", "", *_table(["", "tasks"], shown)]
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [" | ".join(["", *(" ".join(str(cell).split()) for cell in row), ""]).strip() for row in (header, *rows)]
    return [lines[0], "| --- " * len(header) + "|", *lines[1:], ""]


def _binned(values: Iterable[float], edges: Sequence[int]) -> Mapping[str, int]:
    names = [f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in pairwise(edges)]
    names.append(f"{edges[-1]} and more")
    counts = Counter(max((i for i, edge in enumerate(edges) if value >= edge), default=0) for value in values)
    return {name: counts[i] for i, name in enumerate(names)}


def _leakage(report: LeakageReport) -> list[str]:
    rows = {
        "repositories in both": report.repositories,
        "groups in both": report.groups,
        "texts in both": report.exact,
        "near-duplicate texts": report.near,
    }
    table = _table(["", *report.exact], [[name, *counts.values()] for name, counts in rows.items()])
    return ["## Leakage", "", *table]


def _figures(corpus: Path, facts: Sequence[Facts]) -> list[str]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (corpus / FIGURES).mkdir(parents=True, exist_ok=True)

    def draw(name: str, title: str, plot: Callable[[Any], object]) -> str:
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Any = figure.add_subplot()
        plot(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, loc="left")
        figure.savefig(corpus / FIGURES / f"{name}.png", dpi=120, metadata={"Software": None})
        return f"![{title}]({FIGURES}/{name}.png)\n"

    def bars(counts: Mapping[str, int]) -> Callable[[Any], object]:
        return lambda axes: axes.bar(list(counts), list(counts.values()))

    domains = Counter(fact.domain for fact in facts).most_common(15)[::-1]
    names, counts = [name[:40].replace("$", r"\$") for name, _ in domains], [count for _, count in domains]
    return [
        "## Figures\n",
        draw("labels", "Tasks by number of labels", bars(_binned((fact.labels for fact in facts), LABEL_BINS))),
        draw("lengths", "Tasks by median text length", bars(_binned((fact.length for fact in facts), LENGTH_BINS))),
        draw("domains", "Tasks by domain", lambda axes: axes.barh(names, counts)),
    ]
