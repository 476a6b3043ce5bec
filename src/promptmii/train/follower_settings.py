"""Settings of the stage that meta-tunes a follower."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from promptmii.errors import ConfigError
from promptmii.schema import Settings

Share = Annotated[float, Field(ge=0, le=1)]


class Mix(Settings):
    """How often each rendering is drawn, in any unit, and how often the names of the labels are hidden."""

    naive: float = Field(default=0.15, ge=0)
    icl: float = Field(default=0.40, ge=0)
    instruction: float = Field(default=0.45, ge=0)
    """A guide made of the bank's descriptions."""
    lookup: float = Field(default=0.10, ge=0)
    """A guide whose queries are other descriptions of its labels, always nameless: matching a description to an arbitrary name is the
    last thing a small model learns, and this is its simplest form."""
    cues: Share = 0.0
    """Guides that name the cue words of each label, read out of a few of its rows."""
    wordless: Share = 0.0
    """Of those, guides that describe nothing: cue words alone."""
    hidden: Share = 0.5
    """Of the ICL and instruction renderings."""
    shuffled: Share = 0.5
    """Episodes whose labels stand in random order."""

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        if self.naive + self.icl + self.instruction + self.lookup <= 0:
            raise ValueError("at least one rendering needs a weight above 0")
        return self


class FollowerSettings(Settings):
    """Everything the result depends on, the machine aside."""

    stage: Literal["follower"] = "follower"
    model: str = "smol"
    """What is tuned: `smol` or `hf:...`; the last adapter of a reference is trained on."""
    tasks: str | tuple[str, ...] = ()
    """Folders of task files, or task files; a task is named after its file."""
    bank: str = ""
    """Folder of label descriptions; the tasks without a guide are not drawn as instructions."""
    train: tuple[str, ...]
    """Names of the tasks to learn from: such as a model of this size can learn at all."""
    validate_on: tuple[str, ...] = ()
    """Names of the tasks that are watched, of other sources than those in `train`."""
    rank: int = Field(default=16, ge=1)
    """Of the adapter; 16 on smol is a file of 10 MB."""
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup: int = Field(default=20, ge=0)
    """Steps in which the learning rate rises; afterwards it falls to a tenth along a cosine."""
    steps: int = Field(default=1000, ge=1)
    episodes: int = Field(default=4, ge=1)
    """Per step."""
    queries: int = Field(default=8, ge=1)
    """Per episode."""
    labels: tuple[int, int] = (2, 8)
    """Fewest and most labels of an episode."""
    examples: tuple[int, int] = (3, 16)
    """Fewest and most examples of an ICL episode."""
    max_chars: int = Field(default=300, ge=1)
    """Longer texts are left out."""
    support_chars: int = Field(default=1600, ge=1)
    """Characters of all examples of an ICL episode together; those beyond are left out."""
    likelihood: float = Field(default=0.1, ge=0)
    """Weight of the plain negative log-likelihood of the true label beside the K-way cross-entropy, so that the tuned model still writes
    labels rather than only ranks them."""
    mix: Mix = Mix()
    check_every: int = Field(default=100, ge=1)
    """Steps between two validations."""
    check_examples: int = Field(default=10, ge=1)
    check_rows: int = Field(default=32, ge=1)
    """Query rows of each validation task."""
    save_every: int = Field(default=20, ge=1)
    """Steps between two checkpoints."""
    seed: int = 0

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        low, high = self.labels
        if not 2 <= low <= high <= 26:
            raise ValueError("labels must be two rising numbers between 2 and 26")
        if not 1 <= self.examples[0] <= self.examples[1]:
            raise ValueError("examples must be two rising numbers from 1")
        if not self.train:
            raise ValueError("train names no task")
        return self

    def checked(self) -> Self:
        """These settings. Raises `ConfigError` where a task is learned and watched at once."""
        both = sorted(set(self.train) & set(self.validate_on))
        if both:
            raise ConfigError(
                f"These tasks are in train and in validate_on: {', '.join(both)}. Keep the watched ones out of training."
            )
        return self
