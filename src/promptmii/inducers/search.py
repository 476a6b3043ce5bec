"""The part that best-of-k, APE and GEPA share: choosing between texts by the follower's score on a part of the support.

A search splits the support once more. The writer sees one part, which also calibrates the follower; the other part
scores candidates. The query is out of reach. A candidate is calibrated once, however often it is scored.

Calls are counted as the authors of the searches count them: a metric call is a row that the follower labels to score a
candidate. Calls that calibrate are counted apart, and every call is part of the cost.
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

ONE_IN = 3
"""One example in this many is held back to score candidates."""


def held_back(n: int) -> int:
    """About how many of n examples `inner_split` holds back."""
    return max(n // ONE_IN, 1)


def inner_split(support: Support) -> tuple[Support, Support]:
    """Hold back every third example of each label. Raises `ConfigError` if no label has two."""
    seen: dict[str, int] = {}
    shown: list[Example] = []
    held: list[Example] = []
    for example in support.examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        (held if seen[example.label] % ONE_IN == 2 else shown).append(example)
    if not held:
        raise ConfigError(
            "Choosing between instructions needs at least two examples of one label; "
            f"the {len(support.examples)} examples have at most one of each."
        )
    return Support(support.labels, tuple(shown)), Support(support.labels, tuple(held))


class Search:
    """One run of a search on one support, with every call metered."""

    def __init__(self, writer: Writer, follower: Follower, support: Support) -> None:
        """Candidates are read in the writer's style. Raises `ConfigError` if the support is too small to be split."""
        self.support = support
        self.shown, self.held = inner_split(support)
        self.writing = Metered(writer.model)
        self.writer = writer.using(self.writing)
        self._judging, self._calibrating = Metered(follower.model), Metered(follower.model)
        self._follower = replace(follower, model=self._judging)
        self._calibrator = replace(follower, model=self._calibrating)
        self._prepared: dict[str, Instruction] = {}
        self._scores: dict[str, float] = {}
        self._trimmed: dict[str, tuple[str, ...]] = {}

    def macro_f1(self, text: str) -> float:
        """The candidate's score on the rows held back, measured once. Raises `ScoreRefusedError` if a call failed."""
        if text not in self._scores:
            self._scores[text] = self.predict(text, self.held.examples).macro_f1 or 0.0
        return self._scores[text]

    def predict(self, text: str, rows: Sequence[Example]) -> Scored:
        """The calibrated candidate on rows of the support. Raises `ScoreRefusedError` if a call failed."""
        scored = score(self._follower, self._prepare(text), rows)
        scored.refuse_failures()
        return scored

    def _prepare(self, text: str) -> Instruction:
        if text not in self._prepared:
            plain = self.writer.made(text, self.support, "candidate", n=0, seed=0, cost=Cost(), notes=())
            self._prepared[text] = self._calibrator.prepare(plain, self.shown)
        return self._prepared[text]

    def write(self, chats: Sequence[Chat], sampling: Sampling) -> list[str]:
        """One text per chat, within the budget, without empty ones.

        Raises `EndpointError` if a call failed or all texts are empty.
        """
        texts = [self.writer.text(answer) for answer in self.writing.generate(chats, sampling)]
        self.writer.some(next((text for text in texts if text), ""))
        return [self.trim(text) for text in texts if text]

    def trim(self, text: str) -> str:
        """The text within the budget; the note about a cut goes into the result."""
        kept, notes = self.writer.trim(text)
        self._trimmed.setdefault(kept, notes)
        return kept

    def result(self, text: str, method: str, *, n: int, seed: int, notes: Sequence[str] = ()) -> Instruction:
        """The artefact of the chosen text, with the cost of the whole search."""
        meters = (self.writing, self._judging, self._calibrating)
        calls = f"{self.writing.usage.calls} texts written, {self._judging.usage.calls} metric calls"
        if self._calibrating.usage.calls:
            calls += f", {self._calibrating.usage.calls} calls to calibrate candidates"
        cost = sum((Cost.of(meter.usage, meter.card.price) for meter in meters), Cost())
        notes = (*notes, calls, *self._trimmed.get(text, ()))
        return self.writer.made(text, self.support, method, n=n, seed=seed, cost=cost, notes=notes)
