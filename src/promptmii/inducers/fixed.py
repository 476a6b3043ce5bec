"""Methods that generate nothing and read no example: the label list alone, and an instruction that a person wrote."""

from dataclasses import dataclass, field

from promptmii.inducers.method import Kit, Method, StyledMethod
from promptmii.instruction import Instruction, Provenance
from promptmii.styles import Style, read_style
from promptmii.task import Support


@dataclass(frozen=True)
class Naive:
    """The label list alone. Calls no model and ignores the examples."""

    style: Style = field(default_factory=Style)
    name = "naive"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """An empty instruction. Never fails."""
        return Instruction(
            text="",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            longest_answer=self.style.answer,
            provenance=Provenance(seed=seed),
        )


@dataclass(frozen=True)
class NoInstruction:
    """The label list alone, for a method with its own predictor."""

    name: str
    note: str
    """A one-line explanation of the method."""

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """An empty instruction. Never fails."""
        provenance = Provenance(n=len(support.examples), seed=seed, support_key=support.key, notes=(self.note,))
        empty = Instruction(text="", labels=support.labels, method=self.name, provenance=provenance)
        return empty.fitted_on(support)


class NaiveMethod(StyledMethod):
    name = "naive"
    summary = "the list of labels alone: no instruction, no examples"
    by_default = True
    reads_examples = False
    prompt = "labels"

    def inducer(self, kit: Kit) -> Naive:  # noqa: ARG002
        return Naive(read_style(self.style))


@dataclass(frozen=True)
class FixedInstruction:
    """An existing instruction, such as a task's own guidelines for human annotators."""

    text: str
    name: str = "human"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The text with the support's labels. Never raises."""
        return Instruction(text=self.text, labels=support.labels, method=self.name, provenance=Provenance(seed=seed))


class HumanMethod(Method):
    name = "human"
    summary = "an instruction that a person wrote for the task"
    reads_examples = False
    needs_human = True

    def inducer(self, kit: Kit) -> FixedInstruction:
        return FixedInstruction(kit.human or "")
