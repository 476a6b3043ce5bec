"""Lines of a human's instruction that stay, whatever a model writes around them."""

from collections.abc import Sequence
from dataclasses import dataclass

from promptmii.errors import ConfigError, counted
from promptmii.instruction import Inducer, Instruction
from promptmii.task import Support


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
        made = self.inducer.induce(support, seed=seed)
        text = with_lines(made.text, self.lines)
        return made.model_copy(update={"text": text}).noted(f"{counted(len(self.lines), 'line')} kept as given")


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
    made = text.splitlines()
    place = 0
    for line in lines:
        if line not in made:
            same = (i for i, other in enumerate(made) if _head(other) and _head(other) == _head(line))
            found = next((i for i in same if made[i] not in lines), None)
            made[slice(place, place) if found is None else slice(found, found + 1)] = [line]
        place = made.index(line) + 1
    return "\n".join(made)


def _head(line: str) -> str:
    """What a line is about: the words before its colon."""
    head, colon, _ = line.partition(":")
    return head.strip(" -*#\t").casefold() if colon else ""
