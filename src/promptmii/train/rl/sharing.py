"""Writing for validation, divided among the processes of a run.

Every process is asked for the same drafts, writes a part of them, and gets all of them: any number on any number of
processes, each with as many rows as the others, because an engine that spans processes needs them in step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from accelerate.utils import gather_object

from promptmii.errors import UnsupportedError
from promptmii.models.base import Sampling
from promptmii.models.local import Likelihoods


class Writes(Protocol):
    """The half of `models.local.Engine` that is shared."""

    def write(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[int], sampling: Sampling, ends: Sequence[int]
    ) -> list[list[int]]:
        """See `Engine`."""
        ...


@dataclass(frozen=True)
class RolloutEngine:
    """The engine of the rollouts, vLLM, with the weights of now."""

    greedily: Callable[[list[list[int]], int], list[list[int]]]
    """Has a text of at most so many tokens written for each prompt."""

    def write(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[int], sampling: Sampling, ends: Sequence[int]
    ) -> list[list[int]]:
        """See `Engine`."""
        del ends  # its own configuration of the model has them
        return self.greedily([list(prompts[row]) for row in rows], sampling.max_tokens)


@dataclass(frozen=True)
class SharedEngine:
    """An `Engine` that writes its part and gathers the others'."""

    part: Writes
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
        written = self.part.write([prompts[row] for row in used], [used.index(row) for row in mine], sampling, ends)
        gathered: list[list[int]] = gather_object(written)
        return gathered[: len(rows)]

    def score(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], end: int) -> list[Likelihoods]:
        """Refused."""
        del prompts, options, end
        raise UnsupportedError("A writer that several processes share compares no likelihoods.")

    def close(self) -> None:
        """See `Engine`. Whoever made it closes the part."""
