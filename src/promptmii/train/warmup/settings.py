"""Settings of the two stages before reinforcement."""

from typing import Literal, Self

from pydantic import Field, model_validator

from promptmii.config import LoraSettings
from promptmii.schema import Settings
from promptmii.train.settings import TrainingStage, TrainSettings


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
