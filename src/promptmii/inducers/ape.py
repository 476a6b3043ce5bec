"""APE, automatic prompt engineer (Zhou et al. 2023, arXiv 2211.01910): propose instructions, keep the best, vary them.

Proposals come from random parts of the examples, as in the paper's forward generation; each further round asks for
variations of the best so far (its iterative search). A budget of model calls ends it: 2,000 by default, as in the
Prompt-MII paper. A call writes an instruction or labels a row to score one; calibrating candidates comes on top.
"""

import random
from dataclasses import dataclass, replace

from pydantic import Field

from promptmii.follower import Follower
from promptmii.inducers.method import Expected, Kit, Method, WrittenBy
from promptmii.inducers.search import Search, held_back
from promptmii.inducers.writing import Writer
from promptmii.instruction import Instruction
from promptmii.models.base import Chat, Sampling
from promptmii.prompts import META_SLOTS, Template, ape_propose, ape_vary, bundled
from promptmii.styles import Style
from promptmii.task import Support

KEPT = 5
"""Instructions that are varied in the next round."""
SHOWN = 10
"""Examples in one request for a proposal."""
MAX_TOKENS = 256


@dataclass(frozen=True)
class APE:
    """Search by proposing and varying, within a number of model calls."""

    writer: Writer
    """Its style is not used: APE asks its own questions."""
    follower: Follower
    calls: int = 2000
    """Instructions written and rows labelled to score them, together; each round writes at least one."""
    rounds: int = 3
    """Rounds of variations after the proposals, which take half of the calls."""
    name: str = "ape"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction.

        Raises `EndpointError`, `ScoreRefusedError`, and `ConfigError` if the support is too small to split.
        """
        search = Search(replace(self.writer, style=Style()), self.follower, support)
        stream = random.Random(seed)
        scores: dict[str, float] = {}
        for number in range(self.rounds + 1):
            share = self.calls / 2 if number == 0 else self.calls / 2 / max(self.rounds, 1)
            wanted = max(1, int(share // (1 + len(search.held.examples))))
            chats = [
                self._proposal(search, stream) if number == 0 else _variation(_best(scores, KEPT), stream)
                for _ in range(wanted)
            ]
            room = min(MAX_TOKENS, search.writer.room(support.labels))
            sampling = Sampling(room, temperature=1.0, seed=seed * 100 + number)
            for text in dict.fromkeys(search.write(chats, sampling)):
                scores[text] = search.macro_f1(text)
        (best,) = _best(scores, 1)
        note = f"best of {len(scores)} instructions on {len(search.held.examples)} held-back examples"
        return search.result(best, self.name, n=len(support.examples), seed=seed, notes=(note,))

    def _proposal(self, search: Search, stream: random.Random) -> Chat:
        shown = search.shown.examples
        part = stream.sample(shown, min(SHOWN, len(shown)))
        return [{"role": "user", "content": ape_propose(search.support.labels, part, self.writer.budget)}]


def _variation(parents: list[str], stream: random.Random) -> Chat:
    return [{"role": "user", "content": ape_vary(stream.choice(parents))}]


def _best(scores: dict[str, float], count: int) -> list[str]:
    """The instructions with the highest scores; of equal ones the shorter."""
    return sorted(scores, key=lambda text: (-scores[text], len(text), text))[:count]


class APEMethod(Method):
    name = "ape"
    summary = "automatic prompt engineer: a search that proposes many instructions, keeps the best and varies them"
    written_by = WrittenBy.SEARCHER

    calls: int = Field(default=2000, ge=1, description="texts written and rows labelled, together")
    rounds: int = Field(default=3, ge=0, description="rounds of variations")

    def inducer(self, kit: Kit) -> APE:
        return APE(kit.writer, kit.follower, self.calls, self.rounds)

    def expected(self, n: int) -> Expected:
        held = held_back(n)
        written = max(self.calls // (1 + held), 1 + self.rounds)
        return Expected(
            written, min(SHOWN, n - held), metric_calls=written * held, calibration_calls=written * (n - held)
        )

    def templates(self) -> tuple[Template, ...]:
        return bundled("ape_propose", META_SLOTS), bundled("ape_vary", ("instruction",))
