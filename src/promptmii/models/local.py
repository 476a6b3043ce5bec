"""A model in this process: chats become tokens, an engine computes on them, and tokens become answers.

`RowSampler` is the part of sampling that all engines share: a random stream per row, and no loops.
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
from promptmii.models.threads import in_calling_thread

LONGEST_PHRASE = 48
"""Longest phrase, in tokens, whose repetition counts as a loop."""
TOKEN_REPEATS = 8
"""How often a single token may occur in a row, such as the zeros of a number; a phrase may occur twice."""
PLAUSIBLE = 0.1
"""A contrast only picks tokens at least this probable relative to the likeliest; otherwise an absurd one could win."""


class Likelihoods(NamedTuple):
    """Likelihoods of the options after a prompt."""

    scores: tuple[float, ...] = ()
    """`log P(option + end | prompt)` of each option, in nats."""
    shared: int = 0
    """Prompt tokens that were already computed for another prompt."""


class Engine(Protocol):
    """Scores and writes token ids. The prompts of a call are distinct and leave room for an answer."""

    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        """The likelihoods of the options after each prompt; `end` is the token that ends an answer."""
        ...

    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        """Write each row; return its new tokens, including the end token if reached.

        `rows` holds the index of each row's prompt; `against` is the prompt of `sampling.contrast`.
        """
        ...

    def close(self) -> None:
        """Free memory outside Python. May be called twice."""


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
        """Token ids of each chat's prompt."""
        with self._lock:
            return self._format.prompts(chats)

    @in_calling_thread
    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Choice | Failure]:
        """The choices always have scores."""
        check_options(options)
        with self._lock:
            started = perf_counter()
            prompts = self._format.prompts(chats)
            answers = self._format.options(options)
            distinct, owners = self._distinct(prompts, max(map(len, answers)) + 1)
            likelihoods = self._engine.score(distinct, answers, self._format.ends[0]) if distinct else []
            seconds = perf_counter() - started
        results: list[Choice | Failure] = []
        seen: set[int] = set()
        for prompt, owner in zip(prompts, owners, strict=True):
            if owner is None:
                results.append(self._failure(prompt))
                continue
            scores, shared = likelihoods[owner]
            cached = len(prompt) if owner in seen else shared
            seen.add(owner)
            usage = Usage(calls=1, prompt_tokens=len(prompt), cached_tokens=cached)
            results.append(Choice.likeliest(scores, usage))
        return clocked(results, seconds)

    @in_calling_thread
    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion | Failure]:
        if sampling.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1; got {sampling.max_tokens}.")
        with self._lock:
            started = perf_counter()
            prompts = self._format.prompts(chats)
            against = self._format.prompts([sampling.contrast.chat])[0] if sampling.contrast else []
            contrast_room = len(against) + sampling.max_tokens if against else 0
            distinct, owners = self._distinct(prompts, sampling.max_tokens + contrast_room)
            valid = [owner for owner in owners if owner is not None]
            greedy = sampling.temperature <= 0  # equal chats then have equal answers
            rows = range(len(distinct)) if greedy else valid
            written = self._engine.write(distinct, rows, sampling, self._format.ends, against) if rows else []
            seconds = perf_counter() - started
        answers = iter([written[owner] for owner in valid] if greedy else written)
        results = [
            self._failure(prompt) if owner is None else self._completion(len(prompt) + len(against), next(answers))
            for prompt, owner in zip(prompts, owners, strict=True)
        ]
        return clocked(results, seconds)

    def close(self) -> None:
        with self._lock:
            self._engine.close()

    def _distinct(self, prompts: Sequence[Tokens], room: int) -> tuple[list[tuple[int, ...]], list[int | None]]:
        """The distinct valid prompts, and for each prompt its index among them, or `None` if it is invalid.

        A valid prompt is not empty and leaves `room` tokens of the context for an answer.
        """
        indices: dict[tuple[int, ...], int] = {}
        owners: list[int | None] = []
        for prompt in map(tuple, prompts):
            valid = 0 < len(prompt) <= self._card.context_length - room
            owners.append(indices.setdefault(prompt, len(indices)) if valid else None)
        return list(indices), owners

    def _failure(self, prompt: Tokens) -> Failure:
        if not prompt:
            return Failure(FailureKind.REQUEST, "The chat gives an empty prompt.")
        limit = self._card.context_length
        return Failure(
            FailureKind.CONTEXT, f"{len(prompt)} prompt tokens and the answer do not fit the context of {limit}."
        )

    def _completion(self, prompt_tokens: int, answer: Sequence[int]) -> Completion:
        ended = bool(answer) and answer[-1] in self._format.ends
        usage = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=len(answer))
        return Completion(self._format.decode(answer), truncated=not ended, usage=usage)


class RowSampler:
    """The text so far and the random stream of each row of a batch.

    A row's stream depends on the seed, its prompt and its position among equal prompts, never on other rows.
    """

    def __init__(self, prompts: Sequence[Tokens], sampling: Sampling, ends: Collection[int]) -> None:
        """`prompts` has one entry per row."""
        self.ends = frozenset(ends)
        self.sampling = sampling
        self._written: list[list[int]] = [[] for _ in prompts]
        self._streams: list[np.random.Generator] = []
        if sampling.temperature <= 0:
            return
        seen: Counter[tuple[int, ...]] = Counter()
        for prompt in map(tuple, prompts):
            digest = hashlib.sha256(repr((sampling.seed, seen[prompt], prompt)).encode()).digest()
            seen[prompt] += 1
            self._streams.append(np.random.default_rng(int.from_bytes(digest[:16], "big")))

    def barred(self, row: int) -> list[int]:
        """Tokens that may not come next in a row."""
        return sorted(loop_tokens(self._written[row])) if self.sampling.bar_loops else []

    def draw(self, row: int) -> float:
        """The next random number of a row, in [0, 1)."""
        return float(self._streams[row].random())

    def append(self, row: int, token: int) -> None:
        """Append a token to a row's text."""
        self._written[row].append(token)


def loop_tokens(written: Sequence[int]) -> set[int]:
    """Tokens that would repeat the phrase at the end of the text once too often.

    Greedy text of small models can fall into such a loop ("late, late, late, ...").
    """
    barred: set[int] = set()
    for period in range(1, min(LONGEST_PHRASE, len(written) // 2) + 1):
        if written[-1] != written[-1 - period]:
            continue
        length = TOKEN_REPEATS if period == 1 else 2 * period
        tail = written[-length:]
        run_of_one_token = period > 1 and len(set(tail)) == 1  # judged by period 1
        if not run_of_one_token and len(tail) == length and tail[period:] == tail[:-period]:
            barred.add(tail[0])
    return barred
