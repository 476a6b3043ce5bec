"""Launch training in several processes, with torchrun on each machine or through Slurm."""

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
from promptmii.errors import ConfigError, ModelError, required_by
from promptmii.messages import counted
from promptmii.serving import model_to_serve
from promptmii.train.settings import TrainSettings

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of <linux/prctl.h>."""
SCRIPT = FOLDER / "train" / "slurm.sh"


@dataclass(frozen=True)
class Machines:
    """The machines of a run, and which of them this is."""

    count: int = 1
    this: int = 0
    """Index of this machine."""
    first: str = "localhost"
    """Address of machine 0, where the processes meet."""
    port: int = 29500


def check_processes(planned: int, running: int) -> None:
    """Raise `ConfigError` unless the planned number of processes is running. The batch sizes depend on it."""
    if running != planned:
        raise ConfigError(
            f"The configuration is for {counted(planned, 'process')} (plan.processes), but {running} are running. "
            "Start it with promptmii launch and the same arguments."
        )


def end_with_launcher() -> None:
    """Have Linux kill this process when its launcher dies, even if the launcher was killed itself.

    The signal is SIGKILL, because a process that waits in native code ignores others. Checkpoints stay intact.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def command(processes: int, machines: Machines, arguments: Sequence[str]) -> list[str]:
    """The command to run on machine `machines.this`.

    Raises `ConfigError` if that index is out of range, or the processes do not divide evenly among the machines.
    """
    if machines.this >= machines.count:
        raise ConfigError(f"--machine is {machines.this}; expected 0 to {machines.count - 1} (see --machines).")
    local, remainder = divmod(processes, machines.count)
    if remainder or not local:
        raise ConfigError(
            f"{counted(processes, 'process')} (plan.processes) cannot be divided among {machines.count} machines."
        )
    if processes == 1:
        return ["promptmii", "train", *arguments]
    rendezvous = ["--standalone"]
    if machines.count > 1:
        rendezvous = ["--nnodes", str(machines.count), "--node-rank", str(machines.this)]
        rendezvous += ["--master-addr", machines.first, "--master-port", str(machines.port)]
    return ["torchrun", *rendezvous, "--nproc-per-node", str(local), "-m", "promptmii", "train", *arguments]


def run(command_line: Sequence[str]) -> int:
    """Run a command from `command` or `slurm`. Returns its exit code, or that of the first process to fail.

    Raises `ConfigError` if this machine has too few GPUs or no Slurm, `ModelError` if a process was killed.
    """
    if command_line[0] == "sbatch":
        if shutil.which("sbatch") is None:
            raise ConfigError("sbatch was not found. Run this on a Slurm login node, or without --slurm.")
        return subprocess.run(command_line, check=False).returncode
    if command_line[0] == "torchrun":
        return _torchrun(command_line[1:])
    code = subprocess.run([sys.executable, "-m", *command_line], check=False).returncode
    if code < 0:  # on POSIX, the signal that ended it
        raise _killed(signal.Signals(-code).name, 0)
    return code


def _killed(name: str, rank: int) -> ModelError:
    return ModelError(
        f"{name} ended process {rank}, so the run stopped. (The system often sends SIGKILL when memory runs out.) "
        "The last checkpoint is valid: continue with --resume."
    )


def _torchrun(arguments: Sequence[str]) -> int:
    with required_by("promptmii launch", "train"):
        import torch
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import parse_args
        from torch.distributed.run import run as torchrun
    options = parse_args(list(arguments))
    local, gpus = int(options.nproc_per_node), torch.cuda.device_count()
    if gpus and gpus < local:
        raise ConfigError(
            f"The configuration needs {local} GPUs on this machine (plan.processes); it has {gpus}. Set "
            "plan.processes to the number of GPUs that train; --dry-run shows how the batches divide."
        )
    try:
        torchrun(options)
    except SignalException as stopped:  # torchrun has passed the signal on to the processes
        return 128 + stopped.sigval
    except ChildFailedError as error:
        # torchrun ends the other processes with SIGTERM, so any other signal is the likelier cause.
        killed = [rank for rank, f in error.failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM]
        rank = min(killed, default=error.get_first_failure()[0])
        failure = error.failures[rank]
        if failure.exitcode > 0:
            return failure.exitcode
        raise _killed(failure.signal_name(), rank) from error
    return 0


def slurm(settings: TrainSettings, gpus: int, output: Path, arguments: Sequence[str]) -> list[str]:
    """The sbatch command for a run on nodes of `gpus` GPUs. One more node serves a follower without an address.

    The log goes beside the folder `output`. Raises `ConfigError` if the processes do not fill whole nodes.
    """
    trainers, remainder = divmod(settings.plan.processes, gpus)
    if remainder or not trainers:
        raise ConfigError(
            f"{counted(settings.plan.processes, 'process')} (plan.processes) is not a multiple of {gpus} GPUs per node "
            "(--gpus)."
        )
    has_server = settings.reward.serve or settings.endpoint.base_url
    unserved = {name for name in map(model_to_serve, settings.reward.followers) if name}
    served = [] if has_server else sorted(unserved)
    if len(served) > 1:
        raise ConfigError(
            f"The followers {', '.join(served)} have no address, and the job serves only one. Name the others "
            "openai:MODEL@http://host:port/v1."
        )
    return [
        *("sbatch", f"--nodes={trainers + len(served)}", f"--gpus-per-node={gpus}", f"--output={output}-%j.log"),
        *(f"--export=ALL,FOLLOWER={''.join(served)}", str(SCRIPT), *arguments),
    ]
