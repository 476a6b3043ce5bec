"""Prompt-MII, where one generator call writes the instruction, and best-of-k, which picks the best of several drafts.

The trained and the untrained generator share one class, so comparing them measures the training alone. Comparing
best-of-k with a single call measures what selection adds.
"""

from dataclasses import dataclass, replace

from pydantic import Field

from promptmii.errors import EndpointError, SpendingLimitError
from promptmii.follower import Follower
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Cost, Instruction
from promptmii.messages import first_line
from promptmii.models.base import Message
from promptmii.models.wrappers import Metered
from promptmii.task import Support


@dataclass(frozen=True)
class MetaInducer:
    """Prompt-MII, or Prompt-MII-Zero with an untrained model and `name="zero"`."""

    writer: Writer
    name: str = "mii"
    keeps_first: bool = False
    """If the request for a shorter draft fails, use the first one, which is paid for.

    An evaluation raises instead: a cell's text must not depend on a failure, and a rerun finds the draft in the cache.
    """

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Generate greedily, and once more if the first draft is over its budget.

        Raises `EndpointError` if the generator returns nothing, `ConfigError` if no example fits.
        """
        meter = Metered(self.writer.model)
        writer = replace(self.writer, model=meter)
        examples, notes = writer.fit(support)
        chat: list[Message] = [writer.request(support, examples)]
        sampling = writer.sampling(support.labels, seed, contrast=writer.contrast(support, examples))
        answer = meter.generate([chat], sampling)[0]
        text = writer.require_text(writer.text(answer))
        if not writer.within_budget(text):
            retry: list[Message] = [*chat, {"role": "assistant", "content": text}, writer.shorter_request()]
            try:
                answer = meter.generate([retry], writer.sampling(support.labels, seed))[0]
                text = writer.text(answer) or text  # an empty second draft is no reason to lose the first
            except (EndpointError, SpendingLimitError) as error:
                if not self.keeps_first:
                    raise
                notes = (*notes, f"the request for a shorter draft failed: {first_line(error)}")
        text, trim_notes = writer.trim(text)
        cost = Cost.of(meter.usage, meter.card.price)
        notes = (*notes, *(trim_notes or writer.truncation_note(answer, sampling)))
        return writer.instruction(text, support, self.name, n=len(examples), seed=seed, cost=cost, notes=notes)


class MIIMethod(Method):
    name = "mii"
    summary = "Prompt-MII: the generator under test writes an instruction from the n examples, in one call"
    single_call = True
    by_default = True
    written_by = WrittenBy.GENERATOR

    def inducer(self, kit: Kit) -> MetaInducer:
        return MetaInducer(kit.writer, name=self.name)

    def expected(self, n: int) -> Expected:
        return Expected(written=1, shown=n)


class ZeroMethod(MIIMethod):
    name = "zero"
    summary = "Prompt-MII-Zero: an untrained model writes an instruction from the n examples, in one call"
    written_by = WrittenBy.UNTRAINED


@dataclass(frozen=True)
class BestOf:
    """The best of `k` sampled drafts, by the follower's macro-F1 on a third of the support.

    The generator reads the other two thirds. Equal drafts are scored once; the shortest wins a tie.
    """

    writer: Writer
    follower: Follower
    k: int
    name = "best-of-k"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Raises like `MetaInducer`, `ConfigError` if the support is too small to split, and `ScoreRefusedError`."""
        search = Search(self.writer, self.follower, support)
        examples, notes = search.writer.fit(search.shown)
        chat = [search.writer.request(search.shown, examples)]
        contrast = search.writer.contrast(search.shown, examples)
        sampling = search.writer.sampling(support.labels, seed, 1.0, contrast)
        drafts = sorted(set(search.write([chat] * self.k, sampling)), key=lambda text: (len(text), text))
        best = max(drafts, key=search.macro_f1)
        note = f"best of {self.k} drafts ({len(drafts)} different) on {len(search.held.examples)} held-back examples"
        return search.result(best, self.name, n=len(examples), seed=seed, notes=(*notes, note))


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
