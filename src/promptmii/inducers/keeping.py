"""Keeps lines of a given text: `Keeping` merges them into the instruction that another inducer writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptmii.errors import ConfigError
from promptmii.inducers.drafts import replace_text
from promptmii.inducers.meta import BestOf, MetaInducer
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.messages import counted
from promptmii.task import Support
from promptmii.words import BULLETS


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
        return replace_text(instruction, text).noted(*notes)

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
    """The lines that contain any of the marks. Raises `ConfigError` for a mark without words or in no line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for mark in marks:
        if not mark.strip():
            raise ConfigError(f"--keep is {mark!r}, which keeps every line; expected words of the lines to keep.")
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
    return subject.strip(BULLETS).casefold() if colon else ""
