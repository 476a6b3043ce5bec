"""A run of reinforcement learning, from settings to a folder with the best weights in it."""

import atexit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from promptmii.curves import VALIDATION
from promptmii.errors import ConfigError, counted
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.progress import QUIET, Progress
from promptmii.styles import Style
from promptmii.task import content_key
from promptmii.train.launch import check_processes, end_with_launcher
from promptmii.train.loop import BEST, Best, Safeguards, checkpoints, generator_card, run_loop
from promptmii.train.reward import Reward
from promptmii.train.rl.followers import open_followers
from promptmii.train.rl.plan import GrpoPlan, check_packages, grpo_plan
from promptmii.train.rl.trainer import LostError, PolicyTrainer, RewardFunction, VisitDataset
from promptmii.train.rl.watch import Watch
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import TaskSplit, read_split
from promptmii.train.validation import NO_VALIDATION, Case, cases
from promptmii.train.visits import Visits, readable, style_of
from promptmii.tuning import TrainableModel

FREE = (
    *("passes", "stuck", "endpoint", "plan", "reward.serve"),
    *("trl.max_steps", "trl.save_steps", "trl.save_total_limit", "trl.report_to"),
)
"""Settings that a resumed run may change."""


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
    followers: Sequence[Follower] | None = None,
) -> Path:
    """Train the generator into a run folder and return `best/`, which holds the weights that did best in validation.

    `given` is the configuration file, kept verbatim; `followers` replace those that the settings name. With `resume`
    the run goes on from the newest whole checkpoint, as if it had never stopped. Raises `DataError`, `ConfigError` and
    `ModelError` before the first step; later `EndpointError` if followers are lost, `ModelError` if training diverges
    and `OutputError` on a full disk, each with a valid checkpoint in the folder.
    """
    end_with_launcher()
    style, grpo = style_of(settings), grpo_plan(settings)
    check_packages(grpo.options)
    # While one process waits for a server, the others wait for that process.
    startup = settings.reward.serve.startup if settings.reward.serve else 0.0
    patience = timedelta(seconds=max(1800.0, 2 * startup, 2 * (settings.reward.wait + settings.endpoint.patience)))
    state = PartialState(timeout=patience) if torch.cuda.is_available() else PartialState(cpu=True, timeout=patience)
    progress = progress if state.is_main_process else QUIET
    processes = state.num_processes
    if processes > 1:  # threads of an open group can abort a process that ends
        atexit.register(state.destroy_process_group)
    check_processes(settings.plan.processes, processes)
    split = read_split(settings, progress)
    grpo.batches(len(split.train), processes)
    if processes == 1 and (gpus := torch.cuda.device_count()) > 1:
        progress.note(f"Training uses one of {gpus} GPUs, as plan.processes is 1")
    with ExitStack() as stack:
        opened = open_run(folder, settings, given, resume=resume, free=FREE)
        run = stack.enter_context(opened if state.is_main_process else nullcontext(None))
        if followers is None:
            followers = stack.enter_context(open_followers(settings, folder, state, progress))
        trainer = _trainer(grpo, style, split, followers, folder, run, progress)
        try:
            run_loop(trainer, folder, resume=resume)
        except LostError:  # followers are asked between two updates only, so from here a run can go on exactly
            if trainer.state.global_step:
                trainer.save_now()
            raise
    best = folder / BEST
    return best if best.exists() else checkpoints(folder)[-1]


def _trainer(
    grpo: GrpoPlan,
    style: Style,
    split: TaskSplit,
    followers: Sequence[Follower],
    folder: Path,
    run: RunFolder | None,
    progress: Progress,
) -> PolicyTrainer:
    """Everything that a run needs, put together; `run`, in the process that writes, says what it was made with."""
    settings, processes = grpo.settings, PartialState().num_processes
    # TRL's configuration comes before the weights, because a sharded run loads them in parts, and after the
    # followers, which no run shards.
    config = grpo.config(folder, grpo.batches(len(split.train), processes), cpu=not torch.cuda.is_available())
    policy = TrainableModel.load(settings.model, settings.lora, settings.seed)
    if config.beta and not settings.lora and policy.below.adapters:
        raise ConfigError(
            f"With trl.beta the weights of the start are loaded once more, and those of {settings.model} exist "
            "merged in memory alone. Add [lora] to train the adapter on, or set trl.beta to 0."
        )
    writer = Writer(policy.local(), style, settings.budget)
    split = readable(split, settings, writer)
    watched = cases(split.validation, settings.validation)
    _tell_skipped(split, watched, progress)
    visits = Visits(split.train, settings, writer)
    batches = grpo.batches(visits.per_pass, processes)
    config.max_steps = batches.steps  # all that depends on the number of tasks
    reward = Reward(settings.reward, followers, style, progress)
    reward.check(visits.visit(0).episode)
    if run:
        templates = {"generator": writer.template.key, "follower": content_key(style.frame)[:16]}
        trl = config.to_dict() | {"output_dir": "."}
        _describe(run, split, followers, {"templates": templates, "batches": vars(batches), "trl": trl})
    card = partial(generator_card, settings, policy.base, {task.name: task for task in split.train})
    best = Best(folder, VALIDATION, policy, card, gain=settings.validation.gain)
    watch = Watch(settings, writer, policy, followers, watched, best, run, progress)
    trainer = PolicyTrainer(
        policy,
        RewardFunction(reward, visits, policy, run),
        args=config,
        visits=VisitDataset(visits, batches.visits),
        callbacks=[watch, Safeguards(policy, "trl.learning_rate or trl.max_grad_norm")],
    )
    watch.attach(trainer, batches.boundary)
    return trainer


def _tell_skipped(split: TaskSplit, watched: Sequence[Case], progress: Progress) -> None:
    for line in split.skipped:
        progress.note(f"Skipped {line}")
    if split.skipped:
        left = f"{len(split.train)} to learn from, {len(split.validation)} to validate on"
        progress.note(f"{counted(len(split.skipped), 'task')} skipped; {left}")
    if not watched:
        progress.note(NO_VALIDATION)


def _describe(run: RunFolder, split: TaskSplit, followers: Sequence[Follower], facts: Mapping[str, Any]) -> None:
    run.describe(
        same=("data", "templates", "followers"),
        facts={
            "data": split.key,
            "train": [task.name for task in split.train],
            "validation": [task.name for task in split.validation],
            "skipped": list(split.skipped),
            "followers": {f.model.card.reference: f.model.card.revision for f in followers},
            **facts,
        },
    )
