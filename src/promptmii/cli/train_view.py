"""The plan of a training run, for reading."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from promptmii.cli.terminal import dump, facts, out, styled, warn

if TYPE_CHECKING:
    from promptmii.train.rl.estimate import Estimate as Plan
    from promptmii.train.rl.estimate import Setting

NAMED = 4
"""Values of a list that are named in a table."""


def show_plan(plan: "Plan", *, as_json: bool) -> None:
    """What a training run will take."""
    batches = plan.batches
    if as_json:
        dump(asdict(plan))
        return
    _print_settings("Settings", plan.settings)
    _print_settings("TRL's configuration", plan.options)
    per_update = batches.per_update * batches.generations
    counted = "" if plan.counted else " (estimated from words: no tokenizer)"
    lines = {
        "tasks": f"{plan.tasks:,} to learn from, {plan.validation:,} to validate on, {len(plan.skipped):,} skipped",
        "rollout": f"{batches.prompts} prompts x {batches.generations} instructions"
        f" = {batches.prompts * batches.generations}",
        "update": f"{batches.per_update} prompts x {batches.generations} = {per_update} instructions"
        f" = {batches.processes} processes x {batches.per_device} x {batches.accumulation} accumulated",
        "steps": f"{batches.steps:,} updates, {batches.boundary} per rollout ({batches.rollouts:,});"
        f" saved every {batches.save_every}",
        "prompt": f"{plan.prompt_tokens:,.0f} tokens on average{counted},"
        f" {plan.shortened:.0%} of the visits with fewer examples than scheduled",
        "validation": f"{plan.validations:,} times {plan.validation_cases:,} instructions",
        "follower": f"{plan.calls:,} calls for rewards and {plan.validation_calls:,} for validation,"
        f" of {plan.follower_tokens:,.0f} tokens",
        "time": _sum(plan.hours, "hours") or "not estimated: plan.writes, plan.reads and plan.learns are not set",
    }
    facts(lines)
    for line in plan.skipped:
        warn(line, word="Skipped:")
    for line in plan.warnings:
        warn(line)


def _print_settings(title: str, listed: Mapping[str, "Setting"]) -> None:
    grid = Table(title=title, title_justify="left")
    grid.add_column("option", no_wrap=True)
    for name in ("value", "from", "the paper has"):
        grid.add_column(name)
    for name, setting in listed.items():
        differs = setting.paper is not None and setting.value != setting.paper
        paper = "" if setting.paper is None else _brief(setting.paper)
        grid.add_row(name, _brief(setting.value), setting.origin, styled(paper, "yellow" if differs else ""))
    out.print(grid)


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
