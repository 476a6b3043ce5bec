"""Prompt-MII: one model, one forward pass, one instruction; and best-of-k, the best of several.

The untrained and the trained generator share one class, so comparing them isolates the training. Best-of-k isolates
what selection adds to a single call.
"""

from dataclasses import dataclass

from pydantic import Field

from promptmii.follower import Follower
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import Message
from promptmii.models.wrappers import Metered
from promptmii.task import Support


@dataclass(frozen=True)
class MetaInducer:
    """Prompt-MII with `name="mii"`, Prompt-MII-Zero with an untrained model and `name="zero"`."""

    writer: Writer
    name: str = "mii"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """One greedy generation, and a second one if the first is over its token budget.

        Raises `EndpointError` if the generator returns nothing, `ConfigError` if not one example fits.
        """
        meter = Metered(self.writer.model)
        writer = self.writer.using(meter)
        fitted, notes = writer.fit(support)
        chat: list[Message] = [writer.ask(support, fitted)]
        sampling = writer.sampling(support.labels, seed, contrast=writer.contrast(support, fitted))
        answer = meter.generate([chat], sampling)[0]
        text = writer.some(writer.text(answer))
        if not writer.fits(text):
            again: list[Message] = [*chat, {"role": "assistant", "content": text}, writer.ask_shorter()]
            answer = meter.generate([again], writer.sampling(support.labels, seed))[0]
            text = writer.some(writer.text(answer))
        text, trimmed = writer.trim(text)
        cost = Cost.of(meter.usage, meter.card.price)
        notes = (*notes, *(trimmed or writer.endless(answer, support.labels)))
        return writer.made(text, support, self.name, n=len(fitted), seed=seed, cost=cost, notes=notes)


class MIIMethod(Method):
    name = "mii"
    summary = "Prompt-MII: the generator under test writes an instruction from the n examples, in one call"
    by_default = True
    written_by = WrittenBy.GENERATOR

    def inducer(self, kit: Kit) -> MetaInducer:
        return MetaInducer(kit.writer, name=self.name)

    def expected(self, n: int) -> Expected:
        return Expected(written=1, shown=n)


class ZeroMethod(MIIMethod):
    name = "zero"
    summary = "Prompt-MII-Zero: an untrained model writes an instruction from the n examples, in one call"
    by_default = True
    written_by = WrittenBy.UNTRAINED


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
