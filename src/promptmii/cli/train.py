"""`promptmii train` and `promptmii launch`: train an instruction generator in one process or several."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from typer.core import TyperCommand

from promptmii.cli.bars import listening
from promptmii.cli.blocks import blocks
from promptmii.cli.group import app
from promptmii.cli.options import Json, ListRecipes, Recipe, Set, settings_of, show_defaults
from promptmii.cli.terminal import dump, facts, out, say, styled, warn
from promptmii.errors import ConfigError
from promptmii.files import quoted
from promptmii.messages import counted, listed

if TYPE_CHECKING:
    from promptmii.train.rl.estimate import Estimate
    from promptmii.train.settings import TrainSettings


Run = Annotated[Path, typer.Option("--output", "-o", help="Run folder.")]


class Train(TyperCommand):
    """Shows the defaults of its settings in its help. They are imported only for that, because the import is slow."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from promptmii.train.settings import TrainSettings

        show_defaults(self, TrainSettings)
        super().format_options(ctx, formatter)


@dataclass(frozen=True)
class _RunOptions:
    """Options that override a recipe."""

    tasks: Annotated[
        list[str] | None, typer.Option(help="Corpus or task folder, task file, written or suite; repeatable.")
    ] = None
    model: Annotated[str | None, typer.Option(help="Model to train: hf:<id or folder>, hf:qwen or smol.")] = None
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None
    set_: Set = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in the run folder.")] = (
        False
    )

    @property
    def changes(self) -> dict[str, Any]:
        """The options as settings; None if not given."""
        from promptmii.schema import merged

        return merged(settings_of(self.set_), {"tasks": self.tasks, "model": self.model, "seed": self.seed})

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        words = ["--resume"] if self.resume else []
        options = {"--tasks": self.tasks, "--set": self.set_, "--model": [self.model], "--seed": [self.seed]}
        for option, values in options.items():
            for value in values or ():
                if value is not None:
                    words += [option, str(value)]
        return words


