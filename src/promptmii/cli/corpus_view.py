"""What a user sees of a corpus: its stages, its tables, its proof."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from promptmii.cli.terminal import dump
from promptmii.data.corpus.build import Built
from promptmii.data.corpus.journal import Entry
from promptmii.data.corpus.leakage import LeakageReport
from promptmii.display import out


def corpus_built(built: Built, *, as_json: bool) -> None:
    """What each stage kept and dropped, the commonest reasons, the splits, and whether they are apart."""
    if as_json:
        dump(
            {
                "folder": str(built.folder),
                "stages": {stage: _verdicts(entries) for stage, entries in built.stages.items()},
                "leakage": _leakage_json(built.leakage) if built.leakage else None,
            }
        )
        return
    table = Table(title=f"Corpus {built.folder}", title_justify="left")
    table.add_column("stage")
    for name in ("kept", "dropped"):
        table.add_column(name, justify="right")
    table.add_column("reasons, the commonest first")
    for stage, entries in built.stages.items():
        dropped = [entry.reason for entry in entries if not entry.kept]
        reasons = "\n".join(f"{count} x {reason[:100]}" for reason, count in Counter(dropped).most_common(3))
        table.add_row(stage, str(len(entries) - len(dropped)), str(len(dropped)), escape(reasons))
    out.print(table)
    last = list(built.stages)[-1]
    out.print(f"Every dataset, with what became of it: {escape(str(built.folder))}/{{{','.join(built.stages)}}}.csv")
    if any(entry.temporary for entries in built.stages.values() for entry in entries):
        out.print("Some were gated, gone, too slow or too large; --retry tries them again.")
    if built.leakage:
        leakage(built.leakage, as_json=False)
        out.print(
            f"Read {escape(str(built.folder / 'README.md'))}. Use it with: promptmii evaluate --tasks {escape(str(built.folder))}"
        )
    else:
        out.print(f"Stopped after the stage {last}; the same command without --stage goes on.")


def _verdicts(entries: Sequence[Entry]) -> dict[str, Any]:
    dropped = {entry.name: entry.reason for entry in entries if not entry.kept}
    return {"kept": len(entries) - len(dropped), "dropped": dropped}


def leakage(report: LeakageReport, *, as_json: bool) -> None:
    """What splits have in common."""
    if as_json:
        dump(_leakage_json(report))
        return
    counts = ", ".join(f"{report.tasks[split]} {split} ({report.texts[split]} texts)" for split in report.tasks)
    out.print(f"Tasks: {counts}.")
    table = Table(title="In both", title_justify="left")
    table.add_column("splits")
    for name in ("repositories", "groups", "texts", "texts nearly the same"):
        table.add_column(name, justify="right")
    for pair in report.exact:
        table.add_row(
            pair, *(str(found[pair]) for found in (report.repositories, report.groups, report.exact, report.near))
        )
    out.print(table)
    for leak in report.leaks[:20]:
        out.print(
            f"[red]leak[/] {leak.texts} texts: {escape(leak.first)} ({leak.splits[0]}), {escape(leak.second)} ({leak.splits[1]})"
        )
    for name in report.twice:
        out.print(f"[red]leak[/] two tasks have the name {escape(name)}")
    out.print("No text of one split is in another." if report.clean else "[red]The splits are not apart.[/]")


def _leakage_json(report: LeakageReport) -> dict[str, Any]:
    return {
        "clean": report.clean,
        **{name: dict(value) for name, value in vars(report).items() if isinstance(value, Mapping)},
    } | {
        "leaks": [vars(leak) for leak in report.leaks],
        "twice": report.twice,
    }
