"""Methods that write nothing: the label list, a human's instruction, and in-context learning.

They isolate what the follower can do by itself (naive) and what the examples do when repeated with every query (ICL).
"""

from dataclasses import dataclass, field

from promptmii.follower import FRAME_MARGIN
from promptmii.inducers.fitting import fitting, fitting_note
from promptmii.inducers.method import Kit, Method
from promptmii.instruction import Instruction, Provenance
from promptmii.models.base import LanguageModel
from promptmii.prompts import Template, example_lines, follower_frame, frame_prompt, shown_examples
from promptmii.task import Example, Support

QUERY_SHARE = 4
"""ICL leaves one part in this many of the context for the query."""


@dataclass(frozen=True)
class Naive:
    """The label list alone. No model call, nothing learned from the examples."""

    frame: Template = field(default_factory=follower_frame)
    name: str = "naive"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """An empty instruction. Never fails."""
        provenance = Provenance(seed=seed)
        return Instruction(
            text="", labels=support.labels, method=self.name, frame=self.frame.text, provenance=provenance
        )


class NaiveMethod(Method):
    """Its entry in the table."""

    name = "naive"
    summary = "the list of labels alone: no instruction, no examples"
    by_default = True
    reads_examples = False
    prompt = "labels"

    def inducer(self, kit: Kit) -> Naive:  # noqa: ARG002
        """See `Method`."""
        return Naive()


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
    frame: Template = field(default_factory=follower_frame)
    name: str = "icl"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The examples that fit, in the order of the support; `provenance.n` says how many. No model call."""
        fitted, notes = self._fitting(support)
        return Instruction(
            text=shown_examples(fitted) if fitted else "",
            labels=support.labels,
            method=self.name,
            frame=self.frame.text,
            provenance=Provenance(
                n=len(fitted),
                seed=seed,
                support_key=support.key,
                notes=notes,
            ),
        )

    def _fitting(self, support: Support) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        context = self.follower.card.context_length
        empty = frame_prompt(self.frame, "Examples:", support.labels, "")
        frame, *lengths = self.follower.count_tokens([empty, *(example_lines([e]) + "\n\n" for e in support.examples)])
        kept = fitting(lengths, context - context // QUERY_SHARE - FRAME_MARGIN - frame)
        notes = fitting_note(lengths, kept, f"the context of {context} tokens")
        return tuple(support.examples[position] for position in kept), notes


class ICLMethod(Method):
    """Its entry in the table."""

    name = "icl"
    summary = "in-context learning: the n examples stand in every prompt, as many as fit"
    by_default = True
    prompt = "examples"

    def inducer(self, kit: Kit) -> InContext:
        """See `Method`."""
        return InContext(kit.follower.model)
