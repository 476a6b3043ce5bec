"""Training of the generator: reinforcement learning (`rl`), and what comes before it (`warmup`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmii.progress import QUIET, Progress

if TYPE_CHECKING:
    from promptmii.train.settings import TrainingStage


def run_stage(
    stage: "TrainingStage",
    config: Path,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = QUIET,
    **changes: Any,
) -> Path:
    """Run a stage from a TOML file, with `changes` over it, into a run folder; returns the weights or pairs it made.

    With `resume` it goes on after the newest whole checkpoint, or the last visit of best-of that was finished.
    Raises `ConfigError`, `DataError`, `ModelError`, `OutputError`, and `MissingDependencyError` without torch.
    """
    if stage == "rl":
        from promptmii.train.rl.run import train as run
        from promptmii.train.settings import TrainSettings as Settings
    elif stage == "sft":
        from promptmii.train.settings import SftSettings as Settings
        from promptmii.train.warmup.sft import fine_tune as run
    else:
        from promptmii.train.settings import BestOfSettings as Settings
        from promptmii.train.warmup.best_of import best_of as run
    settings: Any = Settings.read(config, **{**changes, "stage": stage})
    return run(settings, folder, given=config, resume=resume, progress=progress)
