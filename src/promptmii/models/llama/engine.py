"""Scoring and writing token ids with llama.cpp, one prompt at a time.

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
"""Default context length in tokens, for a prompt and its answer. Memory is allocated for all of them."""
PREFIX = 0
"""The sequence of the shared prefix. It is kept for the next call; the others are dropped after each prompt."""
MIN_BATCH = 8
"""Fewest tokens per batch. Smaller batches round differently, so scores would depend on what is cached."""
TEXT, CONTRAST, AGAINST = 1, 2, 3
"""Sequences used while writing: the text, the text after its contrast, and the prompt that all contrasts share."""

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""The processor limit of this container: microseconds per period, or `max` for no limit, and the period."""


def threads(limit: Path = CPU_LIMIT) -> int:
    """Threads to compute with: OMP_NUM_THREADS, or one per processor that this process and its container may use.

    Any more would wait for each other at every layer.
    """
    configured = os.environ.get("OMP_NUM_THREADS", "")
    if configured.isdigit() and int(configured):
        return int(configured)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, limit.read_text("utf-8").split())
    except (OSError, ValueError):
        return usable
    return max(1, min(usable, -(-quota // period)))


class LlamaSampler(RowSampler):
    """Picks next tokens: greedily, or from a random stream per row."""

    def __call__(self, logits: Logits, row: int) -> int:
        """The next token of a row, from its logits (1, V), or from those and its contrast's (2, V)."""
        if barred := self.barred(row):
            logits = logits.copy()
            logits[0, barred] = -np.inf
        contrast = self.sampling.contrast  # after barring, so that plausibility is judged among allowed tokens
        scores = _contrasted(logits, contrast.strength, self.ends) if contrast else logits[0]
        token = self._pick(scores, row)
        self.append(row, token)
        return token

    def _pick(self, logits: Logits, row: int) -> int:
        if self.sampling.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.sampling.temperature
        weights = np.exp(scaled - scaled.max())  # unnormalised probabilities
        if self.sampling.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = weights[order].cumsum() - weights[order]
            weights[order[before >= self.sampling.top_p * weights.sum()]] = 0
        cumulative = weights.cumsum()
        return int(np.searchsorted(cumulative, self.draw(row) * cumulative[-1], side="right"))


class NativeEngine(Engine):
    """An engine on llama.cpp's C interface."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._prefix: list[int] = []
        """Tokens in the sequence `PREFIX`."""

    def score(self, prompts: Sequence[Tokens], options: Sequence[Tokens], end: int) -> list[Likelihoods]:
        tries = [Trie.build(part, end) for part in _parts(options)]
        results = [Likelihoods()] * len(prompts)
        with self._cleared_on_error():
            for shared, members in prefix_groups(prompts):
                for i in members:
                    scores = self._score(prompts[i], shared, tries)
                    results[i] = Likelihoods(scores, shared if i != min(members) else 0)
        return results

    def write(
        self, prompts: Sequence[Tokens], rows: Sequence[int], sampling: Sampling, ends: Tokens, against: Tokens = ()
    ) -> list[list[int]]:
        sampler = LlamaSampler([prompts[i] for i in rows], sampling, ends)
        written: list[list[int]] = [[] for _ in rows]
        with self._cleared_on_error():
            if against:
                self._clear()
                self._set_prefix(against[:-1])
                self._native.share(PREFIX, [AGAINST])
            for i in sorted(set(rows), key=lambda i: list(prompts[i])):
                self._set_prefix(prompts[i][:-1])
                for row, owner in enumerate(rows):
                    if owner == i:
                        written[row] = self._continue(prompts[i], row, sampler, against)
            if against:
                self._clear()  # sums over scattered cache cells round differently from sums over contiguous ones
        return written

    def close(self) -> None:
        self._native.close()

    def _score(self, prompt: Tokens, shared: int, tries: Sequence[Trie]) -> tuple[float, ...]:
        prefix = _prefix_length(prompt, shared, tries)
        self._set_prefix(prompt[:prefix])
        scores: list[float] = []
        for trie in tries:
            sequences = range(1, 1 + len(trie.leaves))
            self._native.share(PREFIX, sequences)
            scores += _path_scores(self._decode(_branching(prompt, prefix, trie, sequences)), trie)
            self._native.drop(sequences)
        return tuple(scores)

    def _continue(self, prompt: Tokens, row: int, sampler: LlamaSampler, against: Tokens) -> list[int]:
        """Write one answer. `PREFIX` and `AGAINST` hold all but the last token of `prompt` and `against`."""
        self._native.share(PREFIX, [TEXT])
        self._native.share(AGAINST, [CONTRAST])
        contexts = [(prompt, TEXT), (against, CONTRAST)] if against else [(prompt, TEXT)]
        written: list[int] = []
        while len(written) < sampler.sampling.max_tokens:
            step: list[Token] = []
            for context, sequence in contexts:
                last = written[-1] if written else context[-1]
                step.append(Token(last, len(context) - 1 + len(written), (sequence,), read=True))
            written.append(sampler(self._native.decode(step), row))
            token_written()
            if written[-1] in sampler.ends:
                break
        self._native.drop([TEXT, CONTRAST])
        return written

    def _set_prefix(self, tokens: Tokens) -> None:
        """Make `PREFIX` hold exactly these tokens; compute only those that it lacks."""
        start = common([self._prefix, tokens])
        if start < len(tokens):
            start = max(0, min(start, len(tokens) - MIN_BATCH))
        if start < len(self._prefix):
            self._native.drop([PREFIX], start)
        self._prefix = list(tokens[:start])
        while start < len(tokens):
            remaining = len(tokens) - start
            size = remaining if remaining <= BATCH else min(BATCH, remaining - MIN_BATCH)
            batch = tokens[start : start + size]
            self._native.decode([Token(token, start + i, (PREFIX,)) for i, token in enumerate(batch)])
            self._prefix += batch
            start += size

    def _decode(self, batch: Sequence[Token]) -> Logits:
        """`Native.decode`, in several batches if a single option is longer than one."""
        if sum(token.read for token in batch) <= OUTPUTS:
            return self._native.decode(batch)
        parts = (batch[start : start + OUTPUTS] for start in range(0, len(batch), OUTPUTS))
        return np.concatenate([self._native.decode(part).copy() for part in parts])

    @contextmanager
    def _cleared_on_error(self) -> Generator[None]:
        """Clear the cache if a call is cut short, by Ctrl-C for example, so that the next call starts clean."""
        try:
            yield
        except BaseException:
            self._clear()
            raise

    def _clear(self) -> None:
        self._native.drop(range(SEQUENCES))
        self._prefix = []


def _contrasted(logits: Logits, strength: float, ends: Collection[int]) -> Logits:
    """Apply `Sampling.contrast` to logits (2, V), after the prompt and after the contrast chat; returns (V,).

    If ending the text is plausible, the contrast is ignored.
    """
    logps, contrast_logps = (row - _log_sum_exp(row) for row in logits)
    implausible = logps < logps.max() + np.log(PLAUSIBLE)
    if not implausible[list(ends)].all():
        return logps
    return np.where(implausible, -np.inf, logps + strength * (logps - contrast_logps))


def _log_sum_exp(row: Logits) -> np.float64:
    return row.max() + np.log(np.exp(row - row.max()).sum(dtype=np.float64))


def _parts(options: Sequence[Tokens]) -> list[Sequence[Tokens]]:
    """Split the options, in order, into parts that fit a batch."""
    parts: list[list[Sequence[int]]] = [[]]
    nodes = 1
    for option in options:
        if parts[-1] and (nodes + len(option) > OUTPUTS or len(parts[-1]) == SEQUENCES - 1):
            parts.append([])
            nodes = 1
        parts[-1].append(option)
        nodes += len(option)
    return list(parts)


def _prefix_length(prompt: Tokens, shared: int, tries: Sequence[Trie]) -> int:
    """The number of tokens to compute into `PREFIX`: those shared with other prompts, if the rest fits one batch.

    Otherwise all but the last, so that several batches of options compute the prompt only once.
    """
    nodes = len(tries[0].tokens)
    one_batch = len(tries) == 1 and nodes < OUTPUTS and len(prompt) - shared + nodes <= BATCH
    length = min(shared if one_batch else len(prompt) - 1, len(prompt) - MIN_BATCH)
    return length if length >= MIN_BATCH else 0


def _branching(prompt: Tokens, prefix: int, trie: Trie, sequences: range) -> list[Token]:
    """The prompt's tokens after the first `prefix`, in all `sequences`, then the trie with one sequence per leaf."""
    last = len(prompt) - 1
    sequences_of: dict[int, list[int]] = {}
    for sequence, leaf in zip(sequences, trie.leaves, strict=True):
        for node in trie.ancestors(leaf):
            sequences_of.setdefault(node, []).append(sequence)
    rest = [Token(prompt[i], i, sequences, read=i == last) for i in range(prefix, len(prompt))]
    nodes = enumerate(zip(trie.tokens, trie.depth, strict=True))
    return rest + [Token(token, last + depth, sequences_of[node], read=True) for node, (token, depth) in nodes]


def _path_scores(logits: Logits, trie: Trie) -> list[float]:
    """The sum of log-probabilities along each option's path; logits are (nodes + 1, V)."""
    totals = [float(_log_sum_exp(row)) for row in logits]
    return [sum(float(logits[node + 1, token]) - totals[node + 1] for node, token in option) for option in trie.steps]
