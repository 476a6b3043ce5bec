"""A model in this process: chats become tokens, an engine computes, and tokens become answers.

`RowSampler` is what picking next tokens takes in every engine: a random stream per row, and no loops.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np

from promptmii.errors import ConfigError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Failure,
    FailureKind,
    LanguageModel,
    ModelCard,
    Sampling,
    Usage,
    check_options,
    clocked,
)
from promptmii.models.batching import Tokens
from promptmii.models.chat import ChatFormat
from promptmii.models.threads import in_caller

LONGEST = 48
"""Tokens of the longest phrase that counts."""
ALONE = 8
"""Times that a single token may stand in a row, as the zeros of a number do; a phrase may stand twice."""
PLAUSIBLE = 0.1
"""Smallest probability of a token, relative to the likeliest, under a contrast: else one absurd in both could win."""


class Likelihoods(NamedTuple):
    """Likelihoods of the options after a prompt."""

    scores: tuple[float, ...] = ()
    """`log P(option + end)` of each option, in nats."""
    shared: int = 0
    """Tokens of the prompt that were computed before."""


class Engine(Protocol):
    """Scores and writes over token ids. The prompts of a call are distinct, and leave room for an answer."""

    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        """Likelihoods of the options after each prompt, given as tokens; `end` closes an answer."""
        ...

    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        """New tokens per row, including the end if it was reached; `rows` names the prompt of each row.

        `against` is the prompt of `sampling.contrast`.
        """
        ...

    def close(self) -> None:
        """Give back memory that does not go with the object. Twice does no harm."""


class LocalModel(LanguageModel):
    """A causal language model in this process. Calls from several threads take turns."""

    def __init__(self, card: ModelCard, form: ChatFormat, engine: Engine) -> None:
        self._card = card
        self._format = form
        self._engine = engine
        self._lock = threading.Lock()

    @property
    def card(self) -> ModelCard:
        return self._card

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            return [len(ids) for ids in self._format.encode(texts)]

    def prompts(self, chats: Sequence[Chat]) -> list[list[int]]:
        """The token ids of each chat's prompt."""
        with self._lock:
            return self._format.prompts(chats)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """Always with scores."""
        check_options(options)
        return in_caller(lambda: self._choose(chats, options))

    def _choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        with self._lock:
            started = perf_counter()
            prompts = self._format.prompts(chats)
            answers = self._format.options(options)
            distinct, owners = self._distinct(prompts, max(map(len, answers)) + 1)
            scored = self._engine.score(distinct, answers, self._format.ends[0]) if distinct else []
            spent = perf_counter() - started
        results: list[Choice | Failure] = []
        seen: set[int] = set()
        for prompt, owner in zip(prompts, owners, strict=True):
            if owner is None:
                results.append(self._unfit(prompt))
                continue
            scores, shared = scored[owner]
            cached = len(prompt) if owner in seen else shared
            seen.add(owner)
            usage = Usage(calls=1, prompt_tokens=len(prompt), cached_tokens=cached)
            results.append(Choice.likeliest(scores, usage))
        return clocked(results, spent)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        if sampling.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1; got {sampling.max_tokens}.")
        return in_caller(lambda: self._generate(chats, sampling))

    def _generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        with self._lock:
            started = perf_counter()
            prompts = self._format.prompts(chats)
            against = self._format.prompts([sampling.contrast.chat])[0] if sampling.contrast else []
            second = len(against) + sampling.max_tokens if against else 0
            distinct, owners = self._distinct(prompts, sampling.max_tokens + second)
            wanted = [owner for owner in owners if owner is not None]
            greedy = sampling.temperature <= 0  # equal chats then have equal answers
            rows = range(len(distinct)) if greedy else wanted
            written = self._engine.write(distinct, rows, sampling, self._format.ends, against) if rows else []
            spent = perf_counter() - started
        answers = iter([written[owner] for owner in wanted] if greedy else written)
        results = [
            self._unfit(prompt) if owner is None else self._completion(len(prompt) + len(against), next(answers))
            for prompt, owner in zip(prompts, owners, strict=True)
        ]
        return clocked(results, spent)

    def close(self) -> None:
        with self._lock:
            self._engine.close()

    def _distinct(self, prompts: Sequence[Tokens], room: int) -> tuple[list[tuple[int, ...]], list[int | None]]:
        """The different prompts that have tokens and `room` for an answer, and which of them each prompt is."""
        places: dict[tuple[int, ...], int] = {}
        fits = [0 < len(prompt) <= self._card.context_length - room for prompt in prompts]
        owners = [
            places.setdefault(tuple(p), len(places)) if fit else None for p, fit in zip(prompts, fits, strict=True)
        ]
        return list(places), owners

    def _unfit(self, prompt: Tokens) -> Failure:
        if not prompt:
            return Failure(FailureKind.REQUEST, "The chat gives an empty prompt.")
        limit = self._card.context_length
        return Failure(
            FailureKind.CONTEXT, f"{len(prompt)} prompt tokens and the answer do not fit the context of {limit}."
        )

    def _completion(self, read: int, answer: Sequence[int]) -> Completion:
        ended = bool(answer) and answer[-1] in self._format.ends
        usage = Usage(calls=1, prompt_tokens=read, completion_tokens=len(answer))
        return Completion(self._format.decode(answer), truncated=not ended, usage=usage)


class RowSampler:
    """The texts that the rows of a batch have written so far, and the random stream of each.

    A row's stream depends on its prompt, the seed and its ordinal among equal prompts, never on its neighbours.
    """

    def __init__(self, prompts: Sequence[Tokens], sampling: Sampling, ends: Collection[int]) -> None:
        """`prompts` has one entry per row."""
        self.ends = frozenset(ends)
        self.sampling = sampling
        self._written: list[list[int]] = [[] for _ in prompts]
        self._streams: list[np.random.Generator] = []
        seen: Counter[tuple[int, ...]] = Counter()
        for prompt in map(tuple, prompts) if sampling.temperature > 0 else ():
            digest = hashlib.sha256(repr((sampling.seed, seen[prompt], prompt)).encode()).digest()
            seen[prompt] += 1
            self._streams.append(np.random.default_rng(int.from_bytes(digest[:16], "big")))

    def barred(self, row: int) -> list[int]:
        """Tokens that may not come next in this row."""
        return sorted(loop_tokens(self._written[row])) if self.sampling.bar_loops else []

    def draw(self, row: int) -> float:
        """The next random number of a row, between 0 and 1."""
        return float(self._streams[row].random())

    def keep(self, row: int, token: int) -> int:
        """The token, which the row has written now."""
        self._written[row].append(token)
        return token


def loop_tokens(written: Sequence[int]) -> set[int]:
    """The tokens that would let a phrase at the end of the text stand in a row once too often.

    Greedy text of small models can fall into such a loop ("late, late, late, ...").
    """
    barred: set[int] = set()
    for period in range(1, min(LONGEST, len(written) // 2) + 1):
        if written[-1] != written[-1 - period]:
            continue
        length = ALONE if period == 1 else 2 * period
        tail = written[-length:]
        phrase = period == 1 or len(set(tail)) > 1
        if phrase and len(tail) == length and tail[period:] == tail[:-period]:
            barred.add(tail[0])
    return barred
