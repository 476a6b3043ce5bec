"""Settings of the training stages: tasks, visits, reward and validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from promptmii.calibration_kinds import CalibrationKind
from promptmii.config import Endpoint, LoraSettings, ServeSettings
from promptmii.instruction import Mode
from promptmii.models.references import ServerReference
from promptmii.schema import Settings, merged
from promptmii.train.measures import Measure, check_mode
from promptmii.train.paper import PAPER_SCHEDULE, paper_preset

TrainingStage = Literal["rl", "sft", "best-of"]
Share = Annotated[float, Field(gt=0, le=1)]


class RewardSettings(Settings):
    """The reward of an instruction. Every option affects what is learned; see docs/train.md."""

    followers: tuple[str, ...] = ("smol",)
    """Frozen models that follow the instruction. The reward is the mean over them."""
    serve: ServeSettings | None = None
    """Starts servers for followers named `openai:<model>`: `"vllm"`, `"llama.cpp"`, or a table."""
    mode: Mode = "generate"
    """`generate` is the paper's. `choose` compares label likelihoods: finer, and blind to the form of answers."""
    calibration: CalibrationKind = "none"
    """Corrects the follower's label bias, as in evaluation. `support` costs n more calls per draft."""
    measure: Measure = "macro_f1"
    """`macro_f1` is the paper's. `released_f1` is that of the authors' code, which counts an invalid answer as the
    first label. `expected_macro_f1` and `gold_probability` need `choose`."""
    token_price: float = Field(default=0.0, ge=0)
    """Penalty per token of the instruction beyond `free_tokens`."""
    free_tokens: int = Field(default=0, ge=0)
    copy_penalty: float = Field(default=0.0, ge=0)
    """Penalty if the instruction copies six words in a row from an example."""
    unfinished_penalty: float = Field(default=0.0, ge=0)
    """Penalty if the instruction hit its token limit, so that the generator learns to end in time."""
    failures: float = Field(default=0.5, ge=0, le=1)
    """The run stops if more than this share of a step's instructions cannot be scored."""
    wait: float = Field(default=600.0, ge=0)
    """Seconds to wait for failing followers before the run stops with a checkpoint."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_mode(self.measure, self.mode)
        if self.calibration != "none" and self.mode != "choose":
            raise ValueError(f"the calibration {self.calibration} needs likelihoods, so mode = 'choose'")
        if not self.followers:
            raise ValueError("followers names no model")
        for follower in self.followers:
            ServerReference.parse(follower)  # refuses a password in the address, which would be saved in the run folder
        return self


class HeldOutSettings(Settings):
    """The tasks to hold out for validation."""

    tasks: tuple[str, ...] = ()
    """Names of tasks to hold out, with all other tasks of their sources. A bundled task that the run does not use is
    ignored. If no name is left, `share` decides."""
    share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the sources to hold out (the paper's 10 %); at least one of several, unless the share is 0."""
    most: int = Field(default=50, ge=1)
    """Maximum number of validation tasks; if there are more, a sample is used."""


class ValidationSettings(HeldOutSettings):
    """The validation tasks, and how often they are measured."""

    every: int = Field(default=15, ge=1)
    """Optimiser steps between validations. The paper's 15 are rollouts, which are 30 steps at two updates each."""
    n: tuple[int, ...] = (5, 20)
    """Numbers of examples to measure each task with."""
    rows: int = Field(default=20, ge=1)
    """Test rows per task."""
    nameless: bool = False
    """Measure each task a second time with hidden label names."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without a gain. `None` never stops early."""
    gain: float = Field(default=0.0, ge=0)
    """Smallest improvement that counts as a gain."""


class PlanSettings(Settings):
    """The number of processes, and your machine's speed for `--dry-run`."""

    processes: int = Field(default=1, ge=1)
    """Training processes, one per GPU. A run refuses to start with another number."""
    length: float = Field(default=200.0, gt=0)
    """Average tokens per instruction."""
    writes: float | None = Field(default=None, gt=0)
    """Tokens per second that all processes together generate."""
    reads: float | None = Field(default=None, gt=0)
    """Prompt tokens per second of all followers together, including cached ones."""
    learns: float | None = Field(default=None, gt=0)
    """Tokens per second that all processes together train on."""


class VisitSettings(Settings):
    """Settings of the tasks, the visits to them and the reward, for reinforcement learning and best-of."""

    model: str = "smol"
    """The generator: `smol`, `hf:...`."""
    tasks: tuple[str, ...] = ()
    """A corpus, task files, folders of them, `written` or `suite`. An index.csv may name source_repo and licence."""
    only: tuple[str, ...] = ()
    """Names of the tasks to use; all if empty."""
    most_labels: int | None = Field(default=None, ge=2)
    """Skip tasks with more labels."""
    few_labels: tuple[int, int] | None = None
    """Minimum and maximum labels per visit, sampled each time. `None` shows all labels of the task, as in the paper."""
    nameless: float = Field(default=0.0, ge=0, le=1)
    """Share of the visits with hidden label names, so that the instruction must describe the examples."""
    schedule: dict[int, Share] = PAPER_SCHEDULE
    """Maps each number of examples to the share of the tasks that a pass visits with it."""
    query: int = Field(default=20, ge=1)
    """Rows to score an instruction on."""
    longest_prompt: int = Field(default=4096, ge=64)
    """Maximum tokens of the generator's prompt."""
    overlong: Literal["shorten", "drop"] = "shorten"
    """`shorten` removes examples from prompts that are too long (curve `fewer_examples`). `drop` omits the visit, like
    the authors; it needs `fixed`."""
    draw: Literal["spread", "random"] = "spread"
    """`spread` covers every label as far as possible; `random` ignores labels, as the authors do."""
    fixed: bool = False
    """Show the same examples and query rows in every pass, as the authors do."""
    budget: int | None = Field(default=None, ge=8)
    """Length of an instruction, in tokens, that the prompt asks for. `trl.max_completion_length` is the hard limit."""
    template: str | None = None
    """File with a template of the generator's prompt."""
    style: str | None = None
    """Style of the generator's and the follower's prompts (`promptmii styles list`); `None` for promptmii's own."""
    seed: int = 0
    reward: RewardSettings = RewardSettings()
    endpoint: Endpoint = Endpoint()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlong == "drop" and not self.fixed:
            raise ValueError("overlong = 'drop' needs fixed = true, to know in advance which prompts are too long")
        if not self.schedule or min(self.schedule) < 1:
            raise ValueError("schedule needs at least one number of examples, each at least 1")
        if self.few_labels and not 2 <= self.few_labels[0] <= self.few_labels[1]:
            raise ValueError("few_labels must be two ascending numbers, the first at least 2")
        return self


