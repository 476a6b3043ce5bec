"""The inducer, which makes an instruction, and the method: its options, its expected number of calls, and its help.

Each method's module has a subclass of `Method`; `inducers.METHODS` lists them. Command line, configuration, dry run,
grid and report use that table, so none of them names a method, apart from the fixed comparison with naive and icl, and
the paper's numbers.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

from pydantic import Field

from promptmii.follower import Follower, Predictor
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.prompts import Template, frame_template
from promptmii.schema import Settings
from promptmii.styles import OURS, read_style
from promptmii.task import Support


class WrittenBy(Enum):
    """Which model writes the instruction."""

    NOBODY = "nobody"
    GENERATOR = "generator"
    """The model under test."""
    UNTRAINED = "untrained"
    """The untrained model, by default the follower itself."""
    SEARCHER = "searcher"
    """The model that proposes candidates in a search, by default the follower itself."""


class Role(Enum):
    """The role of a method in a comparison."""

    METHOD = "method"
    RIVAL = "rival"
    """Writes no instruction; written instructions have to beat it."""
    CONTROL = "control"
    """Writes an instruction without the content that should matter; real instructions have to beat it."""


class Expected(NamedTuple):
    """The expected cost of one run of a method, without labelling the query."""

    written: int = 0
    """Instructions that a model writes."""
    shown: int = 0
    """Examples in each request for an instruction."""
    metric_calls: int = 0
    """Rows that the follower labels to compare candidates."""
    calibration_calls: int = 0
    """Rows that the follower labels to calibrate candidates, if the calibration reads the support."""
    training_calls: int = 0
    """Rows that the follower is trained on, over all epochs. They cannot calibrate it too."""


@dataclass(frozen=True)
class Kit:
    """The parts from which a method builds its inducer."""

    writer: Writer
    follower: Follower
    human: str | None = None
    """A human's instruction for the task."""
    adapters: Path = Path("adapters")
    """The folder of fine-tuned adapters."""


class Inducer(Protocol):
    """A method that turns examples into an instruction. The evaluation treats all methods alike.

    The contract, tested for every implementation: the labels are the support's, in order; equal support and seed give
    equal text; the cost covers every model call; a failed call raises and never becomes an empty instruction; if the
    text depends on the examples, `support_rows` names them.
    """

    @property
    def name(self) -> str:
        """The method's name in tables and records."""
        ...

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Make an instruction from the support alone. Raises `EndpointError` when the model gives no answer."""
        ...


class Method(Settings):
    """One method. Its fields are its options and part of the key of a result; their descriptions become the help."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line, for help and reports."""
    role: ClassVar[Role] = Role.METHOD
    written_by: ClassVar[WrittenBy] = WrittenBy.NOBODY
    reads_examples: ClassVar[bool] = True
    reads_all: ClassVar[bool] = False
    """Learns from every training row, regardless of n: a ceiling."""
    asks_follower: ClassVar[bool] = True
    """The follower labels the texts. If false, `predictor` does without it and nothing is calibrated."""
    prompt: ClassVar[Literal["labels", "instruction", "examples"]] = "instruction"
    """The content of the follower's prompt, used to estimate its length."""
    single_call: ClassVar[bool] = False
    """One call writes the instruction from all examples that fit. A report compares the generators of such methods."""
    by_default: ClassVar[bool] = False
    """Part of an evaluation that names no methods."""
    needs_human: ClassVar[bool] = False
    """Runs only on tasks that come with a human's instruction."""

    def inducer(self, kit: Kit) -> Inducer:
        """The inducer with these options."""
        raise NotImplementedError

    def predictor(self, kit: Kit, support: Support, seed: int) -> Predictor:  # noqa: ARG002
        """Labels the texts: the follower, unless the method has its own predictor."""
        return kit.follower

    def check(self) -> None:
        """Raise `MissingDependencyError` or `UnknownModelError` if the method needs something that is not installed."""

    def expected(self, n: int) -> Expected:  # noqa: ARG002
        """The expected calls of one run on n examples."""
        return Expected()

    def in_prompt(self, n: int) -> int:
        """Number of examples in each prompt of the follower."""
        return n if self.prompt == "examples" else 0

    def templates(self) -> tuple[Template, ...]:
        """The method's own templates, which are part of the key of a result."""
        return ()


class StyledMethod(Method):
    """A method whose prompt can use the layout of a style."""

    style: str = Field(default=OURS, description="style of the prompt, see `promptmii styles list`")

    def check(self) -> None:
        read_style(self.style)

    def templates(self) -> tuple[Template, ...]:
        return () if self.style == OURS else (frame_template(read_style(self.style).frame),)
