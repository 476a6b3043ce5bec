"""Episodes for meta-tuning a follower: the same few labels asked for in many ways, each exactly as it will be asked at inference.

Every episode follows from (seed, step, index) alone, so a resumed run draws what the uninterrupted one would have drawn.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmii.data.nameless import hide
from promptmii.errors import DataError
from promptmii.inducers import InContext, Naive
from promptmii.instruction import Instruction
from promptmii.models.base import LanguageModel
from promptmii.task import Example, Support, Task
from promptmii.train.bank import Guide
from promptmii.train.cues import Cues
from promptmii.train.follower_settings import FollowerSettings

READ = (1, 6)
"""Fewest and most rows of a label that its cue words are read out of."""
WORDS = (2, 6)
"""Fewest and most cue words that a line names."""


@dataclass(frozen=True)
class Rendered:
    """One episode as a follower sees it."""

    kind: str
    """The rendering, for the curves: `naive`, `icl`, `icl-hidden`, `instruction`, `instruction-hidden`, `lookup`."""
    task: str
    instruction: Instruction
    query: tuple[Example, ...]
    """Labelled with the names that the instruction uses."""


class Deck:
    """Training tasks from which episodes are drawn."""

    def __init__(
        self, tasks: Mapping[str, Task], bank: Mapping[str, Guide], model: LanguageModel, settings: FollowerSettings
    ) -> None:
        """`model` counts tokens, as ICL does at inference. Raises `DataError` for a task with too few short texts."""
        self._settings = settings
        self._in_context = InContext(model)
        self._rows = {name: short_rows(task, settings.max_chars) for name, task in tasks.items()}
        self._guides = {
            name: bank[name] for name, rows in self._rows.items() if name in bank and bank[name].covers(list(rows))
        }
        self._cues = {name: Cues(self._rows[name]) for name in self._guides}
        if not self._guides and settings.mix.instruction + settings.mix.lookup > 0:
            raise DataError(
                "No training task has all its labels in the bank. Name its folder, or set mix.instruction and mix.lookup to 0."
            )

    def draw(self, step: int, index: int) -> Rendered:
        """Episode `index` of a step."""
        stream = random.Random(f"{self._settings.seed}/{step}/{index}")
        mix = self._settings.mix
        kind = stream.choices(
            ("naive", "icl", "instruction", "lookup"), (mix.naive, mix.icl, mix.instruction, mix.lookup)
        )[0]
        names = list(self._guides if kind in ("instruction", "lookup") else self._rows)
        # Tasks of many labels have more to teach, though not in proportion.
        task = stream.choices(names, [math.sqrt(len(self._rows[name])) for name in names])[0]
        rows = self._rows[task]
        low, high = self._settings.labels
        k = stream.randint(min(low, len(rows)), min(high, len(rows)))
        labels = stream.sample(list(rows), k)
        if stream.random() >= mix.shuffled:
            labels.sort(key=list(rows).index)
        hidden = kind == "lookup" or (kind != "naive" and stream.random() < mix.hidden)
        shown = hide(labels, stream) if hidden else {label: label for label in labels}
        if hidden and stream.random() >= mix.shuffled:
            shown = dict(sorted(shown.items(), key=lambda pair: pair[1]))
        instruction, query = self._render(kind, task, shown, stream)
        return Rendered(kind + "-hidden" if hidden and kind != "lookup" else kind, task, instruction, query)

    def _render(
        self, kind: str, task: str, shown: Mapping[str, str], stream: random.Random
    ) -> tuple[Instruction, tuple[Example, ...]]:
        labels = tuple(shown.values())
        if kind == "lookup":
            return self._look_up(self._guides[task], shown, stream)
        support, query, unseen = self._split(self._rows[task], shown, stream, examples=kind == "icl")
        if kind == "naive":
            return Naive().induce(Support(labels, ())), query
        if kind == "icl":
            return self._in_context.induce(Support(labels, support)), query
        return Instruction(text=self._guide(task, shown, unseen, stream), labels=labels, method="guide"), query

    def _guide(
        self, task: str, shown: Mapping[str, str], rows: Mapping[str, Sequence[Example]], stream: random.Random
    ) -> str:
        """A guide whose cue words, if it names any, are read out of a few of `rows`, as a writer reads them out of its examples."""
        mix, guide = self._settings.mix, self._guides[task]
        if stream.random() >= mix.cues:
            return guide.text(shown, stream)
        read, most = stream.randint(*READ), stream.randint(*WORDS)
        cues = self._cues[task].of({label: [e.text for e in rows[label][:read]] for label in shown}, most)
        return guide.text(shown, stream, cues=cues, described=stream.random() >= mix.wordless)

    def _look_up(
        self, guide: Guide, shown: Mapping[str, str], stream: random.Random
    ) -> tuple[Instruction, tuple[Example, ...]]:
        """A guide of one description each, and queries that are descriptions: half of them the very same, half another."""
        text = guide.text(shown, stream, opening=0.2)
        asked = stream.choices(list(shown), k=self._settings.queries)
        query: list[Example] = []
        for label in asked:
            known = [said for said in guide.descriptions[label] if said in text]
            other = [said for said in guide.descriptions[label] if said not in text]
            query.append(Example(stream.choice(known if stream.random() < 0.5 or not other else other), shown[label]))
        return Instruction(text=text, labels=tuple(shown.values()), method="guide"), tuple(query)

    def _split(
        self, rows: Mapping[str, Sequence[Example]], shown: Mapping[str, str], stream: random.Random, *, examples: bool
    ) -> tuple[tuple[Example, ...], tuple[Example, ...], Mapping[str, Sequence[Example]]]:
        """Support (each label once before any comes twice, as far as the room goes; none unless `examples`), query, and the rows left."""
        pools = {label: stream.sample(rows[label], len(rows[label])) for label in shown}
        query: list[Example] = []
        for label in stream.choices(list(shown), k=self._settings.queries):
            # The last row of a label is left for the support.
            if len(pools[label]) > 1 or not query:
                query.append(pools[label].pop())
        support: list[Example] = []
        if examples:
            n = stream.randint(*self._settings.examples)
            order = [*stream.sample(list(shown), len(shown)), *stream.choices(list(shown), k=n)][:n]
            support = [pools[label].pop() for label in order if pools[label]]
        while support and sum(len(example.text) for example in support) > self._settings.support_chars:
            support.pop()
        renamed = [tuple(Example(example.text, shown[example.label]) for example in part) for part in (support, query)]
        return renamed[0], renamed[1], pools


def short_rows(task: Task, limit: int) -> dict[str, list[Example]]:
    """Training rows by label, in the task's order; labels with fewer than three short texts are left out."""
    rows = {label: [e for e in task.train if e.label == label and len(e.text) <= limit] for label in task.labels}
    rows = {label: found for label, found in rows.items() if len(found) >= 3}
    if len(rows) < 2:
        raise DataError(
            f"Task {task.name!r} has fewer than two labels with three texts of at most {limit} characters; leave it out."
        )
    return rows
