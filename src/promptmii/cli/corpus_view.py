"""What a user sees of a corpus: its stages, its tables, its proof."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptmii.cli.terminal import dump, out, table, warn

if TYPE_CHECKING:
    from promptmii.data.corpus.build import Built
    from promptmii.data.corpus.journal import Entry
    from promptmii.data.corpus.leakage import LeakageReport


def corpus_built(built: "Built", *, as_json: bool) -> None:
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
    grid = table(f"Corpus {built.folder}", "stage", "kept", "dropped")
    grid.add_column("reasons, the commonest first")
    for stage, entries in built.stages.items():
        dropped = [entry.reason for entry in entries if not entry.kept]
        reasons = "\n".join(f"{count} x {reason[:100]}" for reason, count in Counter(dropped).most_common(3))
        grid.add_row(stage, str(len(entries) - len(dropped)), str(len(dropped)), reasons)
    out.print(grid)
    last = list(built.stages)[-1]
    out.write_line(f"Every dataset, with what became of it: {built.folder}/{{{','.join(built.stages)}}}.csv")
    if any(entry.temporary for entries in built.stages.values() for entry in entries):
        out.write_line("Some were gated, gone, too slow or too large; --retry tries them again.")
    if built.leakage:
        leakage(built.leakage, as_json=False)
        out.write_line(f"Read {built.folder / 'README.md'}. Use it with: promptmii evaluate --tasks {built.folder}")
    else:
        out.write_line(f"Stopped after the stage {last}; the same command without --stage goes on.")


def _verdicts(entries: Sequence["Entry"]) -> dict[str, Any]:
    dropped = {entry.name: entry.reason for entry in entries if not entry.kept}
    return {"kept": len(entries) - len(dropped), "dropped": dropped}


def leakage(report: "LeakageReport", *, as_json: bool) -> None:
    """What splits have in common."""
    if as_json:
        dump(_leakage_json(report))
        return
    counts = ", ".join(f"{report.tasks[split]} {split} ({report.texts[split]} texts)" for split in report.tasks)
    out.write_line(f"Tasks: {counts}.")
    grid = table("In both", "splits", "repositories", "groups", "texts", "texts nearly the same")
    for pair in report.exact:
        grid.add_row(
            pair, *(str(found[pair]) for found in (report.repositories, report.groups, report.exact, report.near))
        )
    out.print(grid)
    for leak in report.leaks[:20]:
        where = f"{leak.first} ({leak.splits[0]}), {leak.second} ({leak.splits[1]})"
        warn(f"{leak.texts} texts: {where}", word="Leak:")
    for name in report.twice:
        warn(f"two tasks are named {name}", word="Leak:")
    out.write_line(
        "No text of one split is in another." if report.clean else "The splits overlap.", "" if report.clean else "red"
    )


def _leakage_json(report: "LeakageReport") -> dict[str, Any]:
    return {
        "clean": report.clean,
        **{name: dict(value) for name, value in vars(report).items() if isinstance(value, Mapping)},
    } | {
        "leaks": [vars(leak) for leak in report.leaks],
        "twice": report.twice,
    }
