"""The folder of a training run of any stage.

config.toml      the user's configuration file, verbatim
config.json      every setting, resolved
run.json         versions, hashes of data and templates, skipped tasks
metrics.jsonl    the curves: one JSON object per line, with a `step` and any numbers; `promptmii report` plots them
samples.jsonl    a sample of the instructions, with their rewards
checkpoint-N/    for --resume
best/            the best weights so far, and their model card (README.md)

A line of `metrics.jsonl`: {"step": 15, "validation/reward": 0.41, "train/reward": 0.38, "length": 143.2}
"""

import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from operator import index
from pathlib import Path
from typing import Any

from promptmii.errors import ArtefactError, ConfigError, OutputError
from promptmii.files import append_line, locked, write_text
from promptmii.schema import Settings

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
VALIDATION = "validation/reward"
"""The curve of the follower's mean macro-F1 on the validation tasks."""
PACKAGES = ("promptmii", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "deepspeed")


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process may write to, from `open_run`."""

    path: Path

    def describe(self, facts: Mapping[str, Any], fixed: Sequence[str] = ()) -> None:
        """Write `facts` and the package versions to run.json.

        Raises `ConfigError` if a fact named in `fixed` has changed since the run began.
        """
        path = self.path / "run.json"
        before = json.loads(path.read_text("utf-8")) if _has_begun(self.path) and path.exists() else {}
        for name in fixed:
            if before.get(name, facts[name]) != facts[name]:
                raise ConfigError(
                    f"The {name} of {self.path} changed since the run began. Restore them, or give another folder."
                )
        described = {"python": platform.python_version(), "packages": versions(), **facts}
        write_text(path, json.dumps(described, ensure_ascii=False, indent=2) + "\n", force=True)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to the curves, without non-finite values. Raises `OutputError` if the disk is full."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        append_line(self.path / METRICS, (json.dumps({"step": step, **finite}) + "\n").encode())

    def log_samples(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to samples.jsonl."""
        for row in rows:
            append_line(self.path / SAMPLES, (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


@contextmanager
def open_run(
    folder: Path, settings: Settings, config: Path | None, *, resume: bool, changeable: tuple[str, ...]
) -> Generator[RunFolder]:
    """Lock a run folder, and save the settings and the file `config` that they came from.

    With `resume`, only the settings in `changeable` (dotted names) may differ from those at the start. A run that
    ended before its first measurement may start again. Raises `OutputError` if the folder holds another run or another
    process writes to it, `ConfigError` for changed settings, `ArtefactError` if the saved ones cannot be read.
    """
    with locked(folder):
        saved = folder / "config.json"
        if saved.exists() and _has_begun(folder):
            if not resume:
                raise OutputError(
                    f"{folder} holds a run already. Continue it with --resume, or give another folder with -o."
                )
            _check_unchanged(saved, settings, changeable)
        else:
            if config:
                write_text(folder / "config.toml", config.read_text("utf-8"), force=True)
            write_text(saved, settings.model_dump_json(indent=2) + "\n", force=True)
        yield RunFolder(folder)


def _has_begun(folder: Path) -> bool:
    """The folder holds something to resume from."""
    return is_training_run(folder) or any(folder.glob("checkpoint-*"))


def _check_unchanged(saved: Path, settings: Settings, changeable: tuple[str, ...]) -> None:
    try:
        before: dict[str, Any] = json.loads(saved.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{saved} cannot be read: {error}. Give another folder.") from error
    now = json.loads(settings.model_dump_json())
    for dotted in changeable:
        table, dot, name = dotted.partition(".")
        if dot:
            before.get(table, {}).pop(name, None)
            now.get(table, {}).pop(name, None)
    for name, table in now.items():
        if isinstance(getattr(settings, name), Settings):  # a setting that no longer exists cannot have changed
            before[name] = {inner: (before.get(name) or {}).get(inner) for inner in table}
    changed = [name for name in now if name not in changeable and before.get(name) != now[name]]
    if changed:
        raise ConfigError(
            f"This run was started with other values of: {', '.join(changed)}. Resume with the same values, or give "
            "another folder."
        )


def versions() -> dict[str, str]:
    """Versions of the installed packages that a run depends on."""
    installed: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


@dataclass(frozen=True)
class Curves:
    """The curves of one training run."""

    name: str
    """Name of the run folder, or its path if another run has that name too."""
    metrics: dict[str, dict[int, float]]
    """Values by step, in order, by metric. If a resumed run wrote a step twice, the later value counts."""
    damaged: int = 0
    """Number of unreadable lines, such as one that a kill cut short."""


def is_training_run(folder: Path) -> bool:
    """Whether the folder holds curves."""
    return (folder / METRICS).is_file()


def read_curves(folders: Sequence[Path]) -> list[Curves]:
    """The curves of training run folders. Raises `ArtefactError` for a folder without curves."""
    runs = [_read(folder) for folder in folders]
    counts = Counter(run.name for run in runs)
    return [
        run if counts[run.name] == 1 else replace(run, name=str(folder))
        for run, folder in zip(runs, folders, strict=True)
    ]


def _read(folder: Path) -> Curves:
    try:
        lines = (folder / METRICS).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise ArtefactError(
            f"{folder} is not a training run: its {METRICS} cannot be read ({error.strerror})."
        ) from error
    metrics: dict[str, dict[int, float]] = {}
    damaged = 0
    for line in lines:
        try:
            row: dict[str, Any] = json.loads(line)
            step = index(row.pop("step"))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            damaged += 1
            continue
        for name, value in row.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and abs(value) <= sys.float_info.max:  # false for NaN; works for ints beyond float range
                metrics.setdefault(name, {})[step] = float(value)
    ordered = {name: dict(sorted(curve.items())) for name, curve in metrics.items()}
    return Curves(folder.resolve().name, ordered, damaged)
