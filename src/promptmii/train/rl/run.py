"""A training run of the generator, from settings to a folder with the best weights in it."""

from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from promptmii.errors import ConfigError, EndpointError, MissingDependencyError
from promptmii.follower import Follower
from promptmii.models.dynamic_batching import for_threads
from promptmii.progress import QUIET, Progress
from promptmii.prompts import follower_frame
from promptmii.train.reward import Draft, Judged, Reward
from promptmii.train.rl.plan import Algebra, algebra, resolve
from promptmii.train.run_folder import RunFolder, open_run
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import Source, read_source
from promptmii.train.visits import Deck, readable_source

try:
    import torch
    from accelerate import PartialState
    from transformers import PrinterCallback

    from promptmii.models.hf.model import quiet
    from promptmii.train.policy import Policy
    from promptmii.train.rl.trainer import LostError, PolicyTrainer, Visits, checkpoints
    from promptmii.train.rl.watch import Watch
    from promptmii.train.validation import cases
    from promptmii.train.visits import writer_for
except ImportError as error:
    raise MissingDependencyError("Training with reinforcement learning", "train") from error

FREE = (
    "passes",
    "stuck",
    "endpoint",
    "plan",
    "trl.max_steps",
    "trl.save_steps",
    "trl.save_total_limit",
    "trl.report_to",
)
"""Settings that a resumed run may change."""
SAMPLED = 10
"""Drafts that are written down at each step."""


@dataclass
class RewardFunction:
    """The reward as TRL calls it: once per process and rollout, with the drafts of that process."""

    reward: Reward
    deck: Deck
    policy: "Policy"
    folder: RunFolder | None
    lost: str | None = None
    """Why the last rollout could not be judged."""
    __name__ = "follower"

    def __call__(
        self,
        completion_ids: Sequence[Sequence[int]],
        visit: Sequence[int],
        trainer_state: Any,
        log_metric: Any,
        **_: Any,
    ) -> list[float | None]:
        """One reward per draft; `None` where a follower failed."""
        form = self.policy.form
        drafts = [
            Draft(
                self.deck.visit(number).episode, form.decode(ids).strip(), len(ids), not ids or ids[-1] not in form.ends
            )
            for ids, number in zip(completion_ids, visit, strict=True)
        ]
        try:
            judged = self.reward.judge(drafts)
        except EndpointError as error:
            self.lost = str(error)
            return [None] * len(drafts)
        self.lost = None
        self._log(drafts, judged, visit, log_metric)
        if self.folder:
            rows = zip(drafts[:SAMPLED], judged, visit, strict=False)
            self.folder.samples([_row(trainer_state.global_step + 1, *row) for row in rows])
        return [one.reward for one in judged]

    def _log(self, drafts: Sequence[Draft], judged: Sequence[Judged], visit: Sequence[int], log_metric: Any) -> None:
        known = [(one, draft) for one, draft in zip(judged, drafts, strict=True) if one.reward is not None]
        if known:
            log_metric("train/score", fmean(one.score or 0.0 for one, _ in known))
            log_metric("unparsed", fmean([one.unparsed for one, draft in known if draft.text] or [0.0]))
        log_metric("copied", fmean(one.copied for one in judged))
        log_metric("failed", fmean(one.reward is None for one in judged))
        log_metric("fewer_examples", fmean(self.deck.visit(number).shortened for number in visit))
        distinct = len({(number, draft.text) for number, draft in zip(visit, drafts, strict=True)})
        log_metric("repeated", 1 - (distinct - len(set(visit))) / max(len(drafts) - len(set(visit)), 1))


def _row(step: int, draft: Draft, judged: Judged, visit: int) -> dict[str, Any]:
    episode = draft.episode
    return {
        "step": step,
        "task": episode.task,
        "visit": visit,
        "n": len(episode.support.examples),
        "reward": judged.reward,
        "score": judged.score,
        "tokens": draft.tokens,
        "unfinished": draft.unfinished,
        "unparsed": round(judged.unparsed, 3),
        "copied": judged.copied,
        "failure": judged.failure,
        "text": draft.text,
    }


