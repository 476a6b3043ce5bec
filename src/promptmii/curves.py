"""Training curves in `metrics.jsonl`: one JSON object per line, with a `step` and any numbers.

{"step": 15, "validation/reward": 0.41, "train/reward": 0.38, "length": 143.2, "entropy": 1.7}

Training appends lines; the report draws them.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

from promptmii.errors import ArtefactError
from promptmii.files import append_line

FILE = "metrics.jsonl"
VALIDATION = "validation/reward"
"""The follower's mean macro-F1 on the validation tasks."""


@dataclass(frozen=True)
class Curves:
    """The curves of one training run."""

    name: str
    """Name of the run folder, or its path if another run has that name too."""
    metrics: dict[str, dict[int, float]]
    """Values by step, in order, by metric. If a resumed run wrote a step twice, the later value counts."""
    damaged: int = 0
    """Number of unreadable lines, such as one that a kill cut short."""


def append_curves(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Append a line with the finite values. Raises `OutputError` if the disk is full."""
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    append_line(folder / FILE, (json.dumps({"step": step, **finite}) + "\n").encode())


def is_training_run(folder: Path) -> bool:
    """Whether the folder holds curves."""
    return (folder / FILE).is_file()


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
        lines = (folder / FILE).read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise ArtefactError(f"{folder} is not a training run: its {FILE} cannot be read ({error.strerror}).") from error
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
