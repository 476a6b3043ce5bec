"""Methods that write nothing: the label list, a human's instruction or lines of it, and in-context learning (ICL).

They show what the follower can do alone (naive) and with the examples in every prompt (ICL).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from promptmii.errors import ConfigError, counted
from promptmii.follower import FRAME_MARGIN
from promptmii.inducers.method import Kit, Method
from promptmii.inducers.writing import fitted
from promptmii.instruction import Inducer, Instruction, Provenance
from promptmii.models.base import LanguageModel
from promptmii.prompts import FRAME_SLOTS, Template, frame_prompt, shown_example, shown_examples
from promptmii.styles import OURS, Style, read_style
from promptmii.task import Support

QUERY_SHARE = 4
"""ICL leaves 1 / QUERY_SHARE of the context for the query."""


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


@dataclass(frozen=True)
class Unprompted:
    """The label list alone, for a method with its own predictor."""

    name: str
    note: str
    """A one-line explanation of the method."""

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """An empty instruction. Never fails."""
        provenance = Provenance(n=len(support.examples), seed=seed, support_key=support.key, notes=(self.note,))
        return Instruction(text="", labels=support.labels, method=self.name, provenance=provenance)


class _StyledMethod(Method):
    """A method whose prompt can take its layout from a style."""

    style: str = Field(default=OURS, description="of the prompt, as `promptmii styles list` names them")

    def check(self) -> None:
        read_style(self.style)

    def templates(self) -> tuple[Template, ...]:
        return () if self.style == OURS else (Template(read_style(self.style).frame, FRAME_SLOTS),)


class NaiveMethod(_StyledMethod):
    name = "naive"
    summary = "the list of labels alone: no instruction, no examples"
    by_default = True
    reads_examples = False
    prompt = "labels"

    def inducer(self, kit: Kit) -> Naive:  # noqa: ARG002
        return Naive(read_style(self.style))


@dataclass(frozen=True)
class Given:
    """A text written by a human, for instance a task's own guideline: the zero-shot human instruction."""

    text: str
    name: str = "human"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The given text with the support's labels. Never fails."""
        return Instruction(text=self.text, labels=support.labels, method=self.name, provenance=Provenance(seed=seed))


class HumanMethod(Method):
    name = "human"
    summary = "an instruction that a person wrote for the task"
    reads_examples = False
    needs_human = True

    def inducer(self, kit: Kit) -> Given:
        return Given(kit.human or "")


@dataclass(frozen=True)
class Keeping:
    """Another inducer, whose instruction gets the lines that must stay."""

    inducer: Inducer
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """See `Inducer`."""
        return self.inducer.name

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The other's instruction with the lines, byte for byte. Raises as the other does."""
        instruction = self.inducer.induce(support, seed=seed)
        text = with_lines(instruction.text, self.lines)
        return instruction.model_copy(update={"text": text}).noted(f"{counted(len(self.lines), 'line')} kept as given")


def marked_lines(text: str, marks: Sequence[str]) -> tuple[str, ...]:
    """The lines that hold any of the marks. Raises `ConfigError` for a mark that no line holds."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in marks:
        if not any(mark in line for line in lines):
            raise ConfigError(f"No line of the given text contains {mark!r} (--keep).")
    return tuple(line for line in lines if any(mark in line for mark in marks))


def with_lines(text: str, lines: Sequence[str]) -> str:
    """The text with all of the lines in it: each takes the place of a line about the same label, else it is added.

    An added line comes after the one before it among `lines`; the first comes first.
    """
    merged = text.splitlines()
    place = 0
    for line in lines:
        if line not in merged:
            same = (i for i, other in enumerate(merged) if _head(other) and _head(other) == _head(line))
            old = next((i for i in same if merged[i] not in lines), None)
            merged[slice(place, place) if old is None else slice(old, old + 1)] = [line]
        place = merged.index(line) + 1
    return "\n".join(merged)


def _head(line: str) -> str:
    """The subject of a line: the words before its colon."""
    head, colon, _ = line.partition(":")
    return head.strip(" -*#\t").casefold() if colon else ""


@dataclass(frozen=True)
class InContext:
    """Many-shot in-context learning: the support examples themselves, as many as fit the follower's context."""

    follower: LanguageModel
    style: Style = field(default_factory=Style)
    name: str = "icl"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The examples that fit, in the order of the support; `provenance.n` says how many. No model call."""
        frame = Template(self.style.frame, FRAME_SLOTS)
        layout = frame.layout("text")
        lengths = self.follower.count_tokens([shown_example(e, layout) + "\n\n" for e in support.examples])
        room = examples_room(self.follower, frame, support.labels)
        where = f"the context of {self.follower.card.context_length} tokens"
        shown, notes = fitted(support.examples, lengths, room, where)
        return Instruction(
            text=shown_examples(shown, layout) if shown else "",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            answer=self.style.answer,
            provenance=Provenance(n=len(shown), seed=seed, support_key=support.key, notes=notes),
        )


def examples_room(follower: LanguageModel, frame: Template, labels: Sequence[str]) -> int:
    """Tokens available for examples in the follower's prompt."""
    context = follower.card.context_length
    (empty,) = follower.count_tokens([frame_prompt(frame, "Examples:", labels, "")])
    return context - context // QUERY_SHARE - FRAME_MARGIN - empty


class ICLMethod(_StyledMethod):
    name = "icl"
    summary = "in-context learning: the n examples in every prompt, as many as fit"
    by_default = True
    prompt = "examples"

    def inducer(self, kit: Kit) -> InContext:
        return InContext(kit.follower.model, read_style(self.style))
