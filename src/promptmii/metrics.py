"""Numbers from gold labels and predictions, `None` (no label) being a prediction like any other.

Macro-F1 is the mean of the per-label F1 over the labels that occur among the gold labels. A prediction of
`None` is a miss for the true label and a hit for none. Intervals and tests resample query rows; all resamples
of one call are a few matrix products, so 2,000 of them take milliseconds.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2_000
ALPHA = 0.05
"""Level of a test."""


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Mean F1 over the labels in `gold`. Raises `ValueError` on no rows or unequal lengths."""
    return float(_macro_f1(_Counts.of(gold, predicted).summed(np.ones((1, len(gold)))))[0])


READ = 100
"""Characters of an answer that the authors' reward reads."""


def released_f1(gold: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> float:
    """Macro-F1 as in the authors' reward and library (`prompt_gen_batch_sglang_v4_fast_f1.py: compute_f1_score`).

    Whatever matches no label counts as the first label, gold labels too. So silence earns as much as the first label,
    and the order of the labels matters. The mean is over labels in gold or in the answers.
    """
    places = {label.lower().strip(): place for place, label in enumerate(labels)}
    read = [places.get(answer[:READ].lower().strip(), 0) for answer in answers]
    return f1_over_union([places.get(label.lower().strip(), 0) for label in gold], read)


def f1_over_union(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Mean F1 over all that occurs in gold or predictions; 0 without rows. scikit-learn's `f1_score(average="macro")`,
    counted directly because a report asks for it once per cell.
    """
    occurs = Counter(gold) + Counter(predicted)
    right = Counter(label for label, answer in zip(gold, predicted, strict=True) if label == answer)
    return sum(2 * right[label] / count for label, count in occurs.items()) / max(len(occurs), 1)


def expected_macro_f1(gold: Sequence[str], probabilities: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    """Macro-F1 of expected counts: a row counts for each label (order of `labels`) with its probability."""
    chances = np.asarray(probabilities, dtype=np.float64)
    is_gold = np.array(gold, dtype=object)[:, None] == np.array(labels, dtype=object)
    hit, predicted, true = (chances * is_gold).sum(0), chances.sum(0), is_gold.sum(0)
    return float((2 * hit / np.maximum(predicted + true, 1e-12))[true > 0].mean())


def gold_probability(gold: Sequence[str], probabilities: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    """Mean probability of the true label, of the rows (order of `labels`)."""
    return float(np.mean([row[labels.index(label)] for label, row in zip(gold, probabilities, strict=True)]))


def accuracy(gold: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Share of rows whose prediction is the gold label."""
    return sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold)


@dataclass(frozen=True, slots=True)
class LabelScore:
    """The scores of one label. `support` is its number of gold rows; F1 is 0 where nothing is right."""

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


def interval(gold: Sequence[str], predicted: Sequence[str | None], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of macro-F1 over the rows."""
    draws = _macro_f1(_Counts.of(gold, predicted).summed(_row_weights(len(gold), seed)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better `a` is than `b` on the same rows."""

    mean: float
    """Macro-F1 of `a` minus macro-F1 of `b`."""
    low: float
    high: float
    """95 % bootstrap interval over rows, paired."""
    p: float
    """Two-sided p-value of the paired randomisation test: predictions of `a` and `b` swapped at random, row by row."""

    @property
    def beyond_noise(self) -> bool:
        """A difference of this size is not just chance."""
        return self.p <= ALPHA


def paired_difference(
    gold: Sequence[str], a: Sequence[str | None], b: Sequence[str | None], *, seed: int = 0
) -> Difference:
    """Compare two methods on the same rows (Yeh 2000, approximate randomisation; bootstrap interval)."""
    counts_a, counts_b = _Counts.of(gold, a), _Counts.of(gold, b)
    weights = _row_weights(len(gold), seed)
    draws = _macro_f1(counts_a.summed(weights)) - _macro_f1(counts_b.summed(weights))
    observed = macro_f1(gold, a) - macro_f1(gold, b)
    low, high = np.quantile(draws, [0.025, 0.975])
    swap = np.random.default_rng(seed).integers(0, 2, size=(RESAMPLES, len(gold))).astype(np.float64)
    swapped = [x.summed(1 - swap) + y.summed(swap) for x, y in ((counts_a, counts_b), (counts_b, counts_a))]
    null = _macro_f1(swapped[0]) - _macro_f1(swapped[1])
    p = (1 + int((np.abs(null) >= abs(observed) - 1e-12).sum())) / (1 + RESAMPLES)
    return Difference(observed, float(low), float(high), p)


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979). NaN stays and is not counted."""
    finite = sorted((i for i in range(len(p)) if not np.isnan(p[i])), key=lambda i: p[i])
    adjusted, highest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(finite):
        highest = max(highest, min(1.0, p[i] * (len(finite) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class _Counts:
    """Hits, predictions and gold rows of each label that occurs in gold: per row, shape (n, K), or summed over the rows
    of each resample, shape (B, K).
    """

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
        """Under row weights of shape (B, n)."""
        return _Counts(weights @ self.hit, weights @ self.predicted, weights @ self.gold)

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(self.hit + other.hit, self.predicted + other.predicted, self.gold + other.gold)


def _macro_f1(sums: _Counts) -> Floats:
    """Shape (B,): F1 = 2 hit / (predicted + gold), averaged over the labels with gold rows in that resample."""
    f1 = 2 * sums.hit / np.maximum(sums.predicted + sums.gold, 1)
    present = sums.gold > 0
    return (f1 * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _row_weights(n: int, seed: int) -> Floats:
    """How often each row is drawn in each bootstrap resample, shape (B, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
