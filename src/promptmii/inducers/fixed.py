"""Methods that generate nothing: the label list alone, a human's instruction, and in-context learning (ICL).

They show how well the follower does alone (naive) and with the examples in every prompt (ICL). `Keeping` merges lines
of a human's instruction into one that another method wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import Field

from promptmii.errors import ConfigError, counted
from promptmii.follower import FRAME_MARGIN
from promptmii.inducers.meta import BestOf, MetaInducer
from promptmii.inducers.method import Kit, Method
from promptmii.inducers.writing import Writer, fit_examples
from promptmii.instruction import Instruction, Provenance
from promptmii.models.base import LanguageModel
from promptmii.prompts import FRAME_SLOTS, Template, format_example, format_examples, frame_prompt
from promptmii.styles import OURS, Style, read_style
from promptmii.task import Support

QUERY_SHARE = 4
"""ICL keeps 1 / QUERY_SHARE of the context free for the query."""


@dataclass(frozen=True)
class Naive:
    """The label list alone. Calls no model and ignores the examples."""

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


class _StyledMethod(Method):
    """A method whose prompt can use the layout of a style."""

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


@dataclass(frozen=True)
class Keeping:
    """Another inducer, with lines that its instruction must contain."""

    inducer: MetaInducer | BestOf
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the other inducer."""
        return self.inducer.name

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Merge the lines, byte for byte, into the other inducer's instruction. Raises like the other inducer.

        If the result exceeds the writer's budget, shortens the other lines from the end.
        """
        instruction = self.inducer.induce(support, seed=seed)
        text = with_lines(instruction.text, self.lines)
        notes = [f"{counted(len(self.lines), 'line')} kept as given"]
        writer = self.inducer.writer
        if writer.budget is not None and not writer.within_budget(text):
            text = self._shortened(text, writer, writer.budget)
            notes.append(
                f"trimmed to the budget of {writer.budget} tokens"
                if writer.within_budget(text)
                else f"over the budget of {writer.budget} tokens: the kept lines alone exceed it"
            )
        return instruction.model_copy(update={"text": text}).noted(*notes)

    def _shortened(self, text: str, writer: Writer, budget: int) -> str:
        """Drop other lines from the end until the text fits.

        Cuts a line between words if dropping it would leave half of the budget unused, or no other line.
        """
        merged = text.splitlines()
        others = [position for position, line in enumerate(merged) if line not in self.lines]
        while others and not writer.within_budget("\n".join(merged)):
            position = others.pop()
            line = merged.pop(position)
            room = budget - 1 - writer.model.count_tokens(["\n".join(merged)])[0]
            if room > 0 and (room >= budget // 2 or not others):
                merged.insert(position, replace(writer, budget=room).trim(line)[0])
        return "\n".join(merged)


def marked_lines(text: str, marks: Sequence[str]) -> tuple[str, ...]:
    """The lines that contain any of the marks. Raises `ConfigError` for a mark that is in no line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in marks:
        if not any(mark in line for line in lines):
            raise ConfigError(f"No line of the given text contains {mark!r} (--keep).")
    return tuple(line for line in lines if any(mark in line for mark in marks))


def with_lines(text: str, lines: Sequence[str]) -> str:
    """Merge the lines into the text.

    A line replaces one about the same label. If there is none, it is inserted after its predecessor in `lines`, or at
    the beginning if it is the first.
    """
    merged = text.splitlines()
    position = 0
    for line in lines:
        if line not in merged:
            subject = _subject(line)
            replaceable = [
                i for i, other in enumerate(merged) if subject and _subject(other) == subject and other not in lines
            ]
            if replaceable:
                merged[replaceable[0]] = line
            else:
                merged.insert(position, line)
        position = merged.index(line) + 1
    return "\n".join(merged)


def _subject(line: str) -> str:
    """The words before the colon of a line, or "" if it has none."""
    subject, colon, _ = line.replace("：", ":").partition(":")
    return subject.strip(" -*#\t").casefold() if colon else ""


@dataclass(frozen=True)
class InContext:
    """Many-shot in-context learning: as many support examples as fit the follower's context."""

    follower: LanguageModel
    style: Style = field(default_factory=Style)
    name: str = "icl"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Show the examples that fit, in the order of the support; `provenance.n` is their number. Calls no model."""
        frame = Template(self.style.frame, FRAME_SLOTS)
        layout = frame.layout("text")
        blocks = [format_example(example, layout) + "\n\n" for example in support.examples]
        lengths = self.follower.count_tokens(blocks)
        limit = max_example_tokens(self.follower, frame, support.labels)
        place = f"the context of {self.follower.card.context_length} tokens"
        shown, notes = fit_examples(support.examples, lengths, limit, place)
        return Instruction(
            text=format_examples(shown, layout) if shown else "",
            labels=support.labels,
            method=self.name,
            frame=self.style.frame,
            answer=self.style.answer,
            provenance=Provenance(n=len(shown), seed=seed, support_key=support.key, notes=notes),
        ).fitted_on(support)


def max_example_tokens(follower: LanguageModel, frame: Template, labels: Sequence[str]) -> int:
    """Tokens available for the examples in the follower's prompt."""
    context = follower.card.context_length
    (frame_tokens,) = follower.count_tokens([frame_prompt(frame, "Examples:", labels, "")])
    return context - context // QUERY_SHARE - FRAME_MARGIN - frame_tokens


class ICLMethod(_StyledMethod):
    name = "icl"
    summary = "in-context learning: the n examples in every prompt, as many as fit"
    by_default = True
    prompt = "examples"

    def inducer(self, kit: Kit) -> InContext:
        return InContext(kit.follower.model, read_style(self.style))
