"""Run reinforcement learning: from the settings to a run folder with the best weights."""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from promptmii.errors import ConfigError, EndpointError, SpendingLimitError
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.messages import counted
from promptmii.progress import QUIET, Progress
from promptmii.styles import Style
from promptmii.task import content_key
from promptmii.train.card import generator_card
from promptmii.train.launch import check_processes, end_with_launcher
from promptmii.train.loop import BEST, Best, Safeguards, checkpoints, run_loop
from promptmii.train.reward import Reward
from promptmii.train.rl.followers import open_followers
from promptmii.train.rl.plan import GrpoPlan, check_packages, grpo_plan
from promptmii.train.rl.trainer import PolicyTrainer, RewardFunction, VisitDataset
from promptmii.train.rl.watch import Watch
from promptmii.train.run_folder import VALIDATION, RunFolder, open_run
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import TaskSplit, read_split
from promptmii.train.validation import NO_VALIDATION, cases
from promptmii.train.visits import Visits, readable, style_of
from promptmii.tuning import TrainableModel

CHANGEABLE = (
    *("passes", "stuck", "endpoint", "plan", "reward.serve"),
    *("trl.max_steps", "trl.save_steps", "trl.save_total_limit", "trl.report_to"),
)
"""Settings that a resumed run may change."""


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    config: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
    followers: Sequence[Follower] | None = None,
) -> Path:
    """Train the generator in a run folder and return the path of `best/`, the weights with the best validation.

    `config` is the configuration file, which is copied; `followers` replace those in the settings. With `resume` the
    run continues from the newest complete checkpoint, as if it had never stopped. Raises `DataError`, `ConfigError` or
    `ModelError` before the first step. Later it raises `EndpointError` if the followers fail, `SpendingLimitError` if
    they cost too much, `ModelError` if training diverges and `OutputError` if the disk is full, and leaves a valid
    checkpoint.
    """
    end_with_launcher()
    style, grpo = style_of(settings), grpo_plan(settings)
    check_packages(grpo.options)
    # While one process waits for a server, the others wait for it, so their timeout must be longer.
    startup = settings.reward.serve.startup if settings.reward.serve else 0.0
    timeout = timedelta(seconds=max(1800.0, 2 * startup, 2 * (settings.reward.wait + settings.endpoint.patience)))
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timeout)
    progress = progress if state.is_main_process else QUIET
    if state.num_processes > 1:  # otherwise the group's threads may abort a process at exit
        atexit.register(state.destroy_process_group)
    check_processes(settings.plan.processes, state.num_processes)
    split = read_split(settings, progress)
    if state.num_processes == 1 and (gpus := torch.cuda.device_count()) > 1:
        progress.note(f"Training uses one of {gpus} GPUs, as plan.processes is 1")
    with ExitStack() as stack:
        opened = open_run(folder, settings, config, resume=resume, changeable=CHANGEABLE)
        run = stack.enter_context(opened if state.is_main_process else nullcontext(None))
        if followers is None:
            followers = stack.enter_context(open_followers(settings, folder, state, progress))
        trainer = _trainer(grpo, style, split, followers, folder, run, progress)
        try:
            run_loop(trainer, folder, resume=resume)
        except (EndpointError, SpendingLimitError):  # raised between two updates, so the run can resume exactly
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
    """Assemble the trainer. `run` is None except in the main process."""
    settings = grpo.settings
    # With DeepSpeed, transformers shards the weights it loads once this exists. That must affect the generator, but
    # not the followers, which are loaded already.
    config = grpo.config(folder, cpu=not torch.cuda.is_available())
    policy = TrainableModel.load(settings.model, settings.lora, settings.seed)
    if config.beta and not settings.lora and policy.below.adapters:
        raise ConfigError(
            f"trl.beta needs the initial weights a second time, but those of {settings.model} are merged and exist "
            "only in memory. Add [lora] to continue the adapter, or set trl.beta to 0."
        )
    writer = Writer(policy.local(), style, settings.budget)
    split = readable(split, settings, writer)
    for task in split.skipped:
        progress.note(f"Skipped {task}")
    if split.skipped:
        usable = f"{len(split.train)} to learn from, {len(split.validation)} to validate on"
        progress.note(f"{counted(len(split.skipped), 'task')} skipped; {usable}")
    validation_cases = cases(split.validation, settings.validation)
    if not validation_cases:
        progress.note(NO_VALIDATION)
    visits = Visits(split.train, settings, writer)
    batches = grpo.batches(visits.per_pass)
    config.max_steps = batches.steps  # known only now: it depends on the tasks that fit the generator's prompt
    reward = Reward(settings.reward, followers, style, progress)
    reward.check(visits.visit(0).episode)
    if run:
        facts = {
            "data": split.key,
            "train": [task.name for task in split.train],
            "validation": [task.name for task in split.validation],
            "skipped": list(split.skipped),
            "followers": {f.model.card.reference: f.model.card.revision for f in followers},
            "templates": {"generator": writer.template.key, "follower": content_key(style.frame)[:16]},
            "batches": vars(batches),
            "trl": config.to_dict() | {"output_dir": "."},
        }
        run.describe(facts, fixed=("data", "templates", "followers"))
    card = partial(generator_card, settings, policy.base, {task.name: task for task in split.train})
    best = Best(folder, VALIDATION, policy, card, gain=settings.validation.gain)
    reward_function = RewardFunction(reward, visits, policy, run)
    trainer = PolicyTrainer(policy, reward_function, VisitDataset(visits, batches.visits), args=config)
    trainer.add_callback(Watch(trainer, grpo, writer, followers, validation_cases, best, run, progress))
    trainer.add_callback(Safeguards(policy, "trl.learning_rate or trl.max_grad_norm"))
    return trainer
