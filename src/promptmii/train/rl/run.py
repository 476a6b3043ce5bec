"""A run of reinforcement learning, from settings to a folder with the best weights in it."""

import atexit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from promptmii.curves import VALIDATION
from promptmii.errors import ConfigError, MissingDependencyError, counted
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.progress import QUIET, Progress
from promptmii.styles import Style
from promptmii.task import content_key
from promptmii.train.launch import check_processes, end_with_launcher
from promptmii.train.reward import Reward
from promptmii.train.rl.plan import GrpoPlan, check_packages, grpo_plan
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import TaskSplit, read_split
from promptmii.train.visits import Visits, readable, style_of

try:
    import torch
    from accelerate import PartialState

    from promptmii.train.loop import BEST, Best, Safeguards, checkpoints, generator_card, run_loop
    from promptmii.train.rl.followers import open_followers
    from promptmii.train.rl.trainer import LostError, PolicyTrainer, RewardFunction, VisitDataset
    from promptmii.train.rl.watch import Watch
    from promptmii.train.validation import NO_VALIDATION, Case, cases
    from promptmii.tuning import TrainableModel
except ImportError as error:
    raise MissingDependencyError("Training with reinforcement learning", "train") from error

FREE = (
    "passes",
    "stuck",
    "endpoint",
    "plan",
    "reward.serve",
    "trl.max_steps",
    "trl.save_steps",
    "trl.save_total_limit",
    "trl.report_to",
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
        trainer = _Process(grpo, style, folder, processes, run, progress).trainer(split, followers)
        try:
            run_loop(trainer, folder, resume=resume)
        except LostError:  # followers are asked between two updates only, so from here a run can go on exactly
            if trainer.state.global_step:
                trainer.save_now()
            raise
    best = folder / BEST
    return best if best.exists() else checkpoints(folder)[-1]


@dataclass(frozen=True)
class _Process:
    """One process of a run."""

    grpo: GrpoPlan
    style: Style
    folder: Path
    processes: int
    run: RunFolder | None
    """`None` in every process but the one that writes."""
    progress: Progress

    def trainer(self, split: TaskSplit, followers: Sequence[Follower]) -> PolicyTrainer:
        """Everything that a run needs, put together; the folder says what it was made with."""
        settings = self.grpo.settings
        # TRL's configuration comes before the weights, because a sharded run loads them in parts, and after the
        # followers, which no run shards.
        batches = self.grpo.batches(len(split.train), self.processes)
        config = self.grpo.config(self.folder, batches, cpu=not torch.cuda.is_available())
        policy = TrainableModel.load(settings.model, settings.lora, settings.seed)
        self._check_reference(config.beta, policy)
        writer = Writer(policy.local(0), self.style, settings.budget)
        split = readable(split, settings, writer)
        watched = cases(split.validation, settings.validation)
        self._tell_skipped(split, watched)
        visits = Visits(split.train, settings, writer)
        batches = self.grpo.batches(visits.per_pass, self.processes)
        config.max_steps = batches.steps  # all that depends on the number of tasks
        reward = Reward(settings.reward, followers, self.style, self.progress)
        reward.check(visits.visit(0).episode)
        if self.run:
            templates = {"generator": writer.template.key, "follower": content_key(self.style.frame)[:16]}
            trl = config.to_dict() | {"output_dir": "."}
            self._describe(self.run, split, followers, {"templates": templates, "batches": vars(batches), "trl": trl})
        card = partial(generator_card, settings, policy.base, {task.name: task for task in split.train})
        best = Best(self.folder, VALIDATION, policy, card, gain=settings.validation.gain)
        function = RewardFunction(reward, visits, policy, self.run)
        watch = Watch(settings, writer, policy, followers, watched, best, self.run, self.progress)
        trainer = PolicyTrainer(
            policy,
            function,
            args=config,
            visits=VisitDataset(visits, batches.visits),
            callbacks=[watch, Safeguards(policy, "trl.learning_rate or trl.max_grad_norm")],
        )
        watch.attach(trainer, batches.boundary)
        return trainer

    def _check_reference(self, beta: float, policy: TrainableModel) -> None:
        if beta and not self.grpo.settings.lora and policy.below.adapters:
            raise ConfigError(
                f"With trl.beta the weights of the start are loaded once more, and those of {policy.reference} exist "
                "merged in memory alone. Add [lora] to train the adapter on, or set trl.beta to 0."
            )

    def _tell_skipped(self, split: TaskSplit, watched: Sequence[Case]) -> None:
        for line in split.skipped:
            self.progress.note(f"Skipped {line}")
        if split.skipped:
            left = f"{len(split.train)} to learn from, {len(split.validation)} to validate on"
            self.progress.note(f"{counted(len(split.skipped), 'task')} skipped; {left}")
        if not watched:
            self.progress.note(NO_VALIDATION)

    def _describe(
        self, run: RunFolder, split: TaskSplit, followers: Sequence[Follower], facts: Mapping[str, Any]
    ) -> None:
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
