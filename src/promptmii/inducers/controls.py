"""Controls: instructions without the content that should matter. If one scores as well, that content does not matter.

`keywords` lists words instead of sentences, `shuffled` describes the wrong labels, and `other-task` describes another
task.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from promptmii.data import draw_support
from promptmii.data.sources import SUITE, read_tasks
from promptmii.errors import UnsupportedError
from promptmii.inducers.meta import MetaInducer
from promptmii.inducers.method import Expected, Kit, Method, Role, WrittenBy
from promptmii.instruction import Instruction, Provenance
from promptmii.task import Support, Task
from promptmii.words import WORD, any_of

PRIOR = 0.5
"""Added to each word count, so that no logarithm is infinite."""


@dataclass(frozen=True)
class Keywords:
    """For each label, the words that are most typical of its examples; words that tie are in alphabetical order."""

    words: int
    """Maximum words per label."""
    name = "keywords"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """One line per label. Never raises."""
        provenance = Provenance(n=len(support.examples), seed=seed, support_key=support.key)
        text = "\n".join(f"{label}: {', '.join(words)}" for label, words in self._words(support).items())
        instruction = Instruction(text=text, labels=support.labels, method=self.name, provenance=provenance)
        return instruction.fitted_on(support)

    def _words(self, support: Support) -> dict[str, list[str]]:
        """Words per label, by the z-score of their log-odds ratio: the label's examples against all others."""
        texts = [re.findall(WORD, example.text.casefold()) for example in support.examples]
        vocabulary = sorted({word for text in texts for word in text})
        columns = {word: column for column, word in enumerate(vocabulary)}
        counts = np.full((len(support.labels), len(vocabulary)), PRIOR)
        for example, text in zip(support.examples, texts, strict=True):
            np.add.at(counts[support.labels.index(example.label)], [columns[word] for word in text], 1)
        others = counts.sum(axis=0) - counts
        z = (_log_odds(counts) - _log_odds(others)) / np.sqrt(1 / counts + 1 / others)
        best = np.argsort(-z, axis=1, kind="stable")[:, : self.words]
        return {
            label: [vocabulary[column] for column in best[row] if counts[row, column] > PRIOR and z[row, column] > 0]
            for row, label in enumerate(support.labels)
        }


def _log_odds(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log-odds of each word within its row. The floor matters only if the texts have a single word."""
    return np.log(counts / np.maximum(counts.sum(axis=1, keepdims=True) - counts, PRIOR))


class KeywordsMethod(Method):
    name = "keywords"
    summary = "control: the words with the highest log-odds for each label, in place of an instruction"
    role = Role.CONTROL

    words: int = Field(default=8, ge=1, description="words for each label")

    def inducer(self, kit: Kit) -> Keywords:  # noqa: ARG002
        return Keywords(self.words)


class _GeneratedControl(Method):
    role = Role.CONTROL
    written_by = WrittenBy.GENERATOR

    def expected(self, n: int) -> Expected:
        return Expected(written=1, shown=n)


@dataclass(frozen=True)
class Shuffled:
    """A generated instruction in which each label's line is given to another label."""

    inducer: MetaInducer
    name = "shuffled"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Raises like `MetaInducer`, and `UnsupportedError` if fewer than two labels begin a line."""
        instruction = self.inducer.induce(support, seed=seed)
        text = permute_labels(instruction.text, support.labels, seed)
        return instruction.model_copy(update={"text": text, "method": self.name}).noted("label lines permuted")


def permute_labels(text: str, labels: Sequence[str], seed: int) -> str:
    """Replace each label at the beginning of a line with another one.

    Raises `UnsupportedError` if fewer than two labels begin a line.
    """
    bullet = r"[^\w\n]*?(?:\d+[.)]\s*)?[^\w\n]*?"
    heading = re.compile(rf"^({bullet})({any_of(labels)})(?!\w)(?=[^\w\n]*[:：=—–-])", re.MULTILINE)
    present = list(dict.fromkeys(match[2] for match in heading.finditer(text)))
    if len(present) < 2:
        raise UnsupportedError(
            f"The lines of the instruction begin with {len(present)} of the {len(labels)} labels, so there is nothing "
            "to permute. Leave the control out for this generator."
        )
    order = present.copy()
    random.Random(f"shuffled:{seed}").shuffle(order)
    replacements = dict(zip(order, (*order[1:], order[0]), strict=True))
    return heading.sub(lambda match: match[1] + replacements[match[2]], text)


class ShuffledMethod(_GeneratedControl):
    name = "shuffled"
    summary = "control: the instruction of mii with its label lines permuted"

    def inducer(self, kit: Kit) -> Shuffled:
        return Shuffled(MetaInducer(kit.writer))


@dataclass(frozen=True)
class OtherTask:
    """An instruction written for another task, from the bundled suite."""

    inducer: MetaInducer
    name = "other-task"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """Uses as many examples of the other task as the support has. Raises like `MetaInducer`."""
        task = _unrelated_task(support, seed)
        unrelated = draw_support(task, min(len(support.examples), len(task.train)), seed)
        instruction = self.inducer.induce(unrelated, seed=seed)
        provenance = instruction.provenance.model_copy(update={"support_key": support.key})
        update = {"labels": support.labels, "method": self.name, "provenance": provenance}
        return instruction.model_copy(update=update).noted(f"written for the task {task.name}")


def _unrelated_task(support: Support, seed: int) -> Task:
    """A task of the suite that shares no label or text with the support; any task of it if all do."""
    tasks = list(read_tasks((SUITE,)).values())
    labels, texts = {*support.labels}, {example.text for example in support.examples}
    other_labels = [task for task in tasks if labels.isdisjoint(task.labels)]
    unrelated = [task for task in other_labels if texts.isdisjoint(example.text for example in task.train)] or tasks
    return unrelated[seed % len(unrelated)]


class OtherTaskMethod(_GeneratedControl):
    name = "other-task"
    summary = "control: an instruction that the generator wrote for a task of the bundled suite"

    def inducer(self, kit: Kit) -> OtherTask:
        return OtherTask(MetaInducer(kit.writer))
