"""Train an instruction generator, and what comes before it, in one process or in several."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from promptmii.cli.blocks import blocks
from promptmii.cli.group import app
from promptmii.cli.options import Json, ListRecipes, Recipe, Set, settings_of
from promptmii.cli.terminal import dump, facts, listening, out, say, styled, warn
from promptmii.errors import ConfigError

if TYPE_CHECKING:
    from promptmii.train.rl.estimate import Estimate, SettingValue
    from promptmii.train.settings import TrainSettings


Run = Annotated[Path, typer.Option("--output", "-o", help="Run folder.")]


@dataclass(frozen=True)
class _RunOptions:
    """What a run takes, over its recipe."""

    tasks: Annotated[list[str] | None, typer.Option(help="Corpus or task folder, task file, or suite; repeatable.")] = (
        None
    )
    model: Annotated[str | None, typer.Option(help="Model to train: smol or hf:<id or folder>.")] = None
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None
    set_: Set = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in the run folder.")] = (
        False
    )

    @property
    def changes(self) -> dict[str, Any]:
        """As in the TOML file; `None` where nothing was given."""
        from promptmii.schema import merged

        return merged(settings_of(self.set_), {"tasks": self.tasks, "model": self.model, "seed": self.seed})

    @property
    def words(self) -> list[str]:
        """As on a command line."""
        repeated = {"--tasks": self.tasks or [], "--set": self.set_ or []}
        once = {"--model": [self.model], "--seed": [self.seed]}
        given = ["--resume"] if self.resume else []
        for option, values in (repeated | once).items():
            given += [word for value in values if value is not None for word in (option, str(value))]
        return given


@app.command("train")
@blocks
def run_training(
    recipe: Annotated[str, Recipe],
    *,
    output: Run = Path("runs/train"),
    stage: Annotated[str | None, typer.Option(help="rl, sft or best-of. Default: as the file says, else rl.")] = None,
    run: _RunOptions,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the configuration, batches, calls, tokens, memory and time; train nothing."
        ),
    ] = False,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Check packages, GPUs, memory, disk, followers and ports; train nothing.")
    ] = False,
    json: Json = False,
    _list: ListRecipes = False,
) -> None:
    """Train the generator by reinforcement learning, or run one of the stages before it."""
    from promptmii.configs import config_path
    from promptmii.train import run_stage
    from promptmii.train.settings import TrainSettings, stage_of

    config = config_path("train", recipe)
    chosen = stage_of(config, stage)
    if chosen != "rl" and (dry_run or doctor):
        raise ConfigError(f"--dry-run and --doctor work for the stage rl only; the stage is {chosen}.")
    if dry_run or doctor:
        settings = TrainSettings.read(config, stage=chosen, **run.changes)
        (_plan if dry_run else _examine)(settings, output, as_json=json)
        return
    with listening(quiet=json) as progress:
        made = run_stage(chosen, config, output, resume=run.resume, progress=progress, **run.changes)
    if json:
        dump({"made": str(made)})
    else:
        out.write_line(f"Made {made}. See the curves: promptmii report {made.parent}")


@app.command("launch")
@blocks
def launch_training(
    recipe: Annotated[str, Recipe],
    *,
    output: Run = Path("runs/train"),
    run: _RunOptions,
    machines: Annotated[int, typer.Option(min=1, help="Number of machines that train; run the command on each.")] = 1,
    machine: Annotated[int, typer.Option(min=0, help="Index of this machine, from 0.")] = 0,
    first: Annotated[str, typer.Option(help="Address of machine 0.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port on machine 0 where the processes meet.")] = 29500,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit the run, and the follower's servers, with sbatch.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="With --slurm: GPUs per node.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command instead of running it.")] = False,
    _list: ListRecipes = False,
) -> None:
    """Start `promptmii train` on as many processes as the configuration plans, by torchrun or Slurm."""
    from promptmii.configs import config_path
    from promptmii.train import launch
    from promptmii.train.settings import TrainSettings, stage_of

    config = config_path("train", recipe)
    if (stage := stage_of(config)) != "rl":
        raise ConfigError(f"The stage {stage} runs in one process: promptmii train {recipe}.")
    settings = TrainSettings.read(config, stage=stage, **run.changes)
    given = [recipe, "-o", str(output), *run.words]
    if slurm:
        command = launch.slurm(settings, gpus, output, given)
    else:
        where = launch.Machines(machines, machine, first, port)
        command = launch.command(settings.plan.processes, where, given)
    if dry_run:
        out.write_line(shlex.join(command))
        return
    say(shlex.join(command))
    output.parent.mkdir(parents=True, exist_ok=True)  # Slurm drops the log of a job whose folder is not there
    if code := launch.run(command):
        raise typer.Exit(code)


def _examine(settings: "TrainSettings", folder: Path, *, as_json: bool) -> None:
    """Print whether the run can train here; exit with 3 if not."""
    from promptmii.cli.models import show_report
    from promptmii.train.rl.doctor import examine_run

    with listening(quiet=as_json) as progress:
        report = examine_run(settings, folder, progress)
    show_report(report, as_json=as_json)


def _plan(settings: "TrainSettings", folder: Path, *, as_json: bool) -> None:
    from promptmii.train.rl.estimate import estimate

    with listening(quiet=as_json) as progress:
        planned = estimate(settings, folder, progress)
    if as_json:
        dump(asdict(planned))
    else:
        _show_plan(planned)


NAMED = 4
"""Values of a list that are named in a table."""


def _show_plan(plan: "Estimate") -> None:
    batches = plan.batches
    _print_settings("Settings", plan.settings)
    _print_settings("TRL's configuration", plan.options)
    per_update = batches.per_update * batches.generations
    memory = [(term.name, term.gib) for term in plan.memory]
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
        "memory": _sum(memory, "GiB a GPU, by arithmetic (--doctor shows it)")
        or f"not known: the configuration of {plan.settings['model'].value} is not on this machine",
        "time": _sum(plan.hours, "hours") or "not estimated: plan.writes, plan.reads and plan.learns are not set",
    }
    facts(lines)
    for line in plan.skipped:
        warn(line, word="Skipped:")
    for line in plan.warnings:
        warn(line)


def _print_settings(title: str, listed: Mapping[str, "SettingValue"]) -> None:
    grid = Table(title=title, title_justify="left")
    grid.add_column("option", no_wrap=True)
    for name in ("value", "from", "the paper has"):
        grid.add_column(name)
    for name, setting in listed.items():
        theirs = setting.paper if setting.release is None else setting.release
        differs = theirs is not None and setting.value != theirs
        paper = "" if setting.paper is None else _brief(setting.paper)
        paper += f"{'; ' * bool(paper)}its code: {_brief(setting.release)}" if setting.release is not None else ""
        grid.add_row(name, _brief(setting.value), setting.origin, styled(paper, "yellow" if differs else ""))
    out.write_table(grid)


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple):
        named = [str(one) for one in value]
        return ", ".join(named) if len(named) <= NAMED else f"{', '.join(named[:NAMED])} and {len(named) - NAMED} more"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    return str(value)


def _sum(parts: Sequence[tuple[str, float]], unit: str) -> str:
    listed = ", ".join(f"{name} {value:.1f}" for name, value in parts)
    return f"{sum(value for _, value in parts):.1f} {unit}: {listed}" if parts else ""
