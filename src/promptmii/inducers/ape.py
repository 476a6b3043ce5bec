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
from promptmii.inducers.writing import Writer, fitting_positions
from promptmii.instruction import Instruction
from promptmii.models.base import TEMPLATE_MARGIN, Chat, Sampling
from promptmii.prompts import META_SLOTS, Template, ape_propose, ape_vary, bundled, example_lines
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
    """Rounds of variations. They share half of the calls; the proposals use the rest."""
    name = "ape"

    def induce(self, support: Support, *, seed: int = 0) -> Instruction:
        """The best instruction.

        Raises `EndpointError`, `ScoreRefusedError`, and `ConfigError` if the support is too small to split or no
        example fits the writer's context.
        """
        search = Search(replace(self.writer, style=Style()), self.follower, support)
        max_tokens = min(MAX_TOKENS, search.writer.max_tokens(support.labels))
        proposals = _Proposals(search, max_tokens)
        rng = random.Random(seed)
        scores: dict[str, float] = {}
        for number in range(self.rounds + 1):
            count = max(1, int(self._calls_in(number) // (1 + len(search.held.examples))))
            if number == 0:
                chats = [proposals.request(rng) for _ in range(count)]
            else:
                parents = _best(scores, PARENTS)
                chats = [_variation(parents, rng) for _ in range(count)]
            sampling = Sampling(max_tokens, temperature=1.0, seed=seed * 100 + number)
            for text in dict.fromkeys(search.write(chats, sampling)):
                scores[text] = search.macro_f1(text)
        (best,) = _best(scores, 1)
        note = f"best of {len(scores)} instructions on {len(search.held.examples)} held-back examples"
        return search.result(best, self.name, n=len(search.shown.examples), seed=seed, notes=(note,))

    def _calls_in(self, number: int) -> float:
        """The calls of a round. Without variations, the proposals get all of them."""
        if self.rounds == 0:
            return self.calls
        return self.calls / 2 if number == 0 else self.calls / 2 / self.rounds


class _Proposals:
    """Requests for an instruction, each from a random subset of the examples that fits the writer's context."""

    def __init__(self, search: Search, max_tokens: int) -> None:
        """`max_tokens` is the limit of an answer. Raises `ConfigError` if no example fits."""
        self._labels, self._budget = search.support.labels, search.writer.budget
        model, examples = search.writer.model, search.shown.examples
        blocks = [example_lines([example]) + "\n\n" for example in examples]
        frame, *lengths = model.count_tokens([ape_propose(self._labels, (), self._budget), *blocks])
        self._room = model.card.context_length - max_tokens - TEMPLATE_MARGIN - frame
        fitting = zip(examples, lengths, strict=True)
        self._available = [(example, length) for example, length in fitting if length <= self._room]
        if not self._available:
            raise search.writer.none_fits(len(examples))

    def request(self, rng: random.Random) -> Chat:
        """A request with a new random subset."""
        drawn = rng.sample(self._available, min(EXAMPLES_SHOWN, len(self._available)))
        positions = fitting_positions([length for _, length in drawn], self._room)
        examples = [drawn[position][0] for position in positions]
        return [{"role": "user", "content": ape_propose(self._labels, examples, self._budget)}]


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
