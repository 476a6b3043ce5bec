"""Train an instruction generator, and what comes before it."""

from pathlib import Path
from typing import Annotated

import typer

from promptmii.cli.group import app
from promptmii.cli.options import Json, ListRecipes, Recipe, Set, settings_of
from promptmii.cli.terminal import dump, listening, out
from promptmii.errors import ConfigError


@app.command("train")
def run_training(
    recipe: Annotated[str, Recipe],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("runs/train"),
    stage: Annotated[str | None, typer.Option(help="rl, sft or best-of; the file's own when absent, else rl.")] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(help="Corpus or task folder, task file, or suite; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to train: smol or hf:<id or folder>.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    set_: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run folder.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the configuration, batches, calls, tokens, memory and time; train nothing."
        ),
    ] = False,
    json: Json = False,
    _list: ListRecipes = False,
) -> None:
    """Train the generator that writes instructions, by reinforcement learning; or one of the stages before that."""
    from promptmii.configs import config_path
    from promptmii.schema import merged
    from promptmii.train.settings import TrainSettings
    from promptmii.train.stages import stage_of, warm_up

    config = config_path("train", recipe)
    chosen = stage_of(config, stage)
    changes = merged(settings_of(set_ or []), {"tasks": tasks, "model": model, "seed": seed})
    if chosen != "rl":
        if dry_run:
            raise ConfigError(
                f"--dry-run plans the stage rl only. Start {chosen} itself; stopped, it goes on with --resume."
            )
        with listening(quiet=json) as progress:
            made = warm_up(chosen, config, output, resume=resume, progress=progress, **changes)
        _show(made, as_json=json)
        return
    settings = TrainSettings.read(config, stage=chosen, **changes)
    if dry_run:
        from promptmii.cli.train_view import show_plan
        from promptmii.train.rl.estimate import estimate

        with listening(quiet=json) as progress:
            planned = estimate(settings, output, progress)
        show_plan(planned, as_json=json)
        return
    from promptmii.train.rl.run import train

    with listening(quiet=json) as progress:
        made = train(settings, output, given=config, resume=resume, progress=progress)
    _show(made, as_json=json)


def _show(made: Path, *, as_json: bool) -> None:
    if as_json:
        dump({"made": str(made)})
    else:
        out.write_line(f"Made {made}. See the curves: promptmii report {made.parent}")
