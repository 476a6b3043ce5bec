"""Scoring and writing over token ids with llama.cpp, one prompt at a time.

llama.cpp rounds activations to 8 bits, which amplifies rounding errors of 1e-7 to hundredths of a nat. With one prompt
per batch a score depends on its prompt alone, never on the other prompts of a call. Larger batches would gain 15 %.
"""

import os
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from promptmii.models.base import Sampling
from promptmii.models.batching import Tokens, Trie, common, prefix_groups
from promptmii.models.llama.native import BATCH, OUTPUTS, SEQUENCES, Logits, Native, Token
from promptmii.models.local import PLAUSIBLE, Engine, Likelihoods, RowSampler
from promptmii.progress import token_written

CONTEXT = 8192
"""Most tokens of a prompt and its answer unless the user asks for more. Memory is taken for all of them."""
PREFIX = 0
"""The sequence of what prompts share. It stays for the next call; the others are dropped after each prompt."""
LEAST = 8
"""Tokens of a batch, or more: with fewer, other kernels round otherwise, and a score would depend on what is held."""
TEXT, CONTRAST, AGAINST = 1, 2, 3
"""Sequences while a text is written: its own, that of its contrast, and what all texts' contrasts begin with."""

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""The processor limit of this container: microseconds per period, or `max` for no limit, and the period."""


def threads(limit: Path = CPU_LIMIT) -> int:
    """Threads to compute with: OMP_NUM_THREADS, or one for each processor that this process and its container may use.

    More threads than that wait for each other at every layer.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads):
        return int(threads)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, limit.read_text("utf-8").split())
    except (OSError, ValueError):
        return usable
    return max(1, min(usable, -(-quota // period)))


class LlamaSampler(RowSampler):
    """Picks next tokens from logits: greedy, or by the random stream of their row."""

    def __call__(self, logits: Logits, row: int) -> int:
        """The next token of a row, from its logits (1, V), or those and its contrast's (2, V)."""
        if barred := self.barred(row):
            logits = logits.copy()
            logits[0, barred] = -np.inf
        contrast = self.sampling.contrast  # after the bar: something else must be plausible then
        scores = _contrasted(logits, contrast.strength, self.ends) if contrast else logits[0]
        return self.keep(row, self._pick(scores, row))

    def _pick(self, logits: Logits, row: int) -> int:
        if self.sampling.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.sampling.temperature
        chances = np.exp(scaled - scaled.max())
        if self.sampling.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            before = chances[order].cumsum() - chances[order]
            chances[order[before >= self.sampling.top_p * chances.sum()]] = 0
        reached = chances.cumsum()
        return int(np.searchsorted(reached, self.draw(row) * reached[-1], side="right"))


class NativeEngine(Engine):
    """An engine over llama.cpp's C interface."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._held: list[int] = []
        """The tokens of the sequence `PREFIX`."""

    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        tries = [Trie.build(part, end) for part in _parts(options)]
        results = [Likelihoods()] * len(prompts)
        with self._whole():
            for shared, members in prefix_groups(prompts):
                for i in members:
                    results[i] = Likelihoods(self._score(prompts[i], shared, tries), shared if i != min(members) else 0)
        return results

    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler = LlamaSampler([prompts[i] for i in rows], sampling, ends)
        with self._whole():
            return self._write(prompts, rows, sampler, against)

    def _write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampler: LlamaSampler, against: Tokens
    ) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in rows]
        if against:
            self._forget()
            self._hold(against[:-1])
            self._native.share(PREFIX, [AGAINST])
        for i in sorted(set(rows), key=lambda i: list(prompts[i])):
            self._hold(prompts[i][:-1])
            for row in (row for row, owner in enumerate(rows) if owner == i):
                written[row] = self._continue(prompts[i], row, sampler, against)
        if against:
            self._forget()  # a sum over scattered cells would round otherwise than one over cells in a row
        return written

    def close(self) -> None:
        self._native.close()

    def _score(self, prompt: Tokens, shared: int, tries: Sequence[Trie]) -> tuple[float, ...]:
        nodes = len(tries[0].tokens)
        if len(tries) > 1 or nodes >= OUTPUTS or len(prompt) - shared + nodes > BATCH:
            shared = len(prompt) - 1  # neither its length nor the number of options costs the prompt twice
        shared = min(shared, len(prompt) - LEAST)
        shared = shared if shared >= LEAST else 0
        self._hold(prompt[:shared])
        scores: list[float] = []
        for trie in tries:
            sequences = range(1, 1 + len(trie.leaves))
            self._native.share(PREFIX, sequences)
            scores += _along(self._read(_branching(prompt, shared, trie, sequences)), trie)
            self._native.drop(sequences)
        return tuple(scores)

    def _continue(self, prompt: Tokens, row: int, sampler: LlamaSampler, against: Tokens) -> list[int]:
        """One answer to the prompt, of which all but the last token is held, as all but the last of `against` is."""
        self._native.share(PREFIX, [TEXT])
        self._native.share(AGAINST, [CONTRAST])
        ends = [(prompt, TEXT), (against, CONTRAST)] if against else [(prompt, TEXT)]
        written: list[int] = []
        while len(written) < sampler.sampling.max_tokens:
            step = [
                Token(written[-1] if written else read[-1], len(read) - 1 + len(written), (sequence,), True)
                for read, sequence in ends
            ]
            written.append(sampler(self._native.decode(step), row))
            token_written()
            if written[-1] in sampler.ends:
                break
        self._native.drop([TEXT, CONTRAST])
        return written

    def _hold(self, tokens: Tokens) -> None:
        """Make `PREFIX` hold these tokens, computing what it does not hold already."""
        known = common([self._held, tokens])
        if known < len(tokens):
            known = max(0, min(known, len(tokens) - LEAST))
        if known < len(self._held):
            self._native.drop([PREFIX], known)
        self._held = list(tokens[:known])
        while (start := len(self._held)) < len(tokens):
            remaining = len(tokens) - start
            piece = tokens[start : start + (remaining if remaining <= BATCH else min(BATCH, remaining - LEAST))]
            self._native.decode([Token(token, start + i, (PREFIX,)) for i, token in enumerate(piece)])
            self._held += piece

    def _read(self, batch: Sequence[Token]) -> Logits:
        """`decode`, in several batches if a single option is longer than one."""
        if sum(token.read for token in batch) <= OUTPUTS:
            return self._native.decode(batch)
        parts = (batch[start : start + OUTPUTS] for start in range(0, len(batch), OUTPUTS))
        return np.concatenate([self._native.decode(part).copy() for part in parts])

    @contextmanager
    def _whole(self) -> Generator[None]:
        """Whatever ends a call halfway, Ctrl-C above all, leaves no sequence that the next call would trip over."""
        try:
            yield
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._native.drop(range(SEQUENCES))
        self._held = []


def _contrasted(logits: Logits, strength: float, ends: Collection[int]) -> Logits:
    """`Sampling.contrast` over the logits (2, V) after the prompt and after the contrast; (V).

    Where the text may end, the prompt alone decides.
    """
    ours, against = (row - (row.max() + np.log(np.exp(row - row.max()).sum(dtype=np.float64))) for row in logits)
    implausible = ours < ours.max() + np.log(PLAUSIBLE)
    if not implausible[list(ends)].all():
        return ours
    return np.where(implausible, -np.inf, ours + strength * (ours - against))


def _parts(options: Sequence[Tokens]) -> list[Sequence[Tokens]]:
    """The options in their order, in as many parts as a batch can read."""
    parts: list[list[Sequence[int]]] = [[]]
    nodes = 1
    for option in options:
        if parts[-1] and (nodes + len(option) > OUTPUTS or len(parts[-1]) == SEQUENCES - 1):
            parts.append([])
            nodes = 1
        parts[-1].append(option)
        nodes += len(option)
    return list(parts)


def _branching(prompt: Tokens, shared: int, trie: Trie, sequences: range) -> list[Token]:
    """The rest of a prompt in all `sequences`, then the trie, of which each leaf has a sequence of its own."""
    last = len(prompt) - 1
    through: dict[int, list[int]] = {}
    for sequence, leaf in zip(sequences, trie.leaves, strict=True):
        for node in trie.ancestors(leaf):
            through.setdefault(node, []).append(sequence)
    rest = [Token(prompt[i], i, sequences, i == last) for i in range(shared, len(prompt))]
    nodes = enumerate(zip(trie.tokens, trie.depth, strict=True))
    return rest + [Token(token, last + depth, through[node], True) for node, (token, depth) in nodes]


def _along(logits: Logits, trie: Trie) -> list[float]:
    """Per option the sum of log-probabilities on its way through the trie; logits are (nodes + 1, V)."""
    totals = [float(row.max() + np.log(np.exp(row - row.max()).sum(dtype=np.float64))) for row in logits]
    return [sum(float(logits[node + 1, token]) - totals[node + 1] for node, token in option) for option in trie.steps]
