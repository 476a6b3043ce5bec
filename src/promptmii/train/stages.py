"""The stages around reinforcement learning, by name: each reads its own settings from the configuration file."""

from pathlib import Path
from typing import Any, Literal

from promptmii.train.curves import Report, unheard

WarmUp = Literal["follower", "sft", "best-of"]


def warm_up(stage: WarmUp, config: Path | None, folder: Path, *, resume: bool = False, report: Report = unheard, **changes: Any) -> Path:
    """Run a stage from a TOML file, with `changes` over it, into a run folder; returns the weights or the pairs that it made.

    Raises `ConfigError`, `DataError`, `ModelError`, `OutputError`, and `MissingDependencyError` where torch or transformers are missing.
    """
    if stage == "follower":
        from promptmii.train.follower import train_follower
        from promptmii.train.follower_settings import FollowerSettings

        return train_follower(FollowerSettings.read(config, **changes), folder, given=config, resume=resume, report=report)
    if stage == "sft":
        from promptmii.train.writer import train_writer
        from promptmii.train.writer_settings import WriterSettings

        return train_writer(WriterSettings.read(config, **changes), folder, given=config, resume=resume, report=report)
    from promptmii.train.best_of import BestOfSettings, best_of

    return best_of(BestOfSettings.read(config, **{**changes, "stage": stage}), folder, given=config, resume=resume, report=report)
