"""A complete new method, as a contributor would write it. Importing this module registers it."""

from dataclasses import dataclass

from pydantic import Field

from promptmii.follower import Follower
from promptmii.inducers import METHODS, Expected, Kit, Method, Writer, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.instruction import Instruction
from promptmii.task import Support


@dataclass(frozen=True)
class Toy:
    """Writes several texts and keeps the longest."""

    writer: Writer
    follower: Follower
    texts: int
    name: str = "toy"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The longest text."""
        search = Search(self.writer, self.follower, support)
        examples, notes = search.writer.fit(search.shown)
        chat = [search.writer.request(search.shown, examples)]
        sampling = search.writer.sampling(support.labels, seed, temperature=1.0)
        texts = search.write([chat] * self.texts, sampling)
        return search.result(max(texts, key=len), self.name, n=len(examples), seed=seed, notes=notes)


class ToyMethod(Method):
    """The registered method."""

    name = "toy"
    summary = "writes some texts and keeps the longest"
    written_by = WrittenBy.GENERATOR

    texts: int = Field(default=3, ge=1, description="texts to choose from")

    def inducer(self, kit: Kit) -> Toy:
        """See `Method`."""
        return Toy(kit.writer, kit.follower, self.texts)

    def expected(self, n: int) -> Expected:
        """See `Method`."""
        return Expected(self.texts, shown=n - held_back(n))


METHODS[ToyMethod.name] = ToyMethod
