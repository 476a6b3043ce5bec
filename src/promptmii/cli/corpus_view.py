"""What a user sees of a corpus: its stages, and what its splits have in common."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from promptmii.cli.terminal import dump, out, table, warn

if TYPE_CHECKING:
    from promptmii.corpus.build import Built
    from promptmii.corpus.leakage import LeakageReport


def corpus_built(built: "Built", *, as_json: bool) -> None:
    """What each stage kept and dropped, the most common reasons, and what the splits have in common."""
    reasons = {
        stage: {entry.name: entry.reason for entry in entries if not entry.kept}
        for stage, entries in built.stages.items()
    }
    kept = {stage: len(entries) - len(reasons[stage]) for stage, entries in built.stages.items()}
    if as_json:
        stages = {stage: {"kept": kept[stage], "dropped": dropped} for stage, dropped in reasons.items()}
        report = _as_json(built.leakage) if built.leakage else None
        dump({"folder": str(built.folder), "stages": stages, "leakage": report})
        return
    grid = table(f"Corpus {built.folder}", "stage", "kept", "dropped")
    grid.add_column("most common reasons")
    for stage, dropped in reasons.items():
        common = "\n".join(f"{n} x {reason[:100]}" for reason, n in Counter(dropped.values()).most_common(3))
        grid.add_row(stage, str(kept[stage]), str(len(dropped)), common)
    out.print(grid)
    out.write_line(f"Every dataset and its verdict: {built.folder}/{{{','.join(built.stages)}}}.csv")
    if any(entry.temporary for entries in built.stages.values() for entry in entries):
        out.write_line("Some were gated, gone, too slow or too large; --retry tries them again.")
    if built.leakage:
        leakage(built.leakage, as_json=False)
        out.write_line(f"Read {built.folder / 'README.md'}. Use it with: promptmii evaluate --tasks {built.folder}")
    else:
        out.write_line(f"Stopped after the stage {list(built.stages)[-1]}; the same command without --stage goes on.")


def leakage(report: "LeakageReport", *, as_json: bool) -> None:
    """What the splits have in common."""
    if as_json:
        dump(_as_json(report))
        return
    counts = ", ".join(f"{report.tasks[split]} {split} ({report.texts[split]} texts)" for split in report.tasks)
    out.write_line(f"Tasks: {counts}.")
    grid = table("In common", "splits", "repositories", "groups", "texts", "near-duplicate texts")
    for pair in report.exact:
        columns = (report.repositories, report.groups, report.exact, report.near)
        grid.add_row(pair, *(str(counts[pair]) for counts in columns))
    out.print(grid)
    for leak in report.leaks[:20]:
        places = f"{leak.first} ({leak.splits[0]}), {leak.second} ({leak.splits[1]})"
        warn(f"{leak.texts} texts: {places}", word="Leak:")
    for name in report.repeated_names:
        warn(f"two tasks are named {name}", word="Leak:")
    verdict = "No text of one split is in another." if report.clean else "The splits overlap."
    out.write_line(verdict, "" if report.clean else "red")


def _as_json(report: "LeakageReport") -> Mapping[str, Any]:
    return {"clean": report.clean, **asdict(report)}
