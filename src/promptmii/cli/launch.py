"""Start a training run of several processes."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.options import ListRecipes, Recipe, Resume, Run, Seed, Set, Tasks, Trained, settings_of
from promptmii.cli.terminal import out, say
from promptmii.errors import ConfigError


@app.command("launch")
def launch_training(
    recipe: Annotated[str, Recipe],
    output: Run = Path("runs/train"),
    tasks: Tasks = None,
    model: Trained = None,
    seed: Seed = None,
    set_: Set = None,
    resume: Resume = False,
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
    from promptmii.schema import merged
    from promptmii.train import launch
    from promptmii.train.settings import TrainSettings, stage_of

    config = config_path("train", recipe)
    if (stage := stage_of(config)) != "rl":
        raise ConfigError(f"The stage {stage} runs in one process: promptmii train {recipe}.")
    changes = merged(settings_of(set_ or []), {"tasks": tasks, "model": model, "seed": seed})
    settings = TrainSettings.read(config, stage=stage, **changes)
    options = {"--tasks": tasks or [], "--set": set_ or [], "--model": [model], "--seed": [seed]}
    given = [recipe, "-o", str(output), *(["--resume"] if resume else [])]
    for option, values in options.items():
        given += [word for value in values if value is not None for word in (option, str(value))]
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
