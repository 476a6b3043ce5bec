"""Controls: instructions without the content that should matter. If one scores as well, the content does not matter.

`keywords` has no sentence, `shuffled` says the right things of the wrong labels, `other-task` is about something else.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from promptmii.data import draw_support
from promptmii.data.sources import SUITE, read_tasks
from promptmii.errors import UnsupportedError
from promptmii.inducers.classifiers import WORD
from promptmii.inducers.meta import MetaInducer
from promptmii.inducers.method import Expected, Kit, Method, Role, WrittenBy
from promptmii.instruction import Instruction, Provenance
from promptmii.task import Support, Task

PRIOR = 0.5
"""Added to each count of a word."""


@dataclass(frozen=True)
class Keywords:
    """For each label, the words that its examples have and others have not."""

    words: int
    name: str = "keywords"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """One line per label. Never fails."""
        provenance = Provenance(n=len(support.examples), seed=seed, support_key=support.key)
        text = "\n".join(f"{label}: {', '.join(words)}" for label, words in self._words(support).items())
        return Instruction(text=text, labels=support.labels, method=self.name, provenance=provenance)

    def _words(self, support: Support) -> dict[str, list[str]]:
        """By the log-odds of a word in a label's examples against all others, in units of its standard error."""
        texts = [re.findall(WORD, example.text.casefold()) for example in support.examples]
        vocabulary = sorted({word for text in texts for word in text})
        place = {word: i for i, word in enumerate(vocabulary)}
        counts = np.full((len(support.labels), len(vocabulary)), PRIOR)
        for example, text in zip(support.examples, texts, strict=True):
            np.add.at(counts[support.labels.index(example.label)], [place[word] for word in text], 1)
        rest = counts.sum(axis=0) - counts
        odds = [np.log(part / (part.sum(axis=1, keepdims=True) - part)) for part in (counts, rest)]
        z = (odds[0] - odds[1]) / np.sqrt(1 / counts + 1 / rest)
        best = np.argsort(-z, axis=1, kind="stable")[:, : self.words]
        return {
            label: [vocabulary[i] for i in row if counts[k, i] > PRIOR and z[k, i] > 0]
            for k, (label, row) in enumerate(zip(support.labels, best, strict=True))
        }


class _WrittenControl(Method):
    role = Role.CONTROL
    written_by = WrittenBy.GENERATOR

    def expected(self, n: int) -> Expected:
        return Expected(written=1, shown=n)


class KeywordsMethod(Method):
    name = "keywords"
    summary = "control: the words with the highest log-odds for each label, in place of an instruction"
    role = Role.CONTROL

    words: int = Field(default=8, ge=1, description="for each label")

    def inducer(self, kit: Kit) -> Keywords:  # noqa: ARG002
        return Keywords(self.words)


@dataclass(frozen=True)
class Shuffled:
    """An instruction that another method writes, each line about a label given to another label."""

    written: MetaInducer
    name: str = "shuffled"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Raises `UnsupportedError` where fewer than two lines begin with a label; else as the other method does."""
        instruction = self.written.induce(support, seed=seed)
        text = permuted(instruction.text, support.labels, seed)
        return instruction.model_copy(update={"text": text, "method": self.name}).noted("label lines permuted")


def permuted(text: str, labels: Sequence[str], seed: int) -> str:
    """The text with the labels at the beginning of its lines exchanged, none of them in its place.

    Raises `UnsupportedError` where fewer than two labels begin a line.
    """
    names = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    head = re.compile(rf"^([^\w\n]*?(?:\d+[.)]\s*)?[^\w\n]*?)({names})(?!\w)(?=[^\w\n]*[:=—–-])", re.MULTILINE)
    present = list(dict.fromkeys(match[2] for match in head.finditer(text)))
    if len(present) < 2:
        raise UnsupportedError(
            f"Only {len(present)} of the {len(labels)} labels begin a line of the instruction, so there is nothing to "
            "permute. Leave the control out for this generator."
        )
    order = present.copy()
    random.Random(f"shuffled:{seed}").shuffle(order)
    other = dict(zip(order, (*order[1:], order[0]), strict=True))
    return head.sub(lambda match: match[1] + other[match[2]], text)


class ShuffledMethod(_WrittenControl):
    name = "shuffled"
    summary = "control: the instruction of mii with its label lines permuted"

    def inducer(self, kit: Kit) -> Shuffled:
        return Shuffled(MetaInducer(kit.writer))


@dataclass(frozen=True)
class OtherTask:
    """The instruction for a task of the bundled suite, used for this one."""

    written: MetaInducer
    name: str = "other-task"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """From as many examples. Raises as the other method does."""
        task = _unrelated(support, seed)
        other = draw_support(task, min(len(support.examples), len(task.train)), seed)
        instruction = self.written.induce(other, seed=seed)
        provenance = instruction.provenance.model_copy(update={"support_key": support.key})
        update = {"labels": support.labels, "method": self.name, "provenance": provenance}
        return instruction.model_copy(update=update).noted(f"written for the task {task.name}")


def _unrelated(support: Support, seed: int) -> Task:
    """A task of the suite that shares no label and no text with the support."""
    tasks = list(read_tasks((SUITE,)).values())
    labels, texts = {*support.labels}, {example.text for example in support.examples}
    apart = [task for task in tasks if labels.isdisjoint(task.labels)]
    others = [task for task in apart if texts.isdisjoint(example.text for example in task.train)] or tasks
    return others[seed % len(others)]


class OtherTaskMethod(_WrittenControl):
    name = "other-task"
    summary = "control: an instruction that the generator wrote for a task of the bundled suite"

    def inducer(self, kit: Kit) -> OtherTask:
        return OtherTask(MetaInducer(kit.writer))
