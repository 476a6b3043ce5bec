"""Choosing between texts by what the follower makes of them: what best-of-k, APE and GEPA have in common.

A search splits the support once more. What it shows to the writer and fits the calibration on is one part, what candidates are
scored on is the other; the query is out of reach. Every call is metered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.inducers.copying import copy_warning
from promptmii.inducers.writing import Writer
from promptmii.instruction import Cost, Instruction, Provenance
from promptmii.models.base import Chat, Sampling
from promptmii.models.wrap import Metered
from promptmii.prompts import Template, follower_frame
from promptmii.scoring import Scored, score
from promptmii.task import Example, Support


def inner_split(support: Support) -> tuple[Support, Support]:
    """Every third example of each label is held back. Raises `ConfigError` when that leaves nothing to choose by."""
    seen: dict[str, int] = {}
    shown: list[Example] = []
    held: list[Example] = []
    for example in support.examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        (held if seen[example.label] % 3 == 2 else shown).append(example)
    if not held:
        raise ConfigError(
            f"Choosing between instructions needs two or more examples of some label; the {len(support.examples)} examples have none twice."
        )
    return Support(support.labels, tuple(shown)), Support(support.labels, tuple(held))


class Search:
    """One run of a search on one support: a metered writer, a metered follower, and the two parts of the support."""

    def __init__(self, writer: Writer, follower: Follower, support: Support, frame: Template) -> None:
        """Raises `ConfigError` where the support is too small to be split."""
        self.support = support
        self.shown, self.held = inner_split(support)
        self.writing = Metered(writer.model)
        self.following = Metered(follower.model)
        self.writer = writer.using(self.writing)
        self._follower = Follower(self.following, follower.mode, follower.calibration)
        self._frame = frame
        self._scores: dict[str, Scored] = {}
        self._trimmed: dict[str, tuple[str, ...]] = {}
        """What was cut of a text, where something was."""

    def score(self, text: str) -> Scored:
        """A candidate on the rows that are held back, asked once per text. Raises `ScoreRefusedError` if a call failed."""
        if text not in self._scores:
            self._scores[text] = self.predict(text, self.held.examples)
        return self._scores[text]

    def macro_f1(self, text: str) -> float:
        """On the rows that are held back."""
        return self.score(text).macro_f1 or 0.0

    def predict(self, text: str, rows: Sequence[Example]) -> Scored:
        """A candidate, calibrated on the part that is shown, on rows of the support. Raises `ScoreRefusedError` if a call failed."""
        plain = Instruction(text=text, labels=self.support.labels, method="candidate", frame=self._frame.text)
        scored = score(self._follower, self._follower.prepare(plain, self.shown), rows)
        scored.refuse_failures()
        return scored

    def write(self, chats: Sequence[Chat], sampling: Sampling) -> list[str]:
        """A text per chat, within the budget; empty ones are left out. Raises `EndpointError` where a call failed or all are empty."""
        texts = [self.writer.text(answer) for answer in self.writing.generate(chats, sampling)]
        self.writer.some(next((text for text in texts if text), ""))
        return [self.trim(text) for text in texts if text]

    def trim(self, text: str) -> str:
        """The text within the budget; that it was cut is noted where it is chosen."""
        kept, notes = self.writer.trim(text)
        self._trimmed.setdefault(kept, notes)
        return kept

    def result(self, text: str, method: str, *, n: int, seed: int, notes: Sequence[str] = ()) -> Instruction:
        """The artefact of the text that was chosen, with the cost of the whole search."""
        meters = (self.writing, self.following)
        return Instruction(
            text=text,
            labels=self.support.labels,
            method=method,
            frame=self._frame.text,
            generator=self.writing.card.reference,
            cost=sum((Cost.of(meter.usage, meter.card.price) for meter in meters), Cost()),
            provenance=Provenance(
                n=n,
                seed=seed,
                support_key=self.support.key,
                meta_template=self.writer.template.key,
                notes=(*notes, *self._trimmed.get(text, ()), *copy_warning(text, self.support.examples)),
            ),
        )


@dataclass(frozen=True)
class BestOf:
    """`k` sampled instructions, chosen by the follower's macro-F1 on a part of the support that the generator did not see.

    The generator reads two thirds of the support and the follower is scored on the rest: k generations, and for each different draft
    a follower call per row that is held back and per row of the calibration. Ties go to the shorter text.
    """

    writer: Writer
    follower: Follower
    k: int
    frame: Template = field(default_factory=follower_frame)
    temperature: float = 1.0
    name: str = "best-of-k"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best of k drafts. Raises as `MetaInducer`, and `ScoreRefusedError` when the follower fails."""
        search = Search(self.writer, self.follower, support, self.frame)
        fitted, notes = search.writer.fit(search.shown)
        chat = [search.writer.ask(search.shown, fitted)]
        sampling = search.writer.sampling(seed, self.temperature)
        drafts = sorted(set(search.write([chat] * self.k, sampling)), key=lambda text: (len(text), text))
        best = max(drafts, key=search.macro_f1)
        note = f"best of {self.k} drafts ({len(drafts)} different) by macro-F1 on {len(search.held.examples)} held-back support examples"
        return search.result(best, self.name, n=len(fitted), seed=seed, notes=(*notes, note))
