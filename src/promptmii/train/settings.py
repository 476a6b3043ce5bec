"""Settings of training: what is learned from what, for which reward, and how it is validated."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from promptmii.config import Endpoint, LoraSettings, ServeSettings
from promptmii.instruction import CalibrationKind, Mode
from promptmii.models.http.config import Served
from promptmii.schema import Settings, merged
from promptmii.train.measures import Measure, check_mode
from promptmii.train.paper import PAPER_SCHEDULE, paper_preset

TrainingStage = Literal["rl", "sft", "best-of"]
Share = Annotated[float, Field(gt=0, le=1)]


class RewardSettings(Settings):
    """What makes an instruction good. Every option changes what is learned; docs/train.md says how."""

    followers: tuple[str, ...] = ("smol",)
    """Frozen models that read the instruction. With several, the reward is their mean."""
    serve: ServeSettings | None = None
    """Starts servers for the followers named `openai:<model>`: `"vllm"`, `"llama.cpp"`, or a table."""
    mode: Mode = "generate"
    """The paper's. In `choose` the form of the answer teaches nothing, and the likelihoods give a finer reward."""
    calibration: CalibrationKind = "none"
    """Corrects the follower's label bias, as in evaluation. `support` costs n more calls per draft."""
    measure: Measure = "macro_f1"
    """`macro_f1` (the paper's) counts labels; `released_f1` as the authors' code does, where an answer that is no label
    counts as the first one. `expected_macro_f1` and `gold_probability` need `choose`."""
    token_price: float = Field(default=0.0, ge=0)
    """Taken off per token of the instruction, beyond `free_tokens`."""
    free_tokens: int = Field(default=0, ge=0)
    copy_penalty: float = Field(default=0.0, ge=0)
    """Taken off where the instruction repeats training text (a run of six words)."""
    unfinished_penalty: float = Field(default=0.0, ge=0)
    """Taken off where the instruction ran into its limit, so that short limits teach to end."""
    failures: float = Field(default=0.5, ge=0, le=1)
    """The run stops when more than this share of the instructions of a step cannot be scored."""
    wait: float = Field(default=600.0, ge=0)
    """Seconds to wait for followers that fail, before the run stops with a checkpoint."""

    @model_validator(mode="after")
    def _likelihoods_are_there(self) -> Self:
        check_mode(self.measure, self.mode)
        if self.calibration != "none" and self.mode != "choose":
            raise ValueError(f"the calibration {self.calibration} needs likelihoods, so mode = 'choose'")
        if not self.followers:
            raise ValueError("followers names no model")
        for follower in self.followers:
            Served.parse(follower)  # a password in an address must not reach the run folder
        return self


class ValidationSettings(Settings):
    """What is held out, and how often it is measured."""

    tasks: tuple[str, ...] = ()
    """Names of tasks to hold out, each with every other task of its source. Without any, `share` decides."""
    share: float = Field(default=0.1, ge=0, lt=1)
    """Of the sources (the paper's 10 %); a source is held out as a whole."""
    every: int = Field(default=15, ge=1)
    """Optimiser steps between two validations. The paper's 15 are rollouts: 30 steps, at two updates a rollout."""
    n: tuple[int, ...] = (5, 20)
    """Examples that the generator reads, once for each number."""
    rows: int = Field(default=20, ge=1)
    """Test rows of each task."""
    most: int = Field(default=50, ge=1)
    """Tasks to validate on; of more, a sample."""
    nameless: bool = False
    """Measure each task once more with its label names hidden."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without a gain; `None` never stops early."""
    gain: float = Field(default=0.0, ge=0)
    """Least improvement that counts as a gain."""


class PlanSettings(Settings):
    """What `--dry-run` cannot find out by itself: the number of processes, and the rates of your machine."""

    processes: int = Field(default=1, ge=1)
    """Training processes, one per GPU. A run with another number is refused."""
    length: float = Field(default=200.0, gt=0)
    """Tokens of an instruction, on average."""
    writes: float | None = Field(default=None, gt=0)
    """Tokens that all processes together write in a second."""
    reads: float | None = Field(default=None, gt=0)
    """Tokens that all followers together read in a second, cached ones included."""
    learns: float | None = Field(default=None, gt=0)
    """Tokens that all processes together learn from in a second."""


