"""Best-of-k: sample several instructions and keep the best. It isolates what selection adds to a single call."""

from dataclasses import dataclass

from pydantic import Field

from promptmii.follower import Follower
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.task import Support


@dataclass(frozen=True)
class BestOf:
    """The best of `k` sampled instructions, by the follower's macro-F1 on a third of the support.

    The generator reads the other two thirds. It writes k drafts; the follower labels the third once for each different
    draft. The shorter of equally good drafts wins.
    """

    writer: Writer
    follower: Follower
    k: int
    temperature: float = 1.0
    name: str = "best-of-k"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best of k drafts. Raises as `MetaInducer` does, and `ScoreRefusedError` if the follower fails."""
        search = Search(self.writer, self.follower, support)
        fitted, notes = search.writer.fit(search.shown)
        chat = [search.writer.ask(search.shown, fitted)]
        contrast = search.writer.contrast(search.shown, fitted)
        sampling = search.writer.sampling(support.labels, seed, self.temperature, contrast)
        drafts = sorted(set(search.write([chat] * self.k, sampling)), key=lambda text: (len(text), text))
        best = max(drafts, key=search.macro_f1)
        note = f"best of {self.k} drafts ({len(drafts)} different) on {len(search.held.examples)} held-back examples"
        return search.result(best, self.name, n=len(fitted), seed=seed, notes=(*notes, note))


class BestOfMethod(Method):
    name = "best-of-k"
    summary = "the generator under test writes several instructions; the best on a part of the examples is kept"
    written_by = WrittenBy.GENERATOR

    k: int = Field(default=5, ge=2, description="drafts")

    def inducer(self, kit: Kit) -> BestOf:
        return BestOf(kit.writer, kit.follower, self.k)

    def expected(self, n: int) -> Expected:
        held = held_back(n)
        return Expected(self.k, shown=n - held, metric_calls=self.k * held, calibration_calls=self.k * (n - held))
