"""Shared by best-of-k, APE and GEPA: scoring candidate instructions with the follower on a part of the support.

A search splits the support in two. The writer sees one part, which also calibrates the follower; the other part scores
the candidates. The query rows are never used. Each candidate is calibrated once, however often it is scored.

Calls are counted as in the papers: a metric call is a row that the follower labels to score a candidate. Calibration
calls are counted separately; all calls are part of the cost.
"""

from collections.abc import Sequence
from dataclasses import replace

from promptmii.errors import ConfigError
from promptmii.follower import Follower
from promptmii.inducers.writing import Writer
from promptmii.instruction import Cost, Instruction
from promptmii.models.base import Chat, Sampling
from promptmii.models.wrappers import Metered
from promptmii.scoring import Scored, score
from promptmii.task import Example, Support

HELD_BACK_EVERY = 3
"""One in this many examples of a label is held back to score candidates."""


def held_back(n: int) -> int:
    """Approximate number of examples, of n, that `inner_split` holds back."""
    return max(n // HELD_BACK_EVERY, 1)


def inner_split(support: Support) -> tuple[Support, Support]:
    """Split off every third example of each label. Raises `ConfigError` if no label has two."""
    seen: dict[str, int] = {}
    shown: list[Example] = []
    held: list[Example] = []
    for example in support.examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        part = held if seen[example.label] % HELD_BACK_EVERY == 2 else shown
        part.append(example)
    if not held:
        raise ConfigError(
            "Choosing between instructions needs at least two examples of one label; "
            f"the {len(support.examples)} examples have at most one of each. Give more."
        )
    return Support(support.labels, tuple(shown)), Support(support.labels, tuple(held))


class Search:
    """One search on one support, with every call metered."""

    def __init__(self, writer: Writer, follower: Follower, support: Support) -> None:
        """Candidates use the frame of the writer's style. Raises `ConfigError` if the support is too small to split."""
        self.support = support
        self.shown, self.held = inner_split(support)
        self.generator = Metered(writer.model)
        self.writer = replace(writer, model=self.generator)
        self.written = 0
        """Texts that the writer wrote; one call to a server may write several."""
        self._scoring, self._calibrating = Metered(follower.model), Metered(follower.model)
        self._follower = replace(follower, model=self._scoring)
        self._calibrator = replace(follower, model=self._calibrating)
        self._prepared: dict[str, Instruction] = {}
        self._held_scores: dict[str, Scored] = {}
        self._cut_notes: dict[str, tuple[str, ...]] = {}

    def macro_f1(self, text: str) -> float:
        """The candidate's score on the held-back rows. Raises `ScoreRefusedError` if a call failed."""
        return self.predict(text, self.held.examples).macro_f1 or 0.0

    def predict(self, text: str, rows: Sequence[Example]) -> Scored:
        """Label rows of the support with the calibrated candidate; all held-back rows only once.

        Raises `ScoreRefusedError` if a call failed.
        """
        all_held = tuple(rows) == self.held.examples
        if all_held and text in self._held_scores:
            return self._held_scores[text]
        scored = score(self._follower, self._prepare(text), rows)
        scored.refuse_failures()
        if all_held:
            self._held_scores[text] = scored
        return scored

    def _prepare(self, text: str) -> Instruction:
        if text not in self._prepared:
            candidate = self.writer.instruction(text, self.support, "candidate", n=0, seed=0, cost=Cost(), notes=())
            self._prepared[text] = self._calibrator.prepare(candidate, self.shown)
        return self._prepared[text]

    def write(self, chats: Sequence[Chat], sampling: Sampling) -> list[str]:
        """Generate one text per chat, trimmed to the budget. Empty texts are dropped.

        Raises `EndpointError` if a call failed or all texts are empty.
        """
        answers = self.generator.generate(chats, sampling)
        self.written += len(answers)
        texts = [self.writer.text(answer) for answer in answers]
        self.writer.require_text(max(texts, key=len, default=""))
        cuts = [self.writer.truncation_note(answer, sampling) for answer in answers]
        return [self.trim(text, cut) for text, cut in zip(texts, cuts, strict=True) if text]

    def trim(self, text: str, cut: tuple[str, ...] = ()) -> str:
        """The text cut to the budget. If it is chosen, `result` notes that, or else `cut`, a note of its own."""
        trimmed, notes = self.writer.trim(text)
        self._cut_notes.setdefault(trimmed, notes or cut)
        return trimmed

    def result(self, text: str, method: str, *, n: int, seed: int, notes: Sequence[str] = ()) -> Instruction:
        """The instruction with the chosen text and the cost of the whole search."""
        meters = (self.generator, self._scoring, self._calibrating)
        calls = f"{self.written} texts written, {self._scoring.usage.calls} metric calls"
        if self._calibrating.usage.calls:
            calls += f", {self._calibrating.usage.calls} calls to calibrate candidates"
        cost = sum((Cost.of(meter.usage, meter.card.price) for meter in meters), Cost())
        notes = (*notes, calls, *self._cut_notes.get(text, ()))
        return self.writer.instruction(text, self.support, method, n=n, seed=seed, cost=cost, notes=notes)
