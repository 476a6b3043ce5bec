"""The script that torchrun starts in each process for `test_distributed.py`: it trains one run after another.

Arguments: the world folder, and a JSON list of runs. Each process writes a run's error to a file beside the run folder.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from accelerate.state import AcceleratorState  # noqa: E402
from tests.train.toys import failing, obedient, settings  # noqa: E402

from promptmii.errors import PromptMIIError  # noqa: E402
from promptmii.models.base import FailureKind  # noqa: E402
from promptmii.train.rl.run import train  # noqa: E402


def run(world: Path, name: str, changes: dict[str, Any], resume: bool = False, dies_after: int | None = None) -> None:
    """Train. The follower of the second process fails after `dies_after` calls."""
    rank = int(os.environ["RANK"])
    follower = failing(FailureKind.CONNECTION, after=dies_after) if dies_after is not None and rank == 1 else obedient()
    try:
        train(settings(world, plan={"processes": 2}, **changes), world / name, resume=resume, followers=[follower])
    except PromptMIIError as error:
        (world / f"{name}.{rank}.error").write_text(f"{type(error).__name__}: {error}")
    AcceleratorState._reset_state(reset_partial_state=True)  # the next run may be distributed differently


if __name__ == "__main__":
    if "zero3" in sys.argv[2]:
        import deepspeed  # pyright: ignore[reportMissingImports]

        deepspeed.ops.__compatible_ops__.clear()  # avoids minutes of compiling operators that this test does not need
    for options in json.loads(sys.argv[2]):
        run(Path(sys.argv[1]), **options)
