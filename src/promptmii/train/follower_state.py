"""Checkpoints of an adapter in training: its weights, the optimiser's memory and the step, whole or not there, and no pickle."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from promptmii.errors import ArtefactError
from promptmii.files import atomic_folder

MEMORY = ("exp_avg", "exp_avg_sq")


def save_state(
    folder: Path, step: int, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, best: float
) -> None:
    """Write `checkpoint-<step>`, whole or not at all; the one before goes last.

    Raises `OutputError` on a full disk, with the previous checkpoint in place.
    """
    tensors = {f"weight:{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for kind in MEMORY:
            if parameter in optimizer.state:
                tensors[f"{kind}:{name}"] = optimizer.state[parameter][kind].contiguous()
    with atomic_folder(folder / f"checkpoint-{step}") as half:
        try:
            save_file(tensors, half / "state.safetensors")
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
        (half / "state.json").write_text(json.dumps({"step": step, "best": best}) + "\n", encoding="utf-8")
    for old in _all(folder)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[int, float] | None:
    """Put the newest checkpoint into the parameters and the optimiser; its step and the best score so far. `None` where there is none.

    Raises `ArtefactError` for a checkpoint of another model or rank.
    """
    found = _all(folder)
    if not found:
        return None
    try:
        tensors = load_file(found[-1] / "state.safetensors")
        state: dict[str, Any] = json.loads((found[-1] / "state.json").read_text("utf-8"))
        step, best = int(state["step"]), float(state["best"])
        for name, parameter in parameters.items():
            parameter.data.copy_(tensors[f"weight:{name}"])
            memory = {kind: tensors[f"{kind}:{name}"].to(parameter.device) for kind in MEMORY}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **memory}
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtefactError(
            f"The checkpoint {found[-1]} does not belong to this run: {error}. Give another run folder."
        ) from error
    return step, best


def _all(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob("checkpoint-*/state.json")]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))