def followers_of(settings: TrainSettings, processes: int) -> list[Follower]:
    """The frozen followers of the reward, as each of so many processes asks them. Raises `ModelError`."""
    chosen = settings.reward
    # The limit is that of all processes together.
    endpoint = settings.endpoint.model_copy(update={"concurrency": max(1, settings.endpoint.concurrency // processes)})
    models = [for_threads(endpoint.load(reference)) for reference in chosen.followers]
    return [Follower(model, chosen.mode, chosen.calibration) for model in models]


def train(
    settings: TrainSettings,
    folder: Path,
    *,
    given: Path | None = None,
    resume: bool = False,
    progress: Progress = QUIET,
    followers: Sequence[Follower] | None = None,
) -> Path:
    """Train the generator into a run folder; `best/` in it holds the weights that did best on the validation tasks.

    `given` is the configuration file, kept verbatim; `followers` stand in for those that the settings name. With `resume` it goes on from
    the newest whole checkpoint, as if it had never stopped. Raises `DataError`, `ConfigError`, `ModelError` before the first step;
    afterwards `EndpointError` when followers are lost, `ModelError` when a loss is no number and `OutputError` on a full disk, each with
    a valid checkpoint in the folder.
    """
    # While one process waits for a server, the others wait for that process.
    patience = timedelta(seconds=max(1800.0, 2 * (settings.reward.wait + settings.endpoint.patience)))
    state = PartialState(timeout=patience) if torch.cuda.is_available() else PartialState(cpu=True, timeout=patience)
    progress = progress if state.is_main_process else QUIET
    source = read_source(settings, progress)
    batches = algebra(settings, len(source.train) * sum(settings.schedule.values()), state.num_processes)
    if batches.processes != settings.plan.processes:
        raise ConfigError(
            f"The configuration is for {settings.plan.processes} process(es) (plan.processes), and {batches.processes} are running. "
            f"Start it with: accelerate launch --num_processes {settings.plan.processes} -m promptmii train ..."
        )
    with ExitStack() as stack:
        opened = (
            open_run(folder, settings, given, resume=resume, free=FREE) if state.is_main_process else nullcontext(None)
        )
        run = stack.enter_context(opened)
        if followers is None:
            followers = followers_of(settings, state.num_processes)
            for follower in followers:
                stack.enter_context(closing(follower.model))
        return _Run(settings, folder, source, batches, followers, run, progress).train(resume)


class _Run:
    """One process of a run."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        source: Source,
        batches: Algebra,
        followers: Sequence[Follower],
        run: RunFolder | None,
        progress: Progress,
    ) -> None:
        cpu = not torch.cuda.is_available()
        self._folder = folder
        self._progress = progress
        arguments = resolve(
            settings, folder, batches, cpu=cpu
        )  # before the weights, which a sharded run loads in parts
        policy = Policy.load(settings.model, settings.lora, settings.seed)
        if arguments.beta and not settings.lora and policy.below.adapters:
            raise ConfigError(
                f"With trl.beta the weights of the start are loaded once more, and those of {settings.model} exist merged in memory alone. "
                "Add [lora] to train the adapter on, or set trl.beta to 0."
            )
        writer = writer_for(settings, policy.local(0))
        source = readable_source(source, settings, writer)
        self._say_what_is_left_out(source, settings)
        deck = Deck(source.train, settings, writer)
        batches = algebra(settings, deck.per_pass, batches.processes)
        arguments.max_steps = batches.steps  # all that depends on the number of tasks
        reward = Reward(settings.reward, followers, progress=self._progress)
        reward.check(deck.visit(0).episode)
        function = RewardFunction(reward, deck, policy, run)
        watch = Watch(settings, policy, followers, source, batches.boundary, run, self._progress)
        self._trainer = PolicyTrainer(
            policy,
            function,
            lambda: function.lost,
            args=arguments,
            visits=Visits(deck, batches.visits),
            callbacks=[watch],
        )
        self._trainer.remove_callback(PrinterCallback)  # the watch says what is worth saying
        watch.attach(self._trainer)
        if run:
            run.describe(
                same=("data", "templates", "followers"),
                facts={
                    "data": source.key,
                    "train": [task.name for task in source.train],
                    "validation": [task.name for task in source.validation],
                    "skipped": list(source.skipped),
                    "templates": {"generator": writer.template.key, "follower": follower_frame().key},
                    "followers": {f.model.card.reference: f.model.card.revision for f in followers},
                    "batches": vars(batches),
                    "trl": arguments.to_dict() | {"output_dir": "."},
                },
            )

    def _say_what_is_left_out(self, source: Source, settings: TrainSettings) -> None:
        for line in source.skipped:
            self._progress.note(f"Skipped {line}")
        if source.skipped:
            self._progress.note(
                f"{len(source.skipped)} tasks skipped; {len(source.train)} to learn from, {len(source.validation)} to validate on"
            )
        if not cases(source.validation, settings):
            self._progress.note(
                "No task is left for validation, so no weights are called the best. Raise validation.share, or name tasks there."
            )

    def train(self, resume: bool) -> Path:
        trainer = self._trainer
        found = checkpoints(self._folder) if resume else []
        try:
            with quiet():
                trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
        except LostError:  # followers are asked between two updates only, so this is where a run can go on exactly
            if trainer.state.global_step:
                trainer.save_now()
            raise
        best = self._folder / "best"
        return best if best.exists() else checkpoints(self._folder)[-1]
