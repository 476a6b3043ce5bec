"""APE, automatic prompt engineer (Zhou et al. 2023, arXiv 2211.01910): propose many instructions, keep the best, vary them, again.

Proposals come from random parts of the examples, as in the paper's forward generation; each further round asks for variations of
the best so far (its iterative search). What limits it is the number of model calls, 2,000 by default as in the Prompt-MII paper.
"""

import random
from dataclasses import dataclass, field

from promptmii.follower import Follower
from promptmii.inducers.search import Search
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Chat, Sampling
from promptmii.prompts import Template, ape_propose, ape_vary, defuse, follower_frame
from promptmii.task import Support

KEPT = 5
"""Instructions that are varied in the next round."""
SHOWN = 10
"""Examples of one proposal."""
MAX_TOKENS = 256


@dataclass(frozen=True)
class APE:
    """Search by proposing and varying, within a number of model calls."""

    writer: Writer
    """Its template is not used: APE asks its own questions."""
    follower: Follower
    calls: int = 2000
    """Of both models together, at most; one round is always made."""
    rounds: int = 3
    """Rounds of variations after the proposals, which take half of the calls."""
    frame: Template = field(default_factory=follower_frame)
    name: str = "ape"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction found. Raises `EndpointError`, `ScoreRefusedError`, and `ConfigError` on a support too small to split."""
        search = Search(self.writer, self.follower, support, self.frame)
        stream = random.Random(seed)
        found: dict[str, float] = {}
        for turn in range(self.rounds + 1):
            share = self.calls / 2 if turn == 0 else self.calls / 2 / self.rounds
            wanted = max(1, int(share // self._calls_per_candidate(search)))
            chats = [
                self._proposal(search, stream) if turn == 0 else self._variation(_best(found, KEPT), stream)
                for _ in range(wanted)
            ]
            sampling = Sampling(min(MAX_TOKENS, search.writer.room), temperature=1.0, seed=seed * 100 + turn)
            for text in dict.fromkeys(search.write(chats, sampling)):
                found[text] = search.macro_f1(text)
        (best,) = _best(found, 1)
        note = f"best of {len(found)} instructions from {self.rounds + 1} rounds, {found[best]:.3f} macro-F1 on the inner split"
        return search.result(best, self.name, n=len(support.examples), seed=seed, notes=(note,))

    def _calls_per_candidate(self, search: Search) -> int:
        """One to write it, one for each row it is scored on, and those of its calibration."""
        calibration = 0 if self.follower.calibration in ("none", "batch") else len(search.shown.examples)
        return 1 + len(search.held.examples) + calibration

    def _proposal(self, search: Search, stream: random.Random) -> Chat:
        shown = search.shown.examples
        part = stream.sample(shown, min(SHOWN, len(shown)))
        return [{"role": "user", "content": ape_propose(search.support.labels, part, self.writer.budget)}]

    def _variation(self, parents: list[str], stream: random.Random) -> Chat:
        return [{"role": "user", "content": ape_vary(defuse(stream.choice(parents)))}]


def _best(found: dict[str, float], count: int) -> list[str]:
    """The instructions with the highest scores; of equal ones the shorter."""
    return sorted(found, key=lambda text: (-found[text], len(text), text))[:count]
