"""Checks before a run: packages, GPUs, memory, disk, followers and ports."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from promptmii.doctor import Check, Report, examine
from promptmii.errors import ConfigError
from promptmii.extras import unmet
from promptmii.messages import counted
from promptmii.models.http.config import addresses
from promptmii.models.references import ServerReference
from promptmii.progress import Progress
from promptmii.serving import model_to_serve
from promptmii.serving.process import command_line
from promptmii.train.launch import Machines
from promptmii.train.rl.memory import ASSUMED_GPU, GIB, ModelSize, memory_terms, zero_stage
from promptmii.train.rl.plan import GrpoPlan, grpo_plan
from promptmii.train.run_folder import versions
from promptmii.train.settings import TrainSettings


def examine_run(settings: TrainSettings, folder: Path, progress: Progress) -> Report:
    """Check a run without training or writing anything. Raises `ConfigError` for an option that TRL refuses."""
    grpo = grpo_plan(settings)
    checks = [_packages(grpo), _gpus(settings), *_memory(grpo), _disk(grpo, folder)]
    checks += [check for reference in settings.reward.followers for check in _follower(reference, settings, progress)]
    return Report(settings.model, (*checks, *_ports(grpo)))


def _packages(grpo: GrpoPlan) -> Check:
    train, gpu = unmet("train"), unmet("gpu")
    options = {"vllm": "use_vllm", "deepspeed": "deepspeed"}
    needed = {name: gpu[name] for name, option in options.items() if name in gpu and grpo.options.get(option)}
    if train or needed:
        extra = "gpu" if needed else "train"
        return Check("packages", False, ", ".join((train | needed).values()), f"pip install 'promptmii[{extra}]'")
    return Check("packages", True, ", ".join(f"{name} {version}" for name, version in versions().items()))


def _gpus(settings: TrainSettings) -> Check:
    count, processes, serve = torch.cuda.device_count(), settings.plan.processes, settings.reward.serve
    if not count:
        return Check("GPUs", True, f"none: {counted(processes, 'process')} would train on the CPU")
    server_gpus = 0
    if serve and serve.devices is None:
        server_gpus = serve.copies * sum(
            serve.needs(name) for name in settings.reward.followers if model_to_serve(name)
        )
    finding = (
        f"{count} x {torch.cuda.get_device_name()}; plan.processes = {processes}, and {server_gpus} for reward.serve"
    )
    cure = "More machines: promptmii launch --machines, or --slurm. Fewer processes: plan.processes."
    fits = processes + server_gpus <= count
    return Check("GPUs", fits, finding, "" if fits else cure)


def _memory(grpo: GrpoPlan) -> Iterator[Check]:
    gpus = [torch.cuda.get_device_properties(n).total_memory / GIB for n in range(torch.cuda.device_count())]
    on_cpu = not (gpus or grpo.options.get("use_vllm") or grpo.options.get("deepspeed"))
    room = psutil.virtual_memory().total / GIB if on_cpu else min(gpus, default=ASSUMED_GPU)
    terms = memory_terms(grpo, None if on_cpu else room)
    if not terms:
        yield Check("memory", True, f"unknown: the configuration of {grpo.settings.model} is not on this machine")
        return
    for term in terms:
        yield Check(f"memory, {term.name}", True, f"{term.gib:.1f} GiB = {term.how}")
    total = sum(term.gib for term in terms)
    cure = "Lower trl.per_device_train_batch_size, longest_prompt or trl.vllm_gpu_memory_utilization, or add [lora]."
    finding = f"{total:.0f} GiB of a GPU's {room:.0f}"
    if on_cpu:
        finding = f"{total:.0f} of this machine's {room:.0f} GiB, as it has no GPU; --dry-run plans for a GPU elsewhere"
    elif not gpus:
        finding = f"{total:.0f} GiB. This machine has no GPU, so this is compared with an assumed one of {room:.0f} GiB"
    yield Check("memory, sum", total <= room, finding, "" if total <= room else cure)


def _disk(grpo: GrpoPlan, folder: Path) -> Check:
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free / GIB
    settings, size = grpo.settings, ModelSize.of(grpo.settings.model)
    if size is None:
        return Check("disk", True, f"{free:.0f} GiB free in {parent}")
    trained = size.adapter(settings.lora.rank) if settings.lora else size.weights
    checkpoints = int(grpo.options["save_total_limit"]) + 1  # the oldest is deleted after the newest is written
    # Weights and Adam's two moments in 32 bits; with ZeRO-3 also the 16-bit weights, gathered and sharded.
    width = 16 if zero_stage(grpo.options) else 12
    needed = trained * (width * checkpoints + 4) / GIB
    terms = f"{trained:.3g} weights x ({width} bytes x {checkpoints} checkpoints + 4 for best/)"
    finding = f"{free:.0f} GiB free in {parent}; {needed:.1f} needed = {terms}"
    return Check("disk", needed <= free, finding, "" if needed <= free else "Make room, or lower trl.save_total_limit.")


def _follower(reference: str, settings: TrainSettings, progress: Progress) -> Iterator[Check]:
    server, serve = ServerReference.parse(reference), settings.reward.serve
    if server is None:
        yield Check("follower", True, f"{reference} runs in the training processes")
        return
    if serve and server.address is None:
        try:
            program, *_ = command_line(serve, reference, port=0, gpus=serve.needs(reference))
            yield Check("follower", True, f"{reference}: the run starts {serve.copies} x {program}")
        except ConfigError as error:
            yield Check("follower", False, f"{reference}: {serve.engine} is not installed", str(error))
        return
    for address in addresses(server.address or settings.endpoint.base_url):
        report = examine(f"openai:{server.model}@{address}", settings.endpoint, progress)
        needed = [check for check in report.checks if settings.reward.mode == "choose" or check.name != "choose"]
        failed = next((check for check in needed if not check.ok), None)
        if failed:
            yield Check("follower", False, f"{address}: {failed.name}: {failed.finding}", failed.cure)
        else:
            yield Check("follower", True, f"{address}: {report.checks[-1].finding}")


def _ports(grpo: GrpoPlan) -> Iterator[Check]:
    ports: dict[str, int] = {}
    if grpo.settings.plan.processes > 1:
        ports["processes of several machines"] = int(os.environ.get("MASTER_PORT", Machines.port))
    if grpo.options.get("use_vllm") and grpo.options.get("vllm_mode") == "server":
        ports["weights to vLLM (trl.vllm_group_port)"] = int(grpo.options.get("vllm_group_port", 51216))
    for purpose, port in ports.items():
        with socket.socket() as client:
            free = client.connect_ex(("localhost", port)) != 0
        finding = f"{port} for {purpose} is {'free' if free else 'taken'}"
        yield Check("port", free, finding, "" if free else "Choose another.")
