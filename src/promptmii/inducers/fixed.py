"""Methods that write nothing: the label list, a human's instruction, and in-context learning.

They isolate what the follower can do by itself (naive) and what the examples do when repeated with every query (ICL).
"""

from dataclasses import dataclass, field

from pydantic import Field

from promptmii.follower import FRAME_MARGIN
from promptmii.inducers.fitting import fitting, fitting_note
from promptmii.inducers.method import Kit, Method
from promptmii.instruction import Instruction, Provenance
from promptmii.models.base import LanguageModel
from promptmii.prompts import FRAME_SLOTS, Template, follower_frame, frame_prompt, shown_example, shown_examples
from promptmii.styles import OURS, Style, read_style
from promptmii.task import Example, Support

QUERY_SHARE = 4
"""ICL leaves one part in this many of the context for the query."""


@dataclass(frozen=True)
class Naive:
    """The label list alone. No model call, nothing learned from the examples."""

    style: Style = field(default_factory=Style)
    name: str = "naive"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """An empty instruction. Never fails."""
        return Instruction(
            text="",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            answer=self.style.answer,
            provenance=Provenance(seed=seed),
        )


class _StyledMethod(Method):
    """A method whose prompt may be that of a style."""

    style: str = Field(default=OURS, description="of the prompt, as `promptmii styles list` names them")

    def check(self) -> None:
        """See `Method`."""
        read_style(self.style)

    def templates(self) -> tuple[Template, ...]:
        """See `Method`."""
        return () if self.style == OURS else (Template(read_style(self.style).frame, FRAME_SLOTS),)


class NaiveMethod(_StyledMethod):
    """Its entry in the table."""

    name = "naive"
    summary = "the list of labels alone: no instruction, no examples"
    by_default = True
    reads_examples = False
    prompt = "labels"

    def inducer(self, kit: Kit) -> Naive:  # noqa: ARG002
        """See `Method`."""
        return Naive(read_style(self.style))


@dataclass(frozen=True)
class Given:
    """A text written by a human, for instance a task's own guideline: the zero-shot human instruction."""

    text: str
    frame: Template = field(default_factory=follower_frame)
    name: str = "human"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The given text with the support's labels. Never fails."""
        provenance = Provenance(seed=seed)
        return Instruction(
            text=self.text, labels=support.labels, method=self.name, frame=self.frame.text, provenance=provenance
        )


class HumanMethod(Method):
    """Its entry in the table."""

    name = "human"
    summary = "an instruction that a person wrote for the task"
    reads_examples = False
    needs_human = True

    def inducer(self, kit: Kit) -> Given:
        """See `Method`."""
        return Given(kit.human or "")


@dataclass(frozen=True)
class InContext:
    """Many-shot in-context learning: the support examples themselves, as many as fit the follower's context."""

    follower: LanguageModel
    style: Style = field(default_factory=Style)
    name: str = "icl"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The examples that fit, in the order of the support; `provenance.n` says how many. No model call."""
        fitted, notes = self._fitting(support)
        return Instruction(
            text=shown_examples(fitted, self._frame.layout("text")) if fitted else "",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            answer=self.style.answer,
            provenance=Provenance(
                n=len(fitted),
                seed=seed,
                support_key=support.key,
                notes=notes,
            ),
        )

    @property
    def _frame(self) -> Template:
        return Template(self.style.frame, FRAME_SLOTS)

    def _fitting(self, support: Support) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        context, layout = self.follower.card.context_length, self._frame.layout("text")
        empty = frame_prompt(self._frame, "Examples:", support.labels, "")
        shown = [shown_example(example, layout) + "\n\n" for example in support.examples]
        frame, *lengths = self.follower.count_tokens([empty, *shown])
        kept = fitting(lengths, context - context // QUERY_SHARE - FRAME_MARGIN - frame)
        notes = fitting_note(lengths, kept, f"the context of {context} tokens")
        return tuple(support.examples[position] for position in kept), notes


class ICLMethod(_StyledMethod):
    """Its entry in the table."""

    name = "icl"
    summary = "in-context learning: the n examples stand in every prompt, as many as fit"
    by_default = True
    prompt = "examples"

    def inducer(self, kit: Kit) -> InContext:
        """See `Method`."""
        return InContext(kit.follower.model, read_style(self.style))
