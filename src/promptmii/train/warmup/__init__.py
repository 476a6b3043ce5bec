"""What comes before reinforcement learning: fine-tuning on pairs of examples and instruction, and best-of."""

from pathlib import Path
from typing import Any, Literal

from promptmii.progress import QUIET, Progress

WarmUp = Literal["sft", "best-of"]


def warm_up(
    stage: WarmUp,
    config: Path | None,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = QUIET,
    **changes: Any,
) -> Path:
    """Run a stage from a TOML file, with `changes` over it, into a run folder; returns the weights or pairs it made.

    Raises `ConfigError`, `DataError`, `ModelError`, `OutputError`, and `MissingDependencyError` without torch.
    """
    if stage == "sft":
        from promptmii.train.warmup.settings import SftSettings
        from promptmii.train.warmup.sft import fine_tune

        return fine_tune(SftSettings.read(config, **changes), folder, given=config, resume=resume, progress=progress)
    from promptmii.train.warmup.best_of import BestOfSettings, best_of

    settings = BestOfSettings.read(config, **{**changes, "stage": stage})
    return best_of(settings, folder, given=config, resume=resume, progress=progress)
