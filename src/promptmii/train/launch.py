"""Starting a run of several processes: by torchrun on each machine, and on several machines under Slurm."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptmii.configs import FOLDER
from promptmii.errors import ConfigError, MissingDependencyError, ModelError
from promptmii.serving import unplaced
from promptmii.train.settings import TrainSettings

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of <linux/prctl.h>."""
SCRIPT = FOLDER / "train" / "slurm.sh"


@dataclass(frozen=True)
class Machines:
    """The machines that train, and which of them this is."""

    count: int = 1
    this: int = 0
    first: str = "localhost"
    """Address of machine 0, where the processes find each other."""
    port: int = 29500


def check_processes(planned: int, running: int) -> None:
    """Raise `ConfigError` unless as many processes run as the batches are planned for."""
    if running != planned:
        raise ConfigError(
            f"The configuration is for {planned} process(es) (plan.processes), and {running} are running. Start it "
            "with: promptmii launch, and what you gave to promptmii train."
        )


def end_with_launcher() -> None:
    """Let the system end this process with a launcher that is killed and cannot do it. Only Linux knows how.

    SIGKILL, because a process that waits for the others in native code hears nothing else; its checkpoints are whole.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def command(processes: int, machines: Machines, arguments: Sequence[str]) -> list[str]:
    """What machine `machines.this` runs to train with `arguments`.

    Raises `ConfigError` if there is no such machine, or if the processes do not divide.
    """
    if machines.this >= machines.count:
        raise ConfigError(f"--machine is {machines.this}; expected 0 to {machines.count - 1} (see --machines).")
    here, left = divmod(processes, machines.count)
    if left or not here:
        raise ConfigError(f"{processes} process(es) (plan.processes) do not divide among {machines.count} machines.")
    if processes == 1:
        return ["promptmii", "train", *arguments]
    where = ["--standalone"]
    if machines.count > 1:
        where = ["--nnodes", str(machines.count), "--node-rank", str(machines.this)]
        where += ["--master-addr", machines.first, "--master-port", str(machines.port)]
    return ["torchrun", *where, "--nproc-per-node", str(here), "-m", "promptmii", "train", *arguments]


def run(given: Sequence[str]) -> int:
    """Run what `command` or `slurm` made; returns the exit code of the process that said what was wrong, else 0.

    Raises `ConfigError` if this machine has too few GPUs or no Slurm, `ModelError` if a process was killed.
    """
    if given[0] == "sbatch":
        if shutil.which("sbatch") is None:
            raise ConfigError("sbatch was not found: run this on a Slurm login node, or leave --slurm out.")
        return subprocess.run(given, check=False).returncode
    if given[0] == "torchrun":
        return _spread(given[1:])
    return subprocess.run([sys.executable, "-m", *given], check=False).returncode


def _spread(arguments: Sequence[str]) -> int:
    try:
        import torch
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import parse_args
        from torch.distributed.run import run as torchrun
    except ImportError as error:
        raise MissingDependencyError("promptmii launch", "train") from error
    options = parse_args(list(arguments))
    here, gpus = int(options.nproc_per_node), torch.cuda.device_count()
    if gpus and gpus < here:
        raise ConfigError(
            f"The configuration needs {here} GPUs on this machine (plan.processes); it has {gpus}. Set "
            "plan.processes to the number of GPUs that train; --dry-run shows how the batches divide."
        )
    try:
        torchrun(options)
    except SignalException as stopped:  # passed on to the processes
        return 128 + stopped.sigval
    except ChildFailedError as error:
        # The launcher ends the others with SIGTERM, so that is nobody's reason unless it came first.
        struck = {rank for rank, one in error.failures.items() if one.exitcode < 0 and one.exitcode != -signal.SIGTERM}
        rank = min(struck, default=error.get_first_failure()[0])
        failure = error.failures[rank]
        if failure.exitcode > 0:
            return failure.exitcode
        raise ModelError(
            f"{failure.signal_name()} ended process {rank}, so the run stopped. (The system often sends SIGKILL "
            "when memory runs out.) The last checkpoint is valid: continue with --resume."
        ) from error
    return 0


def slurm(settings: TrainSettings, gpus: int, output: Path, arguments: Sequence[str]) -> list[str]:
    """The command that queues a run on nodes of so many GPUs, and one more to serve a follower without an address.

    Its log is beside the folder `output`. Raises `ConfigError` if the processes do not fill the nodes.
    """
    trainers, left = divmod(settings.plan.processes, gpus)
    if left or not trainers:
        raise ConfigError(
            f"{settings.plan.processes} processes (plan.processes) is not a multiple of {gpus} GPUs per node (--gpus)."
        )
    elsewhere = settings.reward.serve or settings.endpoint.base_url
    names = () if elsewhere else map(unplaced, settings.reward.followers)
    served = sorted({name for name in names if name})
    if len(served) > 1:
        raise ConfigError(
            f"The followers {', '.join(served)} have no address; the job serves only one. Give the others one: "
            "openai:MODEL@http://host:port/v1."
        )
    return [
        *("sbatch", f"--nodes={trainers + len(served)}", f"--gpus-per-node={gpus}", f"--output={output}-%j.log"),
        *(f"--export=ALL,FOLLOWER={''.join(served)}", str(SCRIPT), *arguments),
    ]
