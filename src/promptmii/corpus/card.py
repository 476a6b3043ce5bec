"""Writes the dataset card of a corpus, with tables and figures. Uploads the corpus to the hub."""

from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from jinja2 import Template

from promptmii.corpus.overlap import LeakageReport, check_corpus
from promptmii.data.corpus_files import SPLITS, Split, corpus_splits, read_corpus, split_file
from promptmii.files import atomic_file, private_folder, write_text
from promptmii.markup import markdown_table
from promptmii.messages import counted
from promptmii.publish import upload
from promptmii.task import Task

FOLDER = "figures"
UPLOADED = ("README.md", "data/*.parquet", f"{FOLDER}/*.png")
LABEL_BINS = (2, 3, 5, 10, 20, 50)
LENGTH_BINS = (0, 50, 100, 200, 500, 1000, 2000)
FACTS = ["split", "group", "licence", "languages", "domain", "labels", "rows", "length"]
"""Columns of the table of tasks; `length` is the median characters per text."""
LISTED = 30
"""Maximum number of domains, languages and licences listed."""
FIGURES = {
    "labels": "Tasks by number of labels",
    "lengths": "Tasks by median text length",
    "domains": "Tasks by domain",
}


def write_card(folder: Path, leakage: LeakageReport | None = None) -> Path:
    """Write README.md and figures to a corpus folder. Raises `OutputError`, `ArtefactError` if it is not a corpus."""
    rows = [_facts(task, split) for split in corpus_splits(folder) for task in read_corpus(folder, split)]
    tasks: Any = pd.DataFrame(rows, columns=FACTS)
    report = leakage or check_corpus(folder)
    sizes, lengths = _binned(tasks["labels"], LABEL_BINS), _binned(tasks["length"], LENGTH_BINS)
    domains = tasks["domain"].value_counts()
    shared = {
        "repositories in both": report.repositories,
        "groups in both": report.groups,
        "texts in both": report.exact,
        "near-duplicate texts": report.near,
    }
    counts = {
        "Domains": domains,
        "Languages": tasks["languages"].explode().value_counts(),
        "Licences": tasks["licence"].value_counts(),
        "Label-set sizes": sizes,
        "Lengths (median characters)": lengths,
    }
    files = {split: split_file(folder, split) for split in SPLITS}
    source = resources.files("promptmii.corpus").joinpath("card.md").read_text("utf-8")
    text = Template(source, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).render(
        tasks=counted(len(tasks), "text-classification task"),
        files={split: file.relative_to(folder).as_posix() for split, file in files.items() if file.exists()},
        splits=_splits(tasks),
        counts={title: markdown_table(["", "tasks"], _first_rows(values)) for title, values in counts.items()},
        leakage=markdown_table(["", *report.exact], ([name, *pairs.values()] for name, pairs in shared.items())),
        folder=FOLDER,
        figures=FIGURES,
    )
    private_folder(folder / FOLDER)
    for name, values in {"labels": sizes, "lengths": lengths, "domains": domains.head(15)[::-1]}.items():
        _draw(folder / FOLDER / f"{name}.png", FIGURES[name], values)
    return write_text(folder / "README.md", text, force=True)


def push_corpus(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload data and card to `owner/name`, and return its address. Raises `EndpointError`, `ArtefactError`."""
    corpus_splits(folder)
    return upload(folder, repository, kind="dataset", patterns=UPLOADED, private=private, message="Corpus")


def _facts(task: Task, split: Split) -> tuple[Any, ...]:
    """The task's row in the table of tasks; the columns are `FACTS`."""
    source = task.source
    languages = [name for name in source.get("languages", "").split(", ") if name]
    lengths = [len(example.text) for example in task.rows]
    return (
        split,
        source.get("group", task.name),
        source.get("licence", "unstated"),
        languages or ["unstated"],
        source.get("domain") or "unstated",
        len(task.labels),
        len(lengths),
        median(lengths) if lengths else 0.0,
    )


def _binned(values: Any, edges: Sequence[int]) -> Any:
    names = [f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in pairwise(edges)]
    bins: Any = pd.cut(
        values.astype(float), [*edges, float("inf")], right=False, labels=[*names, f"{edges[-1]} and more"]
    )
    return bins.value_counts(sort=False)


def _splits(tasks: pd.DataFrame) -> str:
    header = ["split", "tasks", "groups", "rows", "labels (median, most)", "characters of a text (median)"]
    rows: list[list[Any]] = []
    for split, part in tasks.groupby("split", sort=False):
        labels = f"{part['labels'].median():g}, {part['labels'].max()}"
        rows.append(
            [split, len(part), part["group"].nunique(), part["rows"].sum(), labels, f"{part['length'].median():g}"]
        )
    return markdown_table(header, rows)


def _first_rows(counts: Any) -> list[tuple[Any, Any]]:
    others = [(f"{len(counts) - LISTED} others", "")] if len(counts) > LISTED else []
    return [*counts.head(LISTED).items(), *others]


def _draw(path: Path, title: str, counts: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    names = [str(name)[:40].replace("$", r"\$") for name in counts.index]
    (axes.barh if path.stem == "domains" else axes.bar)(names, counts.to_list())
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
