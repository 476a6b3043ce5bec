"""Writing for validation, divided among the processes of a run.

Every process is asked for the same drafts, writes a part of them, and gets all of them: any number on any number of
processes, each with as many rows as the others, because an engine that spans processes needs them in step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object

from promptmii.errors import UnsupportedError
from promptmii.models.base import Sampling

Write = Callable[[Sequence[Sequence[int]], Sequence[int], Sampling, Sequence[int]], list[list[int]]]
"""`Engine.write`: all that is shared."""


@dataclass(frozen=True)
class SharedEngine:
    """An `Engine` that writes its part and gathers the others'."""

    part: Write
    process: int
    processes: int

    def write(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[int], sampling: Sampling, ends: Sequence[int]
    ) -> list[list[int]]:
        """See `Engine`."""
        size = -(-len(rows) // self.processes)
        mine = list(rows[self.process * size : (self.process + 1) * size])
        mine += list(rows[:1]) * (size - len(mine))  # to be in step; dropped below
        used = sorted(set(mine))
        written = self.part([prompts[row] for row in used], [used.index(row) for row in mine], sampling, ends)
        gathered: list[list[int]] = gather_object(written)
        return gathered[: len(rows)]

    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], end: int
    ) -> list[tuple[tuple[float, ...], int]]:
        """Refused."""
        del prompts, options, end
        raise UnsupportedError("A writer that several processes share compares no likelihoods.")

    def close(self) -> None:
        """See `Engine`. Nothing is held."""
