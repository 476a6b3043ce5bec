"""Properties of macro-F1, with the defects of the paper's metric as counter-examples."""
# pyright: reportArgumentType=false

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from promptmii import metrics

rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "d", "e", None])), min_size=1, max_size=60
)


@given(rows)
def test_macro_f1_equals_scikit_learns_over_the_labels_in_gold(pairs) -> None:
    gold, predicted = zip(*pairs, strict=True)
    expected = f1_score(
        gold, [p or "none" for p in predicted], labels=sorted(set(gold)), average="macro", zero_division=0
    )
    assert metrics.macro_f1(gold, predicted) == pytest.approx(expected)


@given(rows, st.randoms())
def test_macro_f1_does_not_depend_on_the_order_of_rows_or_the_names_of_labels(pairs, random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    renamed = [(f"x{g}", p and f"x{p}") for g, p in shuffled]
    assert metrics.macro_f1(*zip(*renamed, strict=True)) == pytest.approx(metrics.macro_f1(*zip(*pairs, strict=True)))


def test_missing_answers_score_nothing() -> None:
    gold = ["pos"] * 10 + ["neg"] * 10
    assert metrics.macro_f1(gold, [None] * 20) == 0  # the authors' reward gave 0.333
    assert metrics.macro_f1(gold, ["pos"] * 10 + [None] * 10) == 0.5  # and 1.0 here, with the labels in one order


def test_per_label_and_confusion_count_unparsed_answers() -> None:
    gold, predicted = ["a", "a", "b"], ["a", None, "a"]
    a, b, c = metrics.per_label(gold, predicted, ("a", "b", "c"))
    assert (a.precision, a.recall, a.support, b.f1, c.support) == (0.5, 0.5, 2, 0, 0)
    assert metrics.confusion(gold, predicted, ("a", "b", "c")) == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("predicted", ["a", None])
def test_a_single_row_leaves_the_score_open(predicted: str | None) -> None:
    assert metrics.interval(["a"], [predicted]) == (0.0, 1.0)


@pytest.mark.slow
def test_the_interval_has_about_its_nominal_coverage() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        gold = random.choice(["a", "b"], size=120).tolist()
        predicted = [g if random.random() < 0.8 else ("b" if g == "a" else "a") for g in gold]
        low, high = metrics.interval(gold, predicted)
        covered += low <= 0.8 <= high
    assert covered >= 51  # 95 % of 60 is 57; fewer than 51 has a chance below 1 in 100


def test_a_paired_difference_is_symmetric_and_detects_a_better_method() -> None:
    gold = ["a", "b"] * 50
    right, wrong = gold, ["b", "a"] * 50
    assert metrics.paired_difference(gold, right, right).p == 1
    better = metrics.paired_difference(gold, right, wrong)
    assert (better.mean, better.low) == (1, 1)
    assert better.p < 0.001
    assert metrics.paired_difference(gold, wrong, right).mean == -better.mean


def test_many_rows_are_resampled_in_little_memory() -> None:
    gold = ["a", "b"] * 1000
    tracemalloc.start()
    try:
        metrics.interval(gold, ["a"] * 2000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25e6  # all weights together take 64 MB


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    adjusted = metrics.holm(p)
    pairs = sorted((raw, new) for raw, new in zip(p, adjusted, strict=True) if not np.isnan(raw))
    assert [np.isnan(raw) for raw in p] == [np.isnan(new) for new in adjusted]
    assert all(raw <= new <= 1 for raw, new in pairs)
    assert [new for _, new in pairs] == sorted(new for _, new in pairs)
    if pairs:
        assert pairs[0][1] == min(1.0, pairs[0][0] * len(pairs))
