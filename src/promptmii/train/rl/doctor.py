"""Can this run train here? Checks before it starts: packages, GPUs, memory, disk, followers and ports."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import torch

from promptmii.doctor import Check, Report, examine
from promptmii.errors import ConfigError
from promptmii.extras import unmet
from promptmii.models.http.config import Served, addresses
from promptmii.progress import Progress
from promptmii.serving import unplaced
from promptmii.serving.process import command_line
from promptmii.train.launch import Machines
from promptmii.train.rl.estimate import ASSUMED, GIB, Shape, memory, stage
from promptmii.train.rl.plan import GrpoPlan, grpo_plan
from promptmii.train.run_folder import versions
from promptmii.train.settings import TrainSettings


def examine_run(settings: TrainSettings, folder: Path, progress: Progress) -> Report:
    """Every check of a run; nothing is trained and nothing written. Raises `ConfigError` for an option TRL refuses."""
    grpo = grpo_plan(settings)
    checks = [_packages(grpo), _gpus(settings), *_memory(grpo), _disk(grpo, folder)]
    checks += [check for reference in settings.reward.followers for check in _follower(reference, settings, progress)]
    return Report(settings.model, (*checks, *_ports(grpo)))


def _packages(grpo: GrpoPlan) -> Check:
    lacking = unmet("train")
    wanted = {"vllm": "use_vllm", "deepspeed": "deepspeed"}
    gpu = {name: line for name, line in unmet("gpu").items() if grpo.options.get(wanted.get(name, ""))}
    if lacking or gpu:
        extra = "gpu" if gpu else "train"
        return Check("packages", False, ", ".join((lacking | gpu).values()), f"pip install 'promptmii[{extra}]'")
    return Check("packages", True, ", ".join(f"{name} {version}" for name, version in versions().items()))


def _gpus(settings: TrainSettings) -> Check:
    count, processes, serve = torch.cuda.device_count(), settings.plan.processes, settings.reward.serve
    if not count:
        return Check("GPUs", True, f"none: {processes} process(es) would train on this processor")
    beside = 0
    if serve and serve.devices is None:
        beside = serve.copies * sum(serve.needs(name) for name in settings.reward.followers if unplaced(name))
    said = f"{count} x {torch.cuda.get_device_name()}; plan.processes = {processes}, and {beside} for reward.serve"
    cure = "More machines: promptmii launch --machines, or --slurm. Fewer processes: plan.processes."
    fits = processes + beside <= count
    return Check("GPUs", fits, said, "" if fits else cure)


def _memory(grpo: GrpoPlan) -> Iterator[Check]:
    count = torch.cuda.device_count()
    gpu = min((torch.cuda.get_device_properties(n).total_memory / GIB for n in range(count)), default=ASSUMED)
    terms = memory(grpo, gpu)
    if not terms:
        yield Check("memory", True, f"not known: the configuration of {grpo.settings.model} is not on this machine")
        return
    total = sum(term.gib for term in terms)
    for term in terms:
        yield Check(f"memory, {term.name}", True, f"{term.gib:.1f} GiB = {term.how}")
    cure = "Lower trl.per_device_train_batch_size, longest_prompt or trl.vllm_gpu_memory_utilization, or add [lora]."
    fits = total <= gpu
    assumed = "" if count else " (assumed: no GPU is here)"
    yield Check("memory, sum", fits, f"{total:.0f} GiB of a GPU's {gpu:.0f}{assumed}", "" if fits else cure)


def _disk(grpo: GrpoPlan, folder: Path) -> Check:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / GIB
    settings, shape = grpo.settings, Shape.of(grpo.settings.model)
    if shape is None:
        return Check("disk", True, f"{free:.0f} GiB free in {there}")
    trained = shape.adapter(settings.lora.rank) if settings.lora else shape.weights
    kept = int(grpo.options["save_total_limit"]) + 1  # while the next is written, the old ones are there
    # 32-bit weights and Adam's two moments; of ZeRO-3 the gathered and the spread 16-bit weights too.
    each = 16 if stage(grpo.options) else 12
    needed = trained * (each * kept + 4) / GIB
    terms = f"{trained:.3g} weights x ({each} bytes x {kept} checkpoints + 4 for best/)"
    said = f"{free:.0f} GiB free in {there}; {needed:.1f} needed = {terms}"
    return Check("disk", needed <= free, said, "" if needed <= free else "Make room, or lower trl.save_total_limit.")


def _follower(reference: str, settings: TrainSettings, progress: Progress) -> Iterator[Check]:
    served, serve = Served.parse(reference), settings.reward.serve
    if served is None:
        yield Check("follower", True, f"{reference} runs in the training processes")
        return
    if serve and served.address is None:
        try:
            words = command_line(serve, reference, port=0, gpus=serve.needs(reference))
            yield Check("follower", True, f"{reference}: the run starts {serve.copies} x {words[0]}")
        except ConfigError as error:
            yield Check("follower", False, f"{reference}: {serve.engine} is not here", str(error))
        return
    for address in addresses(served.address or settings.endpoint.base_url):
        report = examine(f"openai:{served.model}@{address}", settings.endpoint, progress)
        wrong = [
            check
            for check in report.checks
            if not check.ok and (settings.reward.mode == "choose" or check.name != "choose")
        ]
        if wrong:
            yield Check("follower", False, f"{address}: {wrong[0].name}: {wrong[0].finding}", wrong[0].cure)
        else:
            yield Check("follower", True, f"{address}: {report.checks[-1].finding}")


def _ports(grpo: GrpoPlan) -> Iterator[Check]:
    wanted: dict[str, int] = {}
    if grpo.settings.plan.processes > 1:
        wanted["processes of several machines"] = int(os.environ.get("MASTER_PORT", Machines.port))
    if grpo.options.get("use_vllm") and grpo.options.get("vllm_mode") == "server":
        wanted["weights to vLLM (trl.vllm_group_port)"] = int(grpo.options.get("vllm_group_port", 51216))
    for purpose, port in wanted.items():
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free = tried.connect_ex(("localhost", port)) != 0
        yield Check(
            "port", free, f"{port} for {purpose} is {'free' if free else 'taken'}", "" if free else "Choose another."
        )
