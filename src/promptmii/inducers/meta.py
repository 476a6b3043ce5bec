"""Prompt-MII: one model, one forward pass, one instruction.

The untrained and the trained generator share one class, so comparing them isolates the training.
"""

from dataclasses import dataclass

from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
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
