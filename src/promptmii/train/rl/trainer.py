"""An adapted GRPO trainer of TRL. No other module depends on TRL's internals.

If each process holds all weights, the local engine writes the drafts, and a group's prompt is computed only once for
writing and once for learning. The loss, advantages, vLLM and distribution are TRL's. `tests/train/rl/test_trl.py` lists
the overridden methods and the names used, and fails if TRL changes them.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from promptmii.errors import ConfigError, EndpointError, SpendingLimitError
from promptmii.models.base import Sampling
from promptmii.models.hf.engines import engine_for
from promptmii.task import content_key
from promptmii.train.reward import Draft, Judged, Reward
from promptmii.train.rl.likelihoods import can_share, draft_logps
from promptmii.train.run_folder import RunFolder
from promptmii.train.visits import Visits
from promptmii.tuning import TrainableModel
from promptmii.tuning.lora import merged

LOCAL = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
"""Kinds of distribution in which each process holds all weights."""
SAMPLED = 10
"""Drafts per rollout to save in samples.jsonl."""


class Clock:
    """Adds up the seconds of each phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._steps = 0

    @contextmanager
    def __call__(self, phase: str) -> Generator[None]:
        """Time a block."""
        started = perf_counter()
        try:
            yield
        finally:
            self.add(phase, perf_counter() - started)

    def add(self, phase: str, seconds: float) -> None:
        """Add a measured time."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
        self._steps += phase == "step"

    def take(self) -> dict[str, float]:
        """Seconds per step since the last call, by phase.

        The phases are generate, reward, layout (the rest of a rollout), update (the rest of a step) and the whole step.
        """
        phases, steps = self._seconds, max(self._steps, 1)
        self._seconds, self._steps = {}, 0
        rollout, step = phases.pop("rollout", 0.0), phases.pop("step", 0.0)
        inner = phases.get("generate", 0.0) + phases.get("reward", 0.0)
        phases |= {"update": max(step - rollout, 0.0), "step": step, "layout": max(rollout - inner, 0.0)}
        return {f"seconds/{phase}": seconds / steps for phase, seconds in phases.items()}


@dataclass
class VisitDataset:
    """The visits as a dataset for TRL. They are drawn on access, so that many passes need no memory."""

    visits: Visits
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"visit": number, "prompt": [dict(message) for message in self.visits.visit(number).chat]}


@dataclass
class RewardFunction:
    """Judges the drafts of a rollout and logs the results."""

    reward: Reward
    visits: Visits
    policy: TrainableModel
    run: RunFolder | None
    failure: EndpointError | SpendingLimitError | None = None
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
        """One reward per draft; `None` if a follower failed."""
        drafts = [self._draft(ids, number) for ids, number in zip(completion_ids, visit, strict=True)]
        try:
            judged = self.reward.judge(drafts)
        except (EndpointError, SpendingLimitError) as error:
            self.failure = error
            return [None] * len(drafts)
        self.failure = None
        self._log(drafts, judged, visit, log_metric)
        if self.run:
            rows = zip(drafts[:SAMPLED], judged, visit, strict=False)
            self.run.log_samples([_row(trainer_state.global_step + 1, *row) for row in rows])
        return [judgement.reward for judgement in judged]

    def _draft(self, ids: Sequence[int], number: int) -> Draft:
        form = self.policy.form
        unfinished = not ids or ids[-1] not in form.ends
        return Draft(self.visits.visit(number).episode, form.decode(ids).strip(), len(ids), unfinished)

    def _log(self, drafts: Sequence[Draft], judged: Sequence[Judged], numbers: Sequence[int], log_metric: Any) -> None:
        pairs = zip(drafts, judged, strict=True)
        rewarded = [(draft, judgement) for draft, judgement in pairs if judgement.reward is not None]
        if rewarded:
            log_metric("train/score", fmean(judgement.score or 0.0 for _, judgement in rewarded))
            log_metric("unparsed", fmean([judgement.unparsed for draft, judgement in rewarded if draft.text] or [0.0]))
        log_metric("copied", fmean(judgement.copied for judgement in judged))
        log_metric("failed", fmean(judgement.reward is None for judgement in judged))
        log_metric("fewer_examples", fmean(self.visits.visit(number).shortened for number in numbers))
        groups = len(set(numbers))
        distinct = len({(number, draft.text) for number, draft in zip(numbers, drafts, strict=True)})
        # The first draft of a group cannot be a repetition.
        log_metric("repeated", 1 - (distinct - groups) / max(len(drafts) - groups, 1))


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


class PolicyTrainer(GRPOTrainer):
    """The trainer of one process in a run."""

    def __init__(self, policy: TrainableModel, reward: RewardFunction, visits: VisitDataset, **options: Any) -> None:
        self._policy = policy
        self._reward = reward
        self.clock = Clock()
        self.rollout: list[tuple[list[int], list[int]]] = []
        """Tokens of the prompts and drafts in this process's last rollout."""
        engine_for(policy.model)  # also sets the attention implementation that packed rows need
        policy.pad_on("left")
        policy.model.generation_config.eos_token_id = policy.form.ends  # tokens that end a turn of the chat template
        super().__init__(
            model=policy.trained,
            reward_funcs=[reward],
            processing_class=policy.tokenizer,
            train_dataset=Dataset.from_dict({"prompt": [""]}),  # a placeholder, because TRL would read all visits
            **options,
        )
        self.train_dataset: Any = visits
        self.eos_token_ids = policy.form.ends
        if self.is_fsdp_enabled:
            raise ConfigError(
                "Training under FSDP is not supported. Spread the weights with DeepSpeed ZeRO-3: see docs/scale.md."
            )

    @property
    def bare(self) -> Any:
        """The causal language model, with adapters in place."""
        return self._bare(self.model)

    def save_now(self) -> None:
        """Save a checkpoint of the last finished step."""
        model: Any = self.model
        self._save_checkpoint(model, None)
        self.callback_handler.on_save(self.args, self.state, self.control)

    def _bare(self, model: Any) -> Any:
        unwrapped: Any = self.accelerator.unwrap_model(model)
        return unwrapped.get_base_model() if hasattr(unwrapped, "peft_config") else unwrapped

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Render the prompts as the generator sees them in use."""
        return self._policy.form.prompts(prompts), None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **options: Any
    ) -> tuple[list[list[int]], Any]:
        """Write the drafts, if possible with the local engine, which computes a group's prompt once."""
        with self.clock("generate"):
            if self._uses_local_engine():
                drafts, logps = self._write(prompt_ids), None
            else:
                drafts, logps = super()._generate_single_turn(prompt_ids, *args, **options)
        self.rollout = list(zip(prompt_ids, drafts, strict=True))
        return drafts, logps

    def write_greedily(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[int], sampling: Sampling, _ends: Sequence[int]
    ) -> list[list[int]]:
        """`Engine.write` with vLLM and the current weights. All processes must call it with the same number of rows."""
        engine: Any = self.vllm_generation
        engine.temperature, engine.max_completion_length = 0.0, sampling.max_tokens
        try:
            return super()._generate_single_turn([list(prompts[row]) for row in rows], None, {}, 1)[0]
        finally:
            engine.temperature, engine.max_completion_length = self.temperature, self.max_completion_length

    def _uses_local_engine(self) -> bool:
        args: Any = self.args
        unsupported = (args.top_k or 0) > 0 or args.min_p is not None or args.repetition_penalty != 1.0
        other_engine = self.use_vllm or self.use_transformers_continuous_batching
        local = self.accelerator.distributed_type in LOCAL
        return local and not (unsupported or other_engine or args.generation_kwargs)

    def _write(self, prompts: list[list[int]]) -> list[list[int]]:
        """Write a draft per prompt, determined by seed, step, process and prompts, so that a resumed run repeats it."""
        model = self.bare
        seed = int(content_key([self.args.seed, self.state.global_step, self.accelerator.process_index])[:8], 16)
        sampling = Sampling(int(self.max_completion_length or 1), self.temperature, self.top_p, seed)
        distinct: dict[tuple[int, ...], int] = {}
        rows = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast(), merged(model):
                return engine_for(model).write(list(distinct), rows, sampling, self._policy.form.ends)
        finally:
            model.train(training)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Split a rollout without shuffling it, so that each update learns from whole groups."""
        model: Any = self.model
        if not model.training:
            return super()._prepare_inputs(generation_batch)
        args: Any = self.args
        buffered: Any = self._buffered_inputs
        if self._step % (args.steps_per_generation * self.num_iterations) == 0 or buffered is None:
            with self.clock("rollout"):
                batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = buffered = split_tensor_dict(batch, args.steps_per_generation)
        return buffered[self._step % args.steps_per_generation]

    def _calculate_rewards(self, *args: Any, **options: Any) -> torch.Tensor:
        """Stop all processes if the followers of one fail or cost too much; else the others would wait forever."""
        with self.clock("reward"):
            rewards = super()._calculate_rewards(*args, **options)
        failures = [failure for failure in gather_object([self._reward.failure]) if failure]
        if failures:
            raise failures[0]
        return rewards

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_aux_loss: bool = False,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Compute a group as one row that holds its prompt once, if the run allows it."""
        bare = self._bare(model)  # the policy or the reference model
        single = self.accelerator.distributed_type is DistributedType.NO
        no_draft_is_empty = attention_mask[:, -logits_to_keep:].any(dim=1).all().item()
        plain_loss = not compute_aux_loss and not self._entropy_bonus_enabled
        if not (single and no_draft_is_empty and plain_loss and can_share(bare)):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, compute_aux_loss=compute_aux_loss, **options
            )
        split = input_ids.shape[1] - logits_to_keep
        rows = list(zip(input_ids, attention_mask.bool(), strict=True))
        prompts = [ids[:split][mask[:split]].tolist() for ids, mask in rows]
        drafts = [ids[split:][mask[split:]].tolist() for ids, mask in rows]
        with self.accelerator.autocast():
            pairs = draft_logps(bare, prompts, drafts, self.temperature)
        logps, entropies = (pad_sequence(list(tensors), batch_first=True) for tensors in zip(*pairs, strict=True))
        padding = (0, logits_to_keep - logps.shape[1])
        return pad(logps, padding), pad(entropies, padding), None

    def create_model_card(self, *_args: Any, **_options: Any) -> None:
        """Do nothing, because the run writes its own card."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait for all processes before the trainer state is written, which marks a checkpoint as complete."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()


@contextmanager
def whole_weights(trainer: PolicyTrainer) -> Generator[Any]:
    """The bare model with DeepSpeed's shards gathered, so that each process may run its own forward passes."""
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        hooks: dict[int, Any] = model._forward_pre_hooks  # TRL leaves the hook that compares the processes' steps
        saved = dict(hooks)
        hooks.clear()
        try:
            yield model.get_base_model() if hasattr(model, "peft_config") else model
        finally:
            hooks.update(saved)
