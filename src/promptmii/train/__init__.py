"""Training of the generator: warm-up (`warmup`) and reinforcement learning (`rl`)."""

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
    """Run a training stage from a TOML file, overridden by `changes`. Returns the path of the weights or pairs.

    With `resume`, continue from the newest complete checkpoint, or in best-of after the last finished visit.
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
    return run(settings, folder, config=config, resume=resume, progress=progress)
