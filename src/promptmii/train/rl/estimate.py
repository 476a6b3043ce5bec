"""The dry run: a comparison with the paper's settings, and the cost of a run, without weights or a GPU.

Batches, steps and calls follow from the settings. Tokens are counted on a few visits, with the generator's tokenizer
if this machine has it. Hours follow from the rates in the table [plan].
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from promptmii.calibrate import CONTENT_FREE
from promptmii.calibration_kinds import READS, Reads
from promptmii.errors import UnknownModelError, UnsupportedError
from promptmii.inducers.writing import Writer
from promptmii.models import weights_of
from promptmii.models.base import Chat, Choice, Completion, Failure, LanguageModel, ModelCard, Sampling
from promptmii.models.hf import quiet
from promptmii.progress import QUIET, Progress
from promptmii.prompts import frame_prompt, frame_template
from promptmii.schema import Settings
from promptmii.train.paper import PAPER, RELEASE, SAVE_EVERY, TRL, VALIDATE_EVERY, authors_style
from promptmii.train.rl.memory import Term, memory_terms
from promptmii.train.rl.plan import DEFAULTS, Batches, GrpoPlan, grpo_plan
from promptmii.train.settings import TrainSettings
from promptmii.train.tasks import read_split
from promptmii.train.validation import NO_VALIDATION, cases
from promptmii.train.visits import Visit, Visits, readable, style_of

SAMPLED = 24
"""Visits whose tokens are counted."""
TOKENS_PER_WORD = 1.5
"""Used if the generator's tokenizer is not on this machine."""
HIDDEN = ("stage", "endpoint", "plan", "trl")
"""Settings that are listed elsewhere or do not affect what is learned."""


@dataclass(frozen=True)
class SettingValue:
    """The value of a setting in this run, in the paper and in the authors' code."""

    value: Any
    origin: str
    """`given` (in the file or on the command line), `preset`, or the default of the `paper` or of `promptmii`."""
    paper: Any = None
    """The paper's value in our units, or None if it gives none."""
    release: Any = None
    """The value in the authors' code, if it differs from the paper's or the paper gives none."""

    @property
    def differs(self) -> bool:
        """True if the authors use another value, according to their code or else the paper."""
        reference = self.paper if self.release is None else self.release
        return reference is not None and self.value != reference


@dataclass(frozen=True)
class Estimate:
    """The settings and the cost of a run."""

    settings: Mapping[str, SettingValue]
    """promptmii settings, by dotted name."""
    options: Mapping[str, SettingValue]
    """TRL options that are set."""
    batches: Batches
    tasks: int
    validation: int
    skipped: tuple[str, ...]
    counted: bool
    """False if tokens were estimated from words."""
    prompt_tokens: float
    """Prompt tokens per visit."""
    shortened: float
    """Share of the visits that have fewer examples than the schedule asks for."""
    calls: int
    """Follower calls for rewards, in the whole run."""
    validations: int
    """Validations per run, including one before the first step and one after the last."""
    validation_cases: int
    """Instructions per validation."""
    validation_calls: int
    """Follower calls for all validations."""
    follower_tokens: float
    """Prompt tokens per follower call."""
    warnings: tuple[str, ...]
    memory: tuple[Term, ...]
    """Per GPU; empty if the model's configuration is not on this machine."""
    hours: tuple[tuple[str, float], ...]
    """By phase; empty if [plan] gives no rates."""


