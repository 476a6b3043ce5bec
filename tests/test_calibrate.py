"""Properties of calibration, for arbitrary scores."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from promptmii.calibrate import Floats, apply, centre, fit, fit_supervised, normalise
from promptmii.calibration_kinds import READS, CalibrationKind
from promptmii.instruction import Calibration

shapes = st.tuples(st.integers(1, 6), st.integers(2, 5))
scores = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(-60, 0)))
logps = scores.map(normalise)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Floats, list[int]]:
    """Log-probabilities and a gold label for each row."""
    logp = draw(logps)
    n, k = logp.shape
    return logp, draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))


def likelihood(calibration: Calibration | None, logp: Floats, gold: list[int]) -> float:
    return float(apply(calibration, logp)[range(len(gold)), gold].sum())


def same(first: Floats, second: Floats, tolerance: float = 1e-9) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=tolerance, atol=tolerance))


def test_every_kind_has_an_entry() -> None:
    assert tuple(READS) == get_args(CalibrationKind)


class TestNormalise:
    @settings(max_examples=20, deadline=None)
    @given(scores)
    def test_probabilities_sum_to_one(self, given_scores: Floats) -> None:
        logp = normalise(given_scores)
        assert np.exp(logp).sum(axis=-1) == pytest.approx(1)
        assert same(normalise(logp), logp)

    @settings(max_examples=20, deadline=None)
    @given(scores, st.floats(-1e4, 1e4))
    def test_a_constant_changes_nothing(self, given_scores: Floats, constant: float) -> None:
        assert same(normalise(given_scores + constant), normalise(given_scores), 1e-6)

    @settings(max_examples=20, deadline=None)
    @given(scores)
    def test_differences_between_labels_stay(self, given_scores: Floats) -> None:
        assert same(np.diff(normalise(given_scores)), np.diff(given_scores))

    def test_long_labels_do_not_underflow(self) -> None:
        assert same(
            normalise(np.array([-1e5, -1e5 - 1, -2e5])), np.array([-0.31326169, -1.31326169, -1e5 - 0.31326169]), 1e-6
        )


class TestCentre:
    @settings(max_examples=20, deadline=None)
    @given(logps)
    def test_all_labels_are_equally_likely_on_average(self, logp: Floats) -> None:
        for centred in (logp + centre("support", logp).offset, apply(centre("support", logp), logp)):
            means = centred.mean(axis=0)
            assert means == pytest.approx(np.full_like(means, means[0]))

    @settings(max_examples=20, deadline=None)
    @given(logps)
    def test_centring_twice_changes_nothing(self, logp: Floats) -> None:
        calibrated = apply(centre("batch", logp), logp)
        assert centre("batch", calibrated).offset == pytest.approx([0] * logp.shape[1], abs=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(logps, st.data())
    def test_a_constant_bias_is_removed(self, logp: Floats, data: st.DataObject) -> None:
        bias = data.draw(arrays(np.float64, logp.shape[1], elements=st.floats(-20, 20)))
        biased = normalise(logp + bias)
        assert same(apply(centre("support", biased), biased), apply(centre("support", logp), logp), 1e-6)

    @pytest.mark.parametrize("compared", [0.0, -np.inf])
    def test_rows_that_compare_only_their_own_label_are_ignored(self, compared: float) -> None:
        logp = np.array([[compared, -np.inf], [0.0, -np.inf]])
        assert centre("support", logp, [0, 0]).offset == fit_supervised(logp[1:], [0]).offset == (0.0, 0.0)

    @settings(max_examples=20, deadline=None)
    @given(logps)
    def test_the_kind_is_recorded_and_the_scale_is_one(self, logp: Floats) -> None:
        calibration = centre("contextual", logp)
        assert calibration.kind == "contextual"
        assert calibration.scale == (1.0,) * logp.shape[1]


class TestApply:
    @settings(max_examples=20, deadline=None)
    @given(logps)
    def test_none_changes_nothing(self, logp: Floats) -> None:
        assert apply(None, logp) is logp

    @settings(max_examples=20, deadline=None)
    @given(logps, st.floats(-50, 50))
    def test_an_equal_offset_for_all_labels_changes_nothing(self, logp: Floats, offset: float) -> None:
        k = logp.shape[1]
        assert same(apply(Calibration(kind="support", scale=(1,) * k, offset=(offset,) * k), logp), logp, 1e-6)

    @settings(max_examples=10, deadline=None)
    @given(labelled())
    def test_calibrated_probabilities_sum_to_one(self, case: tuple[Floats, list[int]]) -> None:
        logp, gold = case
        for calibration in (centre("support", logp), fit_supervised(logp, gold)):
            assert np.exp(apply(calibration, logp)).sum(axis=-1) == pytest.approx(1)

    @settings(max_examples=20, deadline=None)
    @given(logps)
    def test_rows_are_calibrated_independently(self, logp: Floats) -> None:
        calibration = centre("support", logp)
        assert same(apply(calibration, logp)[0], apply(calibration, logp[0]))

    def test_scale_and_offset_belong_to_their_label(self) -> None:
        calibrated = apply(
            Calibration(kind="supervised", scale=(2, 1, 1), offset=(0, 0, 3)), np.log([[0.5, 0.25, 0.25]])
        )
        assert same(calibrated, normalise(np.log([[0.25, 0.25, 0.25 * np.e**3]])))


class TestSupervised:
    @settings(max_examples=20, deadline=None)
    @given(labelled())
    def test_the_fit_is_never_worse_than_its_start(self, case: tuple[Floats, list[int]]) -> None:
        logp, gold = case
        fitted = fit_supervised(logp, gold)
        assert fitted.kind == "supervised"
        assert np.isfinite([*fitted.scale, *fitted.offset]).all()
        assert likelihood(fitted, logp, gold) >= likelihood(centre("support", logp), logp, gold) - 1e-6

    @settings(max_examples=20, deadline=None)
    @given(labelled())
    def test_the_order_of_the_examples_does_not_matter(self, case: tuple[Floats, list[int]]) -> None:
        logp, gold = case
        first, second = fit_supervised(logp, gold), fit_supervised(logp[::-1], gold[::-1])
        assert likelihood(first, logp, gold) == pytest.approx(likelihood(second, logp, gold), abs=1e-2)

    def test_biased_but_separable_examples_are_separated_better(self) -> None:
        gold = [0, 1, 2] * 6
        stream = np.random.default_rng(0)
        raw = 1.5 * np.eye(3)[gold] + np.array([4.0, 0.0, -2.0]) + stream.normal(0, 0.1, (18, 3))
        logp = normalise(raw)
        fitted = fit_supervised(logp, gold)
        assert (logp.argmax(axis=1) == 0).all()
        assert apply(fitted, logp).argmax(axis=1).tolist() == gold
        assert (
            likelihood(fitted, logp, gold)
            > likelihood(centre("support", logp), logp, gold) + 1
            > likelihood(None, logp, gold) + 2
        )

    def test_a_label_with_a_weak_signal_is_scaled_up(self) -> None:
        logp = normalise(np.array([[0.3 * (i % 2), 0.0] for i in range(40)]))
        fitted = fit_supervised(logp, [1 - i % 2 for i in range(40)])
        assert fitted.scale[0] > 1

    @pytest.mark.parametrize("k", [2, 5, 150])
    def test_one_example_per_label_stays_finite_and_near_the_support_calibration(self, k: int) -> None:
        logp = normalise(3 * np.eye(k) + np.linspace(0, 30, k))
        fitted, start = fit_supervised(logp, range(k)), centre("support", logp)
        assert len(fitted.scale) == len(fitted.offset) == k
        assert np.isfinite([*fitted.scale, *fitted.offset]).all()
        assert likelihood(fitted, logp, list(range(k))) > likelihood(start, logp, list(range(k)))
        assert np.abs(np.subtract(fitted.offset, start.offset)).max() < 1

    def test_labels_without_any_example_stay_finite(self) -> None:
        fitted = fit_supervised(np.log([[0.7, 0.2, 0.1]]), [1])
        assert np.isfinite([*fitted.scale, *fitted.offset]).all()
        assert apply(fitted, np.log([[0.7, 0.2, 0.1]])).argmax() == 1


def test_every_kind_but_none_has_a_formula() -> None:
    logp = normalise(np.array([[-1.0, -2.0], [-3.0, -1.0]]))
    for kind in READS:
        if kind != "none":
            assert fit(kind, logp, [0, 1]).kind == kind
    with pytest.raises(ValueError, match="'none' has no formula"):
        fit("none", logp)
