"""APE, automatic prompt engineer (Zhou et al. 2023, arXiv 2211.01910): propose instructions, keep the best, vary them.

The first round proposes instructions from random subsets of the examples (the paper's forward generation); each
further round asks for variations of the best so far (its iterative search). The number of model calls is limited, by
default to 2,000 as in the Prompt-MII paper. A call writes an instruction or labels a row to score one; the calls that
calibrate candidates are extra.
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

PARENTS = 5
"""The best instructions so far, which the next round varies."""
EXAMPLES_SHOWN = 10
"""Examples in the request for a proposal."""
MAX_TOKENS = 256
"""Token limit of an instruction."""


@dataclass(frozen=True)
class APE:
    """Search by proposals and variations, with a limited number of model calls."""

    writer: Writer
    """Its style is ignored: APE has its own prompts."""
    follower: Follower
    calls: int = 2000
    """Maximum instructions written plus rows labelled; each round writes at least one instruction."""
    rounds: int = 3
    """Rounds of variations. They share half of the calls; the proposals use the other half."""
    name: str = "ape"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction.

        Raises `EndpointError`, `ScoreRefusedError`, and `ConfigError` if the support is too small to split.
        """
        search = Search(replace(self.writer, style=Style()), self.follower, support)
        rng = random.Random(seed)
        scores: dict[str, float] = {}
        for number in range(self.rounds + 1):
            calls = self.calls / 2 if number == 0 else self.calls / 2 / self.rounds
            count = max(1, int(calls // (1 + len(search.held.examples))))
            if number == 0:
                chats = [self._proposal(search, rng) for _ in range(count)]
            else:
                parents = _best(scores, PARENTS)
                chats = [_variation(parents, rng) for _ in range(count)]
            max_tokens = min(MAX_TOKENS, search.writer.max_tokens(support.labels))
            sampling = Sampling(max_tokens, temperature=1.0, seed=seed * 100 + number)
            for text in dict.fromkeys(search.write(chats, sampling)):
                scores[text] = search.macro_f1(text)
        (best,) = _best(scores, 1)
        note = f"best of {len(scores)} instructions on {len(search.held.examples)} held-back examples"
        return search.result(best, self.name, n=len(search.shown.examples), seed=seed, notes=(note,))

    def _proposal(self, search: Search, rng: random.Random) -> Chat:
        available = search.shown.examples
        examples = rng.sample(available, min(EXAMPLES_SHOWN, len(available)))
        return [{"role": "user", "content": ape_propose(search.support.labels, examples, self.writer.budget)}]


def _variation(parents: list[str], rng: random.Random) -> Chat:
    return [{"role": "user", "content": ape_vary(rng.choice(parents))}]


def _best(scores: dict[str, float], count: int) -> list[str]:
    """The instructions with the highest scores; the shorter wins a tie."""
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
            written, min(EXAMPLES_SHOWN, n - held), metric_calls=written * held, calibration_calls=written * (n - held)
        )

    def templates(self) -> tuple[Template, ...]:
        return bundled("ape_propose", META_SLOTS), bundled("ape_vary", ("instruction",))