@app.command("train", cls=Train)
@blocks
def run_training(
    recipe: Annotated[str, Recipe],
    *,
    output: Run = Path("runs/train"),
    stage: Annotated[
        str | None,
        typer.Option(help="rl (reinforcement), sft (fine-tuning on pairs) or best-of (keep the best drafts as pairs)."),
    ] = None,
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
    """Train the generator by reinforcement learning, or run a warm-up stage."""
    from promptmii.configs import config_path
    from promptmii.train import run_stage
    from promptmii.train.settings import TrainSettings, stage_of

    config = config_path("train", recipe)
    stage_name = stage_of(config, stage)
    if dry_run or doctor:
        if stage_name != "rl":
            raise ConfigError(f"--dry-run and --doctor work for the stage rl only; the stage is {stage_name}.")
        settings = TrainSettings.read(config, stage=stage_name, **run.changes)
        if dry_run:
            _show_estimate(settings, output, as_json=json)
        else:
            _examine(settings, output, as_json=json)
        return
    with listening(quiet=json) as progress:
        path = run_stage(stage_name, config, output, resume=run.resume, progress=progress, **run.changes)
    if json:
        dump({"made": str(path) if path.exists() else None})  # best-of may keep no draft
        return
    made = f"Made {path}. " if path.exists() else ""
    out.write_line(f"{made}See the curves: promptmii report {quoted(path.parent)}")
    if stage_name != "best-of":
        from promptmii.train.loop import BEST

        missing = "" if path.name == BEST else f"No validation gave a score, so there is no {BEST}/. "
        out.write_line(f"{missing}Use it with: promptmii induce ... --generator {quoted(f'hf:{path}')}")


@app.command("launch", cls=Train)
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
    """Train on several GPUs or nodes, with torchrun or Slurm.

    Starts plan.processes processes of `promptmii train`.
    """
    from promptmii.configs import config_path
    from promptmii.train import launch
    from promptmii.train.settings import TrainSettings, stage_of

    config = config_path("train", recipe)
    if (stage := stage_of(config)) != "rl":
        raise ConfigError(f"The stage {stage} runs in one process: promptmii train {recipe}.")
    settings = TrainSettings.read(config, stage=stage, **run.changes)
    arguments = [recipe, "-o", str(output), *run.words]
    if slurm:
        if (machines, machine, first) != (1, 0, "localhost"):
            raise ConfigError(
                "With --slurm, plan.processes and --gpus set the machines. Leave out --machines, --machine and --first."
            )
        command = launch.slurm(settings, gpus, output, arguments)
    else:
        command = launch.command(settings.plan.processes, launch.Machines(machines, machine, first, port), arguments)
    if dry_run:
        out.write_line(shlex.join(command))
        return
    say(shlex.join(command))
    output.parent.mkdir(parents=True, exist_ok=True)  # or Slurm drops the job's log
    if code := launch.run(command):
        raise typer.Exit(code)


def _examine(settings: "TrainSettings", folder: Path, *, as_json: bool) -> None:
    """Check whether the run can train here. Exits with code 3 if not."""
    from promptmii.cli.models import show_report
    from promptmii.train.rl.doctor import examine_run

    with listening(quiet=as_json) as progress:
        report = examine_run(settings, folder, progress)
    show_report(report, as_json=as_json)


def _show_estimate(settings: "TrainSettings", folder: Path, *, as_json: bool) -> None:
    from promptmii.train.rl.estimate import estimate

    with listening(quiet=as_json) as progress:
        plan = estimate(settings, folder, progress)
    if as_json:
        dump(asdict(plan))
        return
    for title, table in (("Settings", plan.settings), ("TRL's configuration", plan.options)):
        name_column = Column("option", no_wrap=True)
        grid = Table(name_column, "value", "from", "the paper has", title=title, title_justify="left")
        for name, setting in table.items():
            paper = [] if setting.paper is None else [_cell(setting.paper)]
            release = [] if setting.release is None else [f"its code: {_cell(setting.release)}"]
            reference = styled("; ".join(paper + release), "yellow" if setting.differs else "")
            grid.add_row(name, _cell(setting.value), setting.origin, reference)
        out.write_table(grid)
    facts(_totals(plan))
    for reason in plan.skipped:
        warn(reason, word="Skipped:")
    for warning in plan.warnings:
        warn(warning)


def _totals(plan: "Estimate") -> dict[str, str]:
    batches = plan.batches
    rollout, update = batches.prompts * batches.generations, batches.per_update * batches.generations
    estimated = "" if plan.counted else " (estimated from words: no tokenizer)"
    memory = [(term.name, term.gib) for term in plan.memory]
    return {
        "tasks": f"{plan.tasks:,} to learn from, {plan.validation:,} to validate on, {len(plan.skipped):,} skipped",
        "rollout": f"{batches.prompts} prompts x {batches.generations} instructions = {rollout}",
        "update": f"{batches.per_update} prompts x {batches.generations} = {update} instructions"
        f" = {counted(batches.processes, 'process')} x {batches.per_device} x {batches.accumulation} accumulated",
        "steps": f"{batches.steps:,} updates in {batches.rollouts:,} rollouts of {batches.steps_per_rollout};"
        f" saved every {batches.save_every}",
        "prompt": f"{plan.prompt_tokens:,.0f} tokens on average{estimated},"
        f" {plan.shortened:.0%} of the visits with fewer examples than scheduled",
        "validation": f"{plan.validations:,} times {counted(plan.validation_cases, 'instruction')}",
        "follower": f"{plan.calls:,} calls for rewards and {plan.validation_calls:,} for validation,"
        f" of {plan.follower_tokens:,.0f} tokens",
        "memory": _sum(memory, "GiB per GPU (--doctor shows the terms)")
        or f"unknown: the configuration of {plan.settings['model'].value} is not on this machine",
        "time": _sum(plan.hours, "hours") or "unknown: set plan.writes, plan.reads and plan.learns",
    }


def _cell(value: Any) -> str:
    """A setting's value. A long list or table is cut after four items."""
    if isinstance(value, Mapping):
        return listed([f"{name}: {item}" for name, item in value.items()], most=4)
    if isinstance(value, list | tuple):
        return listed([str(item) for item in value], most=4)
    return str(value)


def _sum(parts: Sequence[tuple[str, float]], unit: str) -> str:
    terms = ", ".join(f"{name} {value:.1f}" for name, value in parts)
    return f"{sum(value for _, value in parts):.1f} {unit}: {terms}" if parts else ""
