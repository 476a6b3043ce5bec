"""Scores of predicted labels against gold labels, with intervals and tests.

Macro-F1 is the mean F1 over the labels that occur in gold. A prediction may be `None` (no label): a miss for the true
label, and a false positive for no other. Intervals and tests resample query rows; a few matrix products compute all
2,000 resamples in milliseconds. Many rows are resampled block by block, so memory does not grow with them.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2_000
BLOCK = 1_000_000
"""Maximum row weights in memory, so resamples times rows; at least one resample."""
ALPHA = 0.05
"""Significance level of a test."""


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Mean F1 over the labels in `gold`. Raises `ValueError` on no rows or unequal lengths."""
    return float(_macro_f1(_Counts.of(gold, predicted).summed(np.ones((1, len(gold)))))[0])


def released_f1(gold: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> float:
    """Macro-F1 as in the authors' reward and library (`prompt_gen_batch_sglang_v4_fast_f1.py: compute_f1_score`).

    Only 100 characters of an answer are read. An answer or gold label that matches no label counts as the first one. So
    an empty answer scores like the first label, and the order of the labels matters. The mean is over the labels in
    gold or in the answers.
    """
    codes = {label.lower().strip(): code for code, label in enumerate(labels)}
    gold_codes = [codes.get(label.lower().strip(), 0) for label in gold]
    return f1_over_union(gold_codes, [codes.get(answer[:100].lower().strip(), 0) for answer in answers])


def f1_over_union(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Mean F1 over the labels in gold or predictions; 0 without rows.

    Equals scikit-learn's `f1_score(average="macro")`, but is fast enough to be called for every cell of a report.
    """
    occurrences = Counter(gold) + Counter(predicted)
    hits = Counter(label for label, answer in zip(gold, predicted, strict=True) if label == answer)
    return sum(2 * hits[label] / count for label, count in occurrences.items()) / max(len(occurrences), 1)


def expected_macro_f1(gold: Sequence[str], probabilities: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    """Macro-F1 of expected counts: each row counts for every label with its probability, in the order of `labels`."""
    weights = np.asarray(probabilities, dtype=np.float64)
    is_gold = np.array(gold, dtype=object)[:, None] == np.array(labels, dtype=object)
    hit, predicted, true = (weights * is_gold).sum(0), weights.sum(0), is_gold.sum(0)
    return float((2 * hit / np.maximum(predicted + true, 1e-12))[true > 0].mean())


def gold_probability(gold: Sequence[str], probabilities: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    """Mean probability of the true label. Each row of `probabilities` is in the order of `labels`."""
    return float(np.mean([row[labels.index(label)] for label, row in zip(gold, probabilities, strict=True)]))


def accuracy(gold: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Share of rows whose prediction is the gold label."""
    return sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold)


@dataclass(frozen=True, slots=True)
class LabelScore:
    """The scores of one label. `support` is its number of gold rows; F1 is 0 without a hit."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def per_label(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> list[LabelScore]:
    """Precision, recall, F1 and support of every label, in the order of `labels` (scikit-learn)."""
    from sklearn.metrics import precision_recall_fscore_support

    codes = {label: code for code, label in enumerate(labels)}
    columns = precision_recall_fscore_support(
        [codes[label] for label in gold],
        [-1 if label is None else codes[label] for label in predicted],
        labels=list(range(len(labels))),
        zero_division=0.0,  # pyright: ignore[reportArgumentType]
    )
    rows = zip(labels, *(np.asarray(column).tolist() for column in columns), strict=True)
    return [LabelScore(label, precision, recall, f1, int(support)) for label, precision, recall, f1, support in rows]


def confusion(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> list[list[int]]:
    """Counts, shape (K, K + 1): a row per gold label, a column per predicted label, the last one for no label."""
    codes: dict[str | None, int] = {label: code for code, label in enumerate(labels)} | {None: len(labels)}
    table = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for g, p in zip(gold, predicted, strict=True):
        table[codes[g], codes[p]] += 1
    return table.tolist()


def interval(gold: Sequence[str], predicted: Sequence[str | None]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of macro-F1 over the rows; of a single row, which says nothing, 0 to 1."""
    if len(gold) == 1:
        return 0.0, 1.0
    counts = _Counts.of(gold, predicted)
    return _bootstrap(lambda weights: _macro_f1(counts.summed(weights)), len(gold))


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between `a` and `b` on the same rows."""

    mean: float
    """Macro-F1 of `a` minus macro-F1 of `b`."""
    low: float
    high: float
    """95 % bootstrap interval over rows, paired."""
    p: float
    """Two-sided p-value of the paired randomisation test: predictions of `a` and `b` swapped at random, row by row."""

    @property
    def beyond_noise(self) -> bool:
        """True if the difference is statistically significant."""
        return self.p <= ALPHA

    def __str__(self) -> str:
        return f"macro-F1 {self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p:.3f}"


def paired_difference(gold: Sequence[str], a: Sequence[str | None], b: Sequence[str | None]) -> Difference:
    """Compare two methods on the same rows (Yeh 2000, approximate randomisation; bootstrap interval)."""
    n, counts_a, counts_b = len(gold), _Counts.of(gold, a), _Counts.of(gold, b)
    low, high = _bootstrap(lambda weights: _macro_f1(counts_a.summed(weights)) - _macro_f1(counts_b.summed(weights)), n)
    observed = macro_f1(gold, a) - macro_f1(gold, b)
    random, as_extreme = np.random.default_rng(0), 0
    for size in _block_sizes(n):
        swap = random.integers(0, 2, size=(size, n)).astype(np.float64)
        swapped_a = _macro_f1(counts_a.summed(1 - swap) + counts_b.summed(swap))
        swapped_b = _macro_f1(counts_b.summed(1 - swap) + counts_a.summed(swap))
        as_extreme += int((np.abs(swapped_a - swapped_b) >= abs(observed) - 1e-12).sum())
    return Difference(observed, low, high, p=(1 + as_extreme) / (1 + RESAMPLES))


def paired_differences(
    gold: Sequence[str], a: Sequence[str | None], others: Sequence[Sequence[str | None]]
) -> list[Difference]:
    """Compare one method with each of several others. The p-values are adjusted for that many tests (Holm)."""
    differences = [paired_difference(gold, a, b) for b in others]
    adjusted = holm([difference.p for difference in differences])
    return [replace(difference, p=p) for difference, p in zip(differences, adjusted, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests (Holm 1979). NaN stays NaN and is not counted."""
    finite = sorted((i for i in range(len(p)) if not np.isnan(p[i])), key=lambda i: p[i])
    adjusted, highest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(finite):
        highest = max(highest, min(1.0, p[i] * (len(finite) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class _Counts:
    """Hits, predictions and gold rows for each label in gold: per row, shape (n, K), or per resample, shape (B, K)."""

    hit: Floats
    predicted: Floats
    gold: Floats

    @classmethod
    def of(cls, gold: Sequence[str], predicted: Sequence[str | None]) -> "_Counts":
        if not gold or len(gold) != len(predicted):
            raise ValueError(
                f"{len(gold)} gold labels and {len(predicted)} predictions; expected equally many, and at least one."
            )
        labels = np.array(sorted(set(gold)), dtype=object)
        is_gold = (np.array(gold, dtype=object)[:, None] == labels).astype(np.float64)
        is_predicted = (np.array(predicted, dtype=object)[:, None] == labels).astype(np.float64)
        return cls(is_gold * is_predicted, is_predicted, is_gold)

    def summed(self, weights: Floats) -> "_Counts":
        """The counts per resample, for row weights of shape (B, n)."""
        return _Counts(weights @ self.hit, weights @ self.predicted, weights @ self.gold)

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(self.hit + other.hit, self.predicted + other.predicted, self.gold + other.gold)


def _macro_f1(sums: _Counts) -> Floats:
    """Macro-F1 per resample, shape (B,): the mean of 2 hit / (predicted + gold) over labels with gold rows in it."""
    f1 = 2 * sums.hit / np.maximum(sums.predicted + sums.gold, 1)
    present = sums.gold > 0
    return (f1 * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _bootstrap(score: Callable[[Floats], Floats], n: int) -> tuple[float, float]:
    """95 % percentile interval of a score over n rows. `score` takes how often each is drawn, shape (b, n)."""
    random, share = np.random.default_rng(0), np.full(n, 1 / n)
    draws = [score(random.multinomial(n, share, size=size).astype(np.float64)) for size in _block_sizes(n)]
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    return float(low), float(high)


def _block_sizes(n: int) -> list[int]:
    """Numbers of resamples of n rows that add up to `RESAMPLES`. The numbers drawn do not depend on them."""
    size = max(BLOCK // n, 1)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
