"""An engine that all processes of a run share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object

from promptmii.errors import UnsupportedError
from promptmii.models.base import Sampling
from promptmii.models.local import Engine, Likelihoods

Write = Callable[[Sequence[Sequence[int]], Sequence[int], Sampling, Sequence[int]], list[list[int]]]
"""The signature of `Engine.write` without `against`."""


@dataclass(frozen=True)
class SharedEngine(Engine):
    """An `Engine` that writes its own share of the rows and gathers the rest from the other processes.

    It takes any number of rows and processes. Each process writes the same number of rows, because an engine that
    spans processes needs them to run in step.
    """

    local_write: Write
    process: int
    processes: int

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        sampling: Sampling,
        ends: Sequence[int],
        against: Sequence[int] = (),
    ) -> list[list[int]]:
        del against  # unused, because the model's card says that it has no contrasts
        size = -(-len(rows) // self.processes)
        own = list(rows[self.process * size : (self.process + 1) * size])
        own += list(rows[:1]) * (size - len(own))  # padding, dropped below
        used = sorted(set(own))
        written = self.local_write([prompts[row] for row in used], [used.index(row) for row in own], sampling, ends)
        gathered: list[list[int]] = gather_object(written)
        return gathered[: len(rows)]

    def score(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[int]], end: int) -> list[Likelihoods]:
        del prompts, options, end
        raise UnsupportedError("A writer that several processes share gives no likelihoods.")
