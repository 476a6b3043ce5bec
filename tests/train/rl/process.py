"""One of the processes that torchrun starts in `test_distributed.py`: runs one training after another.

Arguments: the world, and a JSON list of runs. What a run raises is written beside its folder, by process.
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


def run(world: Path, name: str, changes: dict[str, Any], resume: bool = False, dies: int | None = None) -> None:
    """Train; the follower of the second process dies after so many calls."""
    rank = int(os.environ["RANK"])
    follower = failing(FailureKind.CONNECTION, after=dies) if dies is not None and rank == 1 else obedient()
    try:
        train(settings(world, plan={"processes": 2}, **changes), world / name, resume=resume, followers=[follower])
    except PromptMIIError as error:
        (world / f"{name}.{rank}.error").write_text(f"{type(error).__name__}: {error}")
    AcceleratorState._reset_state(reset_partial_state=True)  # another run may be spread otherwise


if __name__ == "__main__":
    if "zero3" in sys.argv[2]:
        import deepspeed  # pyright: ignore[reportMissingImports]

        deepspeed.ops.__compatible_ops__.clear()  # or it compiles for minutes what only many processes need
    for given in json.loads(sys.argv[2]):
        run(Path(sys.argv[1]), **given)