class TrainSettings(Settings):
    """Everything that a training run of the generator depends on, the machine aside."""

    stage: TrainingStage = "rl"
    preset: Literal["paper"] | None = None
    """`paper`: the authors' settings, frame and parser included, wherever nothing else is given (docs/train.md)."""
    model: str = "smol"
    """The generator to train: `smol`, `hf:...`. With `lora`, training continues the last adapter of `smol+folder`."""
    tasks: tuple[str, ...] = ()
    """A corpus, folders of task files, task files, or `suite`. An index.csv may name source_repo and licence."""
    only: tuple[str, ...] = ()
    """Names of the tasks to use; without any, all."""
    most_labels: int | None = Field(default=None, ge=2)
    """Tasks with more are left out."""
    few_labels: tuple[int, int] | None = None
    """Fewest and most labels of a visit, drawn anew each time; `None`: all labels of the task, as in the paper."""
    nameless: float = Field(default=0.0, ge=0, le=1)
    """Share of the visits with hidden label names, where the instruction must carry the meaning."""
    schedule: dict[int, Share] = PAPER_SCHEDULE
    """How many examples the generator reads, and the share of the tasks that is visited so in one pass."""
    query: int = Field(default=20, ge=1)
    """Rows that an instruction is scored on."""
    prompts: int = Field(default=64, ge=1)
    """Visits of one rollout, each answered `trl.num_generations` times."""
    prompts_per_update: int | None = Field(default=None, ge=1)
    """Visits that one optimiser step learns from; the paper has 32, two steps per rollout. `None`: all of a rollout."""
    passes: float = Field(default=30.0, gt=0)
    """Over the tasks. `trl.max_steps` ends a run earlier or later."""
    longest_prompt: int = Field(default=4096, ge=64)
    """Tokens."""
    overlong: Literal["shorten", "drop"] = "shorten"
    """A longer prompt is given fewer examples, and counted; or it is left out, as the authors do; needs `fixed`."""
    draw: Literal["spread", "random"] = "spread"
    """Examples and rows show every label as far as they go; or they are drawn blindly, as by the authors."""
    fixed: bool = False
    """The authors' way: every pass shows the same examples, and scores on the same rows. Else each draws anew."""
    budget: int | None = Field(default=None, ge=8)
    """Tokens of an instruction that the prompt asks for; `trl.max_completion_length` is where it is cut."""
    template: str | None = None
    """File with the generator's own template."""
    style: str | None = None
    """How the generator is asked and its instruction is followed (`promptmii styles list`); `None`: ours."""
    seed: int = 0
    stuck: int = Field(default=20, ge=1)
    """After this many steps with equal rewards in every group, the run warns."""
    reward: RewardSettings = RewardSettings()
    validation: ValidationSettings = ValidationSettings()
    lora: LoraSettings | None = None
    """`None` trains all weights."""
    endpoint: Endpoint = Endpoint()
    plan: PlanSettings = PlanSettings()
    trl: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Options of TRL's `GRPOConfig`, over the paper's (`train/rl/plan.py`)."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        paper = isinstance(given, dict) and given.get("preset") == "paper"
        return merged(paper_preset(given), given) if paper else given

    @model_validator(mode="after")
    def _numbers_of_examples(self) -> Self:
        if self.overlong == "drop" and not self.fixed:
            raise ValueError("overlong = 'drop' needs fixed = true, to know in advance which prompts are too long")
        if self.template and self.style:
            raise ValueError("template and style both set the generator's prompt; give only one")
        if not self.schedule or min(self.schedule) < 1:
            raise ValueError("schedule needs at least one number of examples, each at least 1")
        if self.few_labels and not 2 <= self.few_labels[0] <= self.few_labels[1]:
            raise ValueError("few_labels must be two ascending numbers, the first at least 2")
        return self


class SftSettings(Settings):
    """Supervised fine-tuning on (support, instruction) pairs, from a file or drawn from tasks and the bank."""

    stage: Literal["sft"] = "sft"
    model: str = "smol"
    """What is tuned: `smol` or `hf:...`; the last adapter of a reference is trained on."""
    pairs: str | None = None
    """File of pairs; `None` draws them from `tasks` and `bank`."""
    tasks: tuple[str, ...] = ()
    """A corpus, folders of task files, task files, or `written`; a task is named after its file."""
    bank: str | None = None
    """Folder of label descriptions; `None` means the bank that ships."""
    train: tuple[str, ...] = ()
    """Names of the tasks to draw from; without any, all but those of `validate_on`."""
    validate_on: tuple[str, ...] = ()
    """Names of the tasks whose pairs are only looked at."""
    lora: LoraSettings = LoraSettings()
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: int = Field(default=20, ge=0)
    """Steps in which the learning rate rises; afterwards it falls along a cosine."""
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=4, ge=1)
    """Pairs per step."""
    labels: tuple[int, int] = (2, 8)
    """Fewest and most labels of a drawn pair."""
    examples: tuple[int, ...] = (5, 8, 12, 20)
    """Sizes of the support; one is drawn for each pair."""
    hidden: float = Field(default=0.5, ge=0, le=1)
    """Share of drawn pairs whose label names say nothing, so that the line must come from the examples."""
    max_chars: int = Field(default=300, ge=1)
    """Longer texts are left out."""
    support_chars: int = Field(default=2000, ge=1)
    """Most characters of a pair's examples together."""
    check_every: int = Field(default=100, ge=1)
    """Steps between two validations."""
    check_pairs: int = Field(default=24, ge=1)
    """Validation pairs with names, and as many without."""
    save_every: int = Field(default=20, ge=1)
    """Steps between two checkpoints."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.pairs is None and not self.tasks:
            raise ValueError("give pairs (a file), or tasks to draw them from")
        if both := sorted(set(self.train) & set(self.validate_on)):
            raise ValueError(f"in train and in validate_on: {', '.join(both)}")
        if not 2 <= self.labels[0] <= self.labels[1] <= 26:
            raise ValueError("labels must be two ascending numbers between 2 and 26")
        return self


class BestOfSettings(TrainSettings):
    """The tasks, the generator and the reward are those of reinforcement learning."""

    stage: TrainingStage = "best-of"
    drafts: int = Field(default=8, ge=2)
    """For each visit."""
    visits: int = Field(default=200, ge=1)
    together: int = Field(default=4, ge=1)
    """Visits that are judged in one batch, and written at the same time where the generator can."""
    temperature: float = Field(default=1.0, gt=0)
    margin: float = Field(default=0.02, ge=0)
    """How much better than the mean of its visit a draft must be: where all drafts are alike, the best is luck."""
    least: float = 0.0
    """Reward below which even the best draft of a visit is not kept."""


class _Staged(Settings):
    model_config = ConfigDict(extra="ignore")
    stage: TrainingStage = "rl"


def stage_of(config: Path, given: str | None = None) -> TrainingStage:
    """The given stage, else the one that the file names, else reinforcement learning. Raises `ConfigError`."""
    return _Staged.read(config, stage=given).stage
