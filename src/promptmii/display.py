"""What the user sees. Results go to standard output, progress and errors to standard error; `--json` prints one object."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from promptmii import metrics
from promptmii.cli.terminal import dump, say
from promptmii.doctor import Report as Examination
from promptmii.evaluation import Estimate
from promptmii.files import write_text
from promptmii.follower import Follower
from promptmii.instruction import Instruction, Measurement
from promptmii.pipeline import BreakEven, Induced, Labelled, Row
from promptmii.records import Run
from promptmii.scoring import Scored

if TYPE_CHECKING:
    from promptmii.train.estimate import Estimate as Plan

out = Console(highlight=False)

NAMED = 4
"""Values of a list that are named in a table."""


def induced(result: Induced, path: Path | None, *, as_json: bool) -> None:
    """The instruction, how it compares, what it costs, and what to beware of."""
    if as_json:
        dump(_induced_json(result))
        return
    for note in (*result.notes, *result.instruction.provenance.notes):
        out.print(f"[dim]· {escape(note)}[/]")
    out.print(Panel(escape(result.instruction.text), title="Instruction", title_align="left"))
    if result.rows:
        out.print(_comparison(result.rows))
        if result.break_even:
            out.print(escape(_break_even(result.break_even)))
        for warning in result.warnings:
            out.print(f"[yellow]Warning:[/] {escape(warning)}")
    if path:
        out.print(f"Saved to {escape(str(path))}. Use it with: promptmii predict {escape(str(path))} NEW_DATA")


def _comparison(rows: Sequence[Row]) -> Table:
    table = Table(title=f"On {rows[0].scored.n} held-back rows", title_justify="left")
    table.add_column("method")
    for name in ("n", "macro-F1", "95 % interval", "tokens/query", "calls to make", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        if row.instruction.measured:
            table.add_row(*_cells(row, row.instruction.measured))
    return table


def _cells(row: Row, measured: Measurement) -> tuple[str, ...]:
    return (
        row.instruction.method,
        str(row.instruction.provenance.n),
        f"{measured.macro_f1:.3f}",
        f"{measured.low:.3f} to {measured.high:.3f}",
        f"{measured.prompt_tokens_per_query:.0f}",
        str(row.instruction.cost.calls),
        f"{row.scored.usage.seconds:.1f}",
    )


def _break_even(result: BreakEven) -> str:
    if result.queries is None:
        return f"Against ICL the instruction saves no tokens ({-result.saved_tokens_per_query:.0f} more per query)."
    line = (
        f"Against ICL it saves {result.saved_tokens_per_query:.0f} prompt tokens per query; "
        f"what it cost to make ({result.one_off_tokens} tokens) is repaid after {result.queries} queries."
    )
    if result.one_off_money is None or result.saved_money_per_query is None:
        return line
    return f"{line} In money: {result.one_off_money:.6f} once, {result.saved_money_per_query * 1000:.6f} saved per 1,000 queries."


def _induced_json(result: Induced) -> dict[str, Any]:
    return {
        "instruction": result.instruction.model_dump(mode="json"),
        "comparison": [
            {"method": row.instruction.method, "n": row.instruction.provenance.n, "seconds": row.scored.usage.seconds}
            | (row.instruction.measured.model_dump() if row.instruction.measured else {})
            | {"cost": row.instruction.cost.model_dump()}
            for row in result.rows
        ],
        "differences": {
            name: {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p} for name, d in result.differences.items()
        },
        "break_even": vars(result.break_even) if result.break_even else None,
        "warnings": result.warnings,
        "notes": result.notes,
    }


def labelled(result: Labelled, path: Path | None, *, as_json: bool, force: bool) -> None:
    """Predictions: to a CSV or JSONL file, or to standard output as CSV."""
    if path and path.suffix in (".jsonl", ".ndjson"):
        write_text(
            path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in result.rows), force=force
        )
    elif path:
        write_text(path, result.csv(), force=force)
    elif as_json:
        dump(list(result.rows))
    else:
        out.out(result.csv(), end="", highlight=False)
    unlabelled = len(result.rows) - result.n_labelled - result.n_failed
    counts = f"{result.n_labelled} labelled, {unlabelled} without a label (empty or unparsed), {result.n_failed} failed"
    line = f"{len(result.rows)} rows: {counts}."
    say(f"{line} Saved to {path}." if path else line)


def foreign(instruction: Instruction, follower: Follower) -> None:
    """Say where a calibration is left out, because it was fitted to another model."""
    if follower.own(instruction) is not instruction:
        say(
            f"Without calibration: it was fitted to {instruction.follower}, and {follower.model.card.reference} answers."
        )


def scored(instruction: Instruction, result: Scored, notes: Sequence[str], *, as_json: bool) -> None:
    """The score, each label, the confusion matrix and the counts; `notes` say how the rows were read."""
    measured = result.measurement()
    labels = metrics.per_label(result.gold, result.labels, instruction.labels)
    table = metrics.confusion(result.gold, result.labels, instruction.labels)
    if as_json:
        rows = [
            {"label": s.label, "precision": s.precision, "recall": s.recall, "f1": s.f1, "support": s.support}
            for s in labels
        ]
        dump(
            {
                "measured": measured.model_dump(),
                "labels": rows,
                "confusion": table,
                "failed": result.n_failed,
                "notes": notes,
            }
        )
        return
    for note in notes:
        out.print(f"[dim]· {escape(note)}[/]")
    out.print(f"macro-F1 [bold]{measured.macro_f1:.3f}[/] (95 % interval {measured.low:.3f} to {measured.high:.3f})")
    out.print(
        f"accuracy {measured.accuracy:.3f}; {result.n} rows, {result.n_unparsed} unparsed, {result.n_failed} failed, "
        f"{result.n_truncated} cut; {result.usage.seconds:.1f} s"
    )
    grid = Table(title="Per label", title_justify="left")
    grid.add_column("label")
    for name in ("precision", "recall", "F1", "rows"):
        grid.add_column(name, justify="right")
    for s in labels:
        grid.add_row(escape(s.label), f"{s.precision:.3f}", f"{s.recall:.3f}", f"{s.f1:.3f}", str(s.support))
    out.print(grid)
    out.print(_confusion(instruction.labels, table))


def evaluated(run: Run, *, as_json: bool) -> None:
    """How many cells are done, and what failed."""
    done = [record for record in run.records.values() if record.status == "done"]
    if as_json:
        dump(
            {
                "folder": str(run.folder),
                "done": len(done),
                "failed": [r.model_dump(mode="json") for r in run.failed],
                "damaged": run.damaged,
            }
        )
        return
    out.print(f"{len(done)} cells done, {len(run.failed)} failed in {escape(str(run.folder))}.")
    for record in run.failed:
        out.print(f"[red]failed[/] {escape(record.cell.name)}: {escape(record.error or '')}", soft_wrap=True)
    for line in run.damaged:
        out.print(f"[yellow]unreadable[/] {escape(line)}; its cell was run again.", soft_wrap=True)
    if run.failed:
        out.print("Run the failed cells again with --retry-failed.")
    out.print(f"See it with: promptmii report {escape(str(run.folder))}")


def estimated(lines: Sequence[Estimate], *, as_json: bool) -> None:
    """What a grid will take."""
    if as_json:
        dump([{"method": e.method, "cells": e.cells, "done": e.done, "cost": e.cost.model_dump()} for e in lines])
        return
    table = Table(title="Estimated, for the cells that are not done", title_justify="left")
    table.add_column("method")
    for name in ("cells", "done", "calls", "prompt tokens", "written tokens", "model time", "money"):
        table.add_column(name, justify="right")
    for e in lines:
        time = str(timedelta(seconds=round(e.cost.seconds)))
        money = "no price given" if e.cost.money is None else f"{e.cost.money:.4f}"
        counts = (e.cells, e.done, e.cost.calls, e.cost.prompt_tokens, e.cost.completion_tokens)
        table.add_row(e.method, *(f"{count:,}" for count in counts), time, money)
    out.print(table)
    out.print(
        "Model time is for one call after the other; servers answer several at once, and equal prompts are asked once."
    )


def planned(plan: "Plan", *, as_json: bool) -> None:
    """What a training run will take."""
    batches = plan.batches
    if as_json:
        dump(asdict(plan))
        return
    for title, listed in (("Settings", plan.settings), ("TRL's configuration", plan.options)):
        table = Table(title=title, title_justify="left")
        table.add_column("option", no_wrap=True)
        for name in ("value", "from", "the paper has"):
            table.add_column(name)
        for name, setting in listed.items():
            paper = "" if setting.paper is None else _brief(setting.paper)
            other = setting.paper is not None and setting.value != setting.paper
            table.add_row(
                name,
                escape(_brief(setting.value)),
                setting.origin,
                f"[yellow]{escape(paper)}[/]" if other else escape(paper),
            )
        out.print(table)
    per_update = batches.per_update * batches.generations
    lines = {
        "tasks": f"{plan.tasks:,} to learn from, {plan.validation:,} to watch, {len(plan.skipped):,} skipped",
        "rollout": f"{batches.prompts} prompts x {batches.generations} instructions = {batches.prompts * batches.generations}",
        "update": f"{batches.per_update} prompts x {batches.generations} = {per_update} instructions"
        f" = {batches.processes} processes x {batches.per_device} x {batches.accumulation} accumulated",
        "steps": f"{batches.steps:,} updates, {batches.boundary} per rollout ({batches.rollouts:,}); saved every {batches.save_every}",
        "prompt": f"{plan.prompt_tokens:,.0f} tokens on average{'' if plan.counted else ' (from words: no tokenizer at hand)'}, "
        f"{plan.shortened:.0%} of the visits with fewer examples than scheduled",
        "validation": f"{plan.validations:,} times {plan.validation_cases:,} instructions",
        "follower": f"{plan.calls:,} calls for rewards and {plan.validation_calls:,} for validation, of {plan.follower_tokens:,.0f} tokens",
        "memory": _sum(plan.memory, "GiB on each device") or "not estimated: plan.parameters is not set",
        "time": _sum(plan.hours, "hours") or "not estimated: plan.writes, plan.reads and plan.learns are not set",
    }
    grid = Table(show_header=False, box=None)
    for name, value in lines.items():
        grid.add_row(f"[dim]{name}[/]", escape(value))
    out.print(grid)
    for line in plan.skipped:
        out.print(f"[yellow]skipped[/] {escape(line)}", soft_wrap=True)
    for line in plan.warnings:
        out.print(f"[yellow]Warning:[/] {escape(line)}", soft_wrap=True)


def _brief(value: Any) -> str:
    """A value for a cell of a table."""
    if isinstance(value, list | tuple):
        named = [str(one) for one in value]
        return ", ".join(named) if len(named) <= NAMED else f"{', '.join(named[:NAMED])} and {len(named) - NAMED} more"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    return str(value)


def _sum(parts: Sequence[tuple[str, float]], unit: str) -> str:
    listed = ", ".join(f"{name} {value:.1f}" for name, value in parts)
    return f"{sum(value for _, value in parts):.1f} {unit}: {listed}" if parts else ""


def trained(made: Path, *, as_json: bool) -> None:
    """Where the result of training lies."""
    if as_json:
        dump({"made": str(made)})
    else:
        out.print(f"Made {escape(str(made))}. See the curves: promptmii report {escape(str(made.parent))}")


def _confusion(labels: Sequence[str], counts: list[list[int]]) -> Table:
    table = Table(title="Confusion: a row per true label, a column per predicted one", title_justify="left")
    table.add_column("")
    for number, _ in enumerate(labels, 1):
        table.add_column(str(number), justify="right")
    table.add_column("none", justify="right")
    for number, (label, row) in enumerate(zip(labels, counts, strict=True), 1):
        table.add_row(f"{number} {escape(label)}", *(str(count) if count else "·" for count in row))
    return table


def shown(instruction: Instruction, *, as_json: bool) -> None:
    """An instruction file, for reading."""
    if as_json:
        dump(instruction.model_dump(mode="json"))
        return
    made = (
        f"{instruction.method}, from {instruction.provenance.n} examples of {instruction.provenance.source or 'memory'}"
    )
    out.print(Panel(escape(instruction.text) or "(empty)", title=escape(made), title_align="left"))
    table = Table(show_header=False, box=None)
    calibration = instruction.calibration.kind if instruction.calibration else "none"
    rows: dict[str, object] = {
        "labels": ", ".join(instruction.labels),
        "generator": instruction.generator,
        "follower": f"{instruction.follower} ({instruction.mode}, calibration {calibration})",
        "made with": f"{instruction.cost.calls} calls, {instruction.cost.prompt_tokens + instruction.cost.completion_tokens} tokens",
    }
    if instruction.measured:
        m = instruction.measured
        score = f"macro-F1 {m.macro_f1:.3f} ({m.low:.3f} to {m.high:.3f}) on {m.n} rows"
        rows["measured"] = f"{score}, {m.prompt_tokens_per_query:.0f} tokens per query"
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", escape(str(value)))
    out.print(table)
    for note in instruction.provenance.notes:
        out.print(f"[dim]· {escape(note)}[/]")


def examined(report: Examination, *, as_json: bool) -> None:
    """What `doctor` found."""
    if as_json:
        checks = [{"name": c.name, "ok": c.ok, "finding": c.finding, "cure": c.cure} for c in report.checks]
        dump({"reference": report.reference, "healthy": report.healthy, "checks": checks})
        return
    for check in report.checks:
        mark = "[green]ok[/]  " if check.ok else "[red]no[/]  "
        out.print(f"{mark}[bold]{check.name}[/]: {escape(check.finding)}")
        if check.cure:
            out.print(f"      {escape(check.cure)}")
