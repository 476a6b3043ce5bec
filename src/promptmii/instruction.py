"""The result of promptmii: an instruction, and everything one needs to use it, to check it and to know what it cost.

It is a frozen value that saves to one readable JSON file. The file holds the frame and the calibration with
which it was measured, so it labels texts the same way next year, with another version of this package, or
with no promptmii at all (`messages` is plain text substitution).
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, ValidationError

from promptmii.errors import ArtefactError
from promptmii.files import write_text
from promptmii.models.base import Message, Price, Usage
from promptmii.prompts import FRAME_SLOTS, Template, follower_frame, frame_prompt
from promptmii.schema import Frozen
from promptmii.task import Support, content_key

Mode = Literal["choose", "generate"]
CalibrationKind = Literal["none", "contextual", "support", "supervised", "batch"]


class Cost(Frozen):
    """What it took to make something. Cached tokens are part of `prompt_tokens`."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    money: float | None = None
    """In the currency of the price given; `None` where no price is known (unknown is not zero)."""

    @classmethod
    def of(cls, usage: Usage, price: Price | None = None) -> "Cost":
        """The cost of what a model consumed."""
        return cls(**asdict(usage), money=price.of(usage) if price else None)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            seconds=self.seconds + other.seconds,
            money=None if self.unpriced or other.unpriced else (self.money or 0.0) + (other.money or 0.0),
        )

    @property
    def unpriced(self) -> bool:
        """Something was spent, and nobody knows what it costs."""
        return self.money is None and self.calls > 0


class Calibration(Frozen):
    """A correction of the follower's label scores: `z_k = scale_k * logp_k + offset_k`, with `logp` normalised over the K labels."""

    kind: CalibrationKind
    scale: tuple[float, ...]
    offset: tuple[float, ...]


class Measurement(Frozen):
    """A score with its interval and its counts. There is no number without the counts."""

    macro_f1: float
    low: float
    high: float
    """95 % bootstrap interval over the query rows."""
    accuracy: float
    n: int
    n_unparsed: int
    n_truncated: int
    prompt_tokens_per_query: float
    data_key: str
    """Content hash of the rows it was measured on."""


class Provenance(Frozen):
    """Where the instruction comes from, enough to make it again."""

    n: int = 0
    """Support examples that went in."""
    seed: int = 0
    support_key: str = ""
    """Content hash of labels and examples."""
    source: str = ""
    text_template: str | None = None
    """How several columns were joined to one text; `None` for a single column."""
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    meta_template: str | None = None
    """Key of the generator's template."""
    notes: tuple[str, ...] = ()
    """What a user should know: examples that did not fit, a trimmed text, copied phrases."""
    version: str = ""
    """Of promptmii."""


class Instruction(Frozen):
    """A reusable instruction for one classification task."""

    format: Literal[1] = 1
    text: str
    """The instruction itself; empty for the naive method, the examples for ICL."""
    labels: tuple[str, ...]
    method: str
    frame: str = Field(default_factory=lambda: follower_frame().text)
    """The template that puts instruction, labels and text together."""
    generator: str | None = None
    """Reference of the model that wrote it."""
    follower: str | None = None
    """Reference of the model that it was calibrated and measured with."""
    mode: Mode | None = None
    calibration: Calibration | None = None
    cost: Cost = Cost()
    """Of making it, calibration included; using it is not."""
    provenance: Provenance = Provenance()
    measured: Measurement | None = None

    @property
    def template(self) -> Template:
        """The frame as a template."""
        return Template(self.frame, FRAME_SLOTS)

    @property
    def key(self) -> str:
        """Content hash of what a follower's answers depend on."""
        calibration = self.calibration.model_dump() if self.calibration else None
        return content_key([self.text, self.labels, self.frame, calibration])

    def prompt(self, text: str) -> str:
        """The whole prompt for one text."""
        return frame_prompt(self.template, self.text, self.labels, text)

    def messages(self, text: str) -> list[Message]:
        """The chat to send to any OpenAI-compatible client in order to label `text`."""
        return [{"role": "user", "content": self.prompt(text)}]

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write to one JSON file, whole or not at all. Raises `OutputError` if it exists (unless `force`) or cannot be written."""
        return write_text(
            Path(path), json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n", force=force
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Instruction":
        """Read what `save` wrote. Raises `ArtefactError` with the first thing that is wrong."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise ArtefactError(f"The instruction file {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ArtefactError(
                f"{path} is not an instruction file of format 1: {where}: {first['msg']}. Make one with: promptmii induce"
            ) from error


class Inducer(Protocol):
    """A method that turns examples into an instruction. Naive, ICL, Prompt-MII, APE, GEPA are all alike to the evaluation.

    Contract, checked for every implementation: the result's labels are the support's, in order; equal support and seed give an
    equal text; the cost covers every model call that was made; a failed call raises, it never becomes an empty instruction.
    """

    @property
    def name(self) -> str:
        """The method's name in tables and records."""
        ...

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Make an instruction from the support alone. Raises `EndpointError` when the model gives no answer."""
        ...