class TrainSettings(VisitSettings):
    """Settings of reinforcement learning."""

    stage: Literal["rl"] = "rl"
    preset: Literal["paper"] | None = None
    """`paper`: the authors' settings, including prompts and parser, for everything not given (docs/train.md)."""
    prompts: int = Field(default=64, ge=1)
    """Visits per rollout, each with `trl.num_generations` drafts."""
    prompts_per_update: int | None = Field(default=None, ge=1)
    """Visits per optimiser step; `None` takes all of a rollout. The paper has 32, two steps per rollout."""
    passes: float = Field(default=30.0, gt=0)
    """Passes over the tasks, unless `trl.max_steps` is set."""
    stuck: int = Field(default=20, ge=1)
    """Warn after this many steps in a row with equal rewards in every group."""
    validation: ValidationSettings = ValidationSettings()
    lora: LoraSettings | None = None
    """`None` trains all weights. If given, training continues the last adapter of a model `smol+folder`."""
    plan: PlanSettings = PlanSettings()
    trl: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Options of TRL's `GRPOConfig`. The defaults are the paper's."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "paper":
            return merged(paper_preset(values), values)
        return values


class SftSettings(Settings):
    """Settings of supervised fine-tuning on (support, instruction) pairs, from a file or drawn from tasks."""

    stage: Literal["sft"] = "sft"
    model: str = "smol"
    """The generator to tune: `smol` or `hf:...`. Training continues the reference's last adapter, if any."""
    pairs: str | None = None
    """File of pairs; `None` draws them from `tasks` and `bank`."""
    tasks: tuple[str, ...] = ()
    """A corpus, folders of task files, task files, or `written`; a task is named after its file."""
    bank: str | None = None
    """Folder of label descriptions; `None` for the bundled bank."""
    train: tuple[str, ...] = ()
    """Names of the tasks to draw from; if empty, all but those in `validate_on`."""
    validate_on: tuple[str, ...] = ()
    """Names of the validation tasks. A bundled task that the run does not use is ignored."""
    lora: LoraSettings = LoraSettings()
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises, before its cosine decay."""
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=4, ge=1)
    """Pairs per step."""
    labels: tuple[int, int] = (2, 8)
    """Minimum and maximum labels of a drawn pair."""
    examples: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(5, 8, 12, 20), min_length=1)
    """Numbers of examples to draw from, one per pair."""
    hidden: float = Field(default=0.5, ge=0, le=1)
    """Share of drawn pairs with hidden label names, so that the instruction must describe the examples."""
    max_chars: int = Field(default=300, ge=1)
    """Skip longer texts."""
    support_chars: int = Field(default=2000, ge=1)
    """Maximum total characters of a pair's examples."""
    check_every: int = Field(default=100, ge=1)
    """Steps between validations."""
    check_pairs: int = Field(default=24, ge=1)
    """Validation pairs with label names, and as many again with hidden ones."""
    save_every: int = Field(default=20, ge=1)
    """Steps between checkpoints."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pairs is None and not self.tasks:
            raise ValueError("give pairs (a file), or tasks to draw them from")
        if shared := sorted(set(self.train) & set(self.validate_on)):
            raise ValueError(f"in train and in validate_on: {', '.join(shared)}")
        if not 2 <= self.labels[0] <= self.labels[1] <= 26:
            raise ValueError("labels must be two ascending numbers between 2 and 26")
        return self


class BestOfSettings(VisitSettings):
    """Settings of best-of. The tasks, generator and reward are set as for reinforcement learning."""

    stage: Literal["best-of"] = "best-of"
    drafts: int = Field(default=8, ge=2)
    """Drafts per visit."""
    visits: int = Field(default=200, ge=1)
    together: int = Field(default=4, ge=1)
    """Visits per batch. Their drafts are written concurrently if the generator can."""
    temperature: float = Field(default=1.0, gt=0)
    margin: float = Field(default=0.02, ge=0)
    """Minimum lead of the best draft over its visit's mean: among equal drafts, the best is luck."""
    least: float = 0.0
    """Minimum reward for a draft to be kept."""
    validation: HeldOutSettings = HeldOutSettings()
    """Tasks without drafts, so that they can validate the training that follows."""
    trl: Mapping[Literal["max_completion_length"], Annotated[int, Field(ge=1)]] = {}
    """Only `max_completion_length`: the token limit of a draft, 1024 by default as in reinforcement learning."""


class _Staged(Settings):
    model_config = ConfigDict(extra="ignore")
    stage: TrainingStage = "rl"


def stage_of(config: Path, stage: str | None = None) -> TrainingStage:
    """The stage to run: `stage` if given, else the file's, else reinforcement learning. Raises `ConfigError`."""
    return _Staged.read(config, stage=stage).stage
