"""The card of a corpus: what is in it, in numbers and figures, as the README that the hub shows beside the data."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from promptmii.data.corpus.leakage import LeakageReport, check_corpus
from promptmii.data.corpus_files import SPLITS, Split, read_corpus, split_file
from promptmii.errors import DataError, MissingDependencyError
from promptmii.files import write_text
from promptmii.task import Task

FIGURES = "figures"


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


def _facts(task: Task, split: Split) -> Facts:
    source = task.source
    languages = tuple(part for part in source.get("languages", "").split(", ") if part)
    lengths = [len(example.text) for example in (*task.train, *task.test)]
    return Facts(
        split,
        source.get("group", task.name),
        source.get("licence", "unstated"),
        languages or ("unstated",),
        source.get("domain") or "unstated",
        len(task.labels),
        len(lengths),
        median(lengths) if lengths else 0.0,
    )


def write_card(folder: Path, leakage: LeakageReport | None = None) -> Path:
    """Write README.md and figures into a corpus folder. Raises `ArtefactError` where it is no corpus, `OutputError`."""
    facts: list[Facts] = []
    for split in SPLITS:
        try:
            facts += [_facts(task, split) for task in read_corpus(folder, split)]
        except DataError:  # a corpus of others may lack a split
            continue
    report = leakage or check_corpus(folder)
    drawn = _figures(folder / FIGURES, facts)
    text = "\n".join([*_front(folder, facts), *_overview(facts), *_tables(facts), *_leakage(report), *drawn]) + "\n"
    return write_text(folder / "README.md", text, force=True)


def _front(folder: Path, facts: Sequence[Facts]) -> list[str]:
    """The metadata that `datasets` and the hub read."""
    there: list[Split] = [split for split in SPLITS if split_file(folder, split).exists()]
    files = [
        f"  - split: {split}\n    path: {split_file(folder, split).relative_to(folder).as_posix()}" for split in there
    ]
    configs = ["configs:", "- config_name: default", "  data_files:", *files] if files else []
    return [
        "---",
        "task_categories:",
        "- text-classification",
        *configs,
        "---",
        "",
        f"# A corpus of {len(facts)} text-classification tasks",
        "",
    ]


def _overview(facts: Sequence[Facts]) -> list[str]:
    lines = [
        "| split | tasks | groups | rows | labels (median, most) | characters of a text (median) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for split in SPLITS:
        part = [fact for fact in facts if fact.split == split]
        if part:
            labels = [fact.labels for fact in part]
            groups = len({fact.group for fact in part})
            shape = f"{median(labels):g}, {max(labels)} | {median(fact.length for fact in part):g}"
            lines.append(f"| {split} | {len(part)} | {groups} | {sum(fact.rows for fact in part)} | {shape} |")
    return [*lines, "", "One row per task: name, where it comes from, labels, training and test rows.", ""]


def _tables(facts: Sequence[Facts]) -> list[str]:
    lines: list[str] = []
    for title, values in {
        "Domains": Counter(fact.domain for fact in facts),
        "Languages": Counter(language for fact in facts for language in fact.languages),
        "Licences": Counter(fact.licence for fact in facts),
        "Label-set sizes": _binned((fact.labels for fact in facts), (2, 3, 5, 10, 20, 50)),
        "Lengths (median characters)": _binned((fact.length for fact in facts), (0, 50, 100, 200, 500, 1000, 2000)),
    }.items():
        shown = values.most_common(30) if isinstance(values, Counter) else list(values.items())
        lines += [f"## {title}", "", "| | tasks |", "| --- | --- |"]
        lines += [f"| {name} | {count} |".replace("\n", " ") for name, count in shown]
        lines += [f"| {len(values) - len(shown)} others | |"] if len(values) > len(shown) else []
        lines.append("")
    return lines


def _binned(values: Iterable[float], edges: Sequence[int]) -> Mapping[str, int]:
    names = [f"{low} to {high - 1}" if high - low > 1 else str(low) for low, high in pairwise(edges)]
    names.append(f"{edges[-1]} and more")
    found = Counter(max((i for i, edge in enumerate(edges) if value >= edge), default=0) for value in values)
    return {name: found[i] for i, name in enumerate(names)}


def _leakage(report: LeakageReport) -> list[str]:
    lines = ["## Leakage", "", "| | " + " | ".join(report.exact) + " |", "| --- |" + " --- |" * len(report.exact)]
    rows = {
        "repositories in both": report.repositories,
        "groups in both": report.groups,
        "texts in both": report.exact,
        "texts nearly the same": report.near,
    }
    return [
        *lines,
        *(f"| {name} | {' | '.join(str(count) for count in counts.values())} |" for name, counts in rows.items()),
        "",
    ]


def _figures(folder: Path, facts: Sequence[Facts]) -> list[str]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("The figures of a card", "corpus") from error
    folder.mkdir(parents=True, exist_ok=True)

    def draw(name: str, title: str, plot: Callable[[Any], object]) -> str:
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Any = figure.add_subplot()
        plot(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, loc="left")
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
        return f"![{title}]({FIGURES}/{name}.png)\n"

    domains = Counter(fact.domain for fact in facts).most_common(15)[::-1]
    labels = _binned((fact.labels for fact in facts), (2, 3, 5, 10, 20, 50))
    lengths = _binned((fact.length for fact in facts), (0, 50, 100, 200, 500, 1000, 2000))
    return [
        "## Figures\n",
        draw("labels", "Tasks by number of labels", lambda axes: axes.bar(list(labels), list(labels.values()))),
        draw(
            "lengths",
            "Tasks by median characters of a text",
            lambda axes: axes.bar(list(lengths), list(lengths.values())),
        ),
        draw(
            "domains",
            "Tasks by domain",
            lambda axes: axes.barh([name[:40] for name, _ in domains], [count for _, count in domains]),
        ),
    ]