def estimate(settings: TrainSettings, folder: Path, progress: Progress = QUIET) -> Estimate:
    """Estimate a run. Raises `DataError` and `ConfigError` as the run would."""
    grpo, plan, validation = grpo_plan(settings), settings.plan, settings.validation
    model = _TokenCounter(settings.model)
    writer = Writer(model, style_of(settings), settings.budget)
    split = readable(read_split(settings, progress), settings, writer)
    visits = Visits(split.train, settings, writer)
    batches = grpo.batches(visits.per_pass)
    grpo.config(folder, cpu=True, dry_run=True)  # TRL checks its options

    sample = [visits.visit(number) for number in range(min(SAMPLED, batches.visits))]
    prompt_tokens = fmean(model.count_tokens([visit.chat[0]["content"] for visit in sample]))
    follower_tokens = plan.length + _frame_tokens(sample, writer)
    drafts, followers = batches.visits * batches.generations, len(settings.reward.followers)
    calibration_calls = fmean(_calibration_calls(settings, len(visit.episode.support.examples)) for visit in sample)
    calls = int(drafts * (settings.query + calibration_calls) * followers)
    validation_cases = cases(split.validation, validation)
    validations = 1 + math.ceil(batches.steps / validation.every) if validation_cases else 0
    calls_per_validation = followers * sum(
        min(validation.rows, len(case.task.test)) + _calibration_calls(settings, case.n) for case in validation_cases
    )
    validation_calls = validations * calls_per_validation

    seconds: dict[str, float] = {}
    if plan.writes and plan.reads and plan.learns:
        learned_drafts = batches.steps * batches.per_update * batches.generations
        validation_tokens = validations * len(validation_cases) * plan.length
        seconds = {
            "generate": drafts * plan.length / plan.writes,
            "reward": calls * follower_tokens / plan.reads,
            "update": learned_drafts * (prompt_tokens + plan.length) / plan.learns,
            "validation": validation_tokens / plan.writes + validation_calls * follower_tokens / plan.reads,
        }
    return Estimate(
        settings=_settings(grpo),
        options=_options(grpo),
        batches=batches,
        tasks=len(split.train),
        validation=len(split.validation),
        skipped=split.skipped,
        counted=model.tokenizer is not None,
        prompt_tokens=prompt_tokens,
        shortened=fmean(visit.shortened for visit in sample),
        calls=calls,
        validations=validations,
        validation_cases=len(validation_cases),
        validation_calls=validation_calls,
        follower_tokens=follower_tokens,
        warnings=() if validation_cases else (NO_VALIDATION,),
        memory=memory_terms(grpo),
        hours=tuple((phase, value / 3600) for phase, value in seconds.items()),
    )


class _TokenCounter(LanguageModel):
    """Counts tokens with the generator's tokenizer, or estimates them from words if this machine does not have it."""

    def __init__(self, reference: str) -> None:
        self.tokenizer: Any = None
        context_length = 131072
        with suppress(OSError, ValueError, UnknownModelError), quiet():
            if weights := weights_of(reference):
                config: Any = AutoConfig.from_pretrained(weights.source, local_files_only=True)
                context = getattr(config.get_text_config(), "max_position_embeddings", None)
                context_length = int(context or context_length)
                self.tokenizer = AutoTokenizer.from_pretrained(weights.source, local_files_only=True)
        self._card = ModelCard(reference, "", context_length, gives_scores=False)

    @property
    def card(self) -> ModelCard:
        return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        if self.tokenizer is None:
            return [round(len(text.split()) * TOKENS_PER_WORD) for text in texts]
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        del chats, sampling
        raise UnsupportedError("A dry run writes nothing.")

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        del chats, options
        raise UnsupportedError("A dry run labels nothing.")

    def close(self) -> None:
        """There is nothing to release."""


def _frame_tokens(visits: Sequence[Visit], writer: Writer) -> float:
    """Tokens of a follower's prompt without the instruction."""
    frame = frame_template(writer.style.frame)
    prompts = [
        frame_prompt(frame, "", visit.episode.support.labels, row.text)
        for visit in visits
        for row in visit.episode.query[:4]
    ]
    return fmean(writer.model.count_tokens(prompts))


def _calibration_calls(settings: TrainSettings, examples: int) -> int:
    """Follower calls that calibrate one instruction written from this number of examples."""
    calls = {Reads.CONTENT_FREE: len(CONTENT_FREE), Reads.SUPPORT: examples}
    return calls.get(READS[settings.reward.calibration], 0)


def _settings(grpo: GrpoPlan) -> dict[str, SettingValue]:
    """Every promptmii setting that affects what is learned, by dotted name."""
    paper_values = {**PAPER, "validation.every": VALIDATE_EVERY * grpo.steps_per_rollout}
    release_values = {**RELEASE, "style": authors_style(grpo.settings.model)}
    compared: dict[str, SettingValue] = {}
    for name, value, is_given in _flat(grpo.settings):
        paper, release = paper_values.get(name), release_values.get(name)
        if grpo.settings.preset and value == (paper if release is None else release):
            origin = "preset"
        elif is_given:
            origin = "given"
        else:
            origin = "paper" if value is not None and value in (paper, release) else "promptmii"
        if name.partition(".")[0] not in HIDDEN:
            compared[name] = SettingValue(value, origin, paper, release)
    return compared


def _flat(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Yield each setting's dotted name, its value, and True if the user gave it."""
    for name, value in settings:
        if isinstance(value, Settings):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, name in settings.model_fields_set


def _options(grpo: GrpoPlan) -> dict[str, SettingValue]:
    """The TRL options that the user, promptmii or the paper sets."""
    paper_values = {**TRL, "save_steps": SAVE_EVERY * grpo.steps_per_rollout}
    compared: dict[str, SettingValue] = {}
    for name, value in grpo.options.items():
        origin = "given" if name in grpo.settings.trl else "promptmii" if name in DEFAULTS else "paper"
        compared[name] = SettingValue(value, origin, paper_values.get(name))
    return compared
