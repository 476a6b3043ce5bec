"""The stages of training by name: each reads its own settings from the configuration file."""

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from promptmii.errors import ConfigError, nearest
from promptmii.progress import QUIET, Progress
from promptmii.train.settings import Stage

WarmUp = Literal["sft", "best-of"]


def stage_of(config: Path, given: str | None = None) -> Stage:
    """The given stage, else the one that the file names, else reinforcement learning. Raises `ConfigError`."""
    name = given
    if name is None:
        try:
            name = tomllib.loads(config.read_text("utf-8")).get("stage", "rl")
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"The configuration {config} cannot be read: {error}. Expected a TOML file.") from error
    known: tuple[Stage, ...] = get_args(Stage)
    if name not in known:
        raise ConfigError(f"Unknown stage {name!r}. {nearest(str(name), known)}")
    return known[known.index(name)]


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
