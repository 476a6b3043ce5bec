"""The authors' two scorers reproduce the numbers of their code, which differ from ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmii.follower import Prediction
from promptmii.metrics import macro_f1, released_f1
from promptmii.models.base import Failure, FailureKind
from promptmii.report.paper import analysis_f1, answer_texts

BALANCED = ["neg"] * 10 + ["pos"] * 10
SKEWED = ["neg"] * 90 + ["pos"] * 10


def test_the_reward_counts_an_empty_answer_as_the_first_label() -> None:
    assert released_f1(BALANCED, [""] * 20, ["neg", "pos"]) == pytest.approx(1 / 3)
    assert released_f1(SKEWED, [""] * 100, ["neg", "pos"]) == pytest.approx(0.474, abs=5e-4)
    assert released_f1(SKEWED, [""] * 100, ["pos", "neg"]) == pytest.approx(0.091, abs=5e-4)  # label order matters
    assert macro_f1(BALANCED, [None] * 20) == macro_f1(SKEWED, [None] * 100) == 0


def test_the_reward_can_be_perfect_with_half_the_answers_missing() -> None:
    assert released_f1(BALANCED, ["what?"] * 10 + ["pos"] * 10, ["neg", "pos"]) == 1.0
    assert macro_f1(BALANCED, [None] * 10 + ["pos"] * 10) == 0.5


def test_the_reward_accepts_an_unknown_gold_label_and_truncates_long_answers() -> None:
    assert released_f1(["x", "pos"], ["neg", "pos"], ["neg", "pos"]) == 1.0
    long = "a" * 101
    assert released_f1([long, "neg"], [long, "neg"], ["neg", long]) == pytest.approx(1 / 3)
    assert released_f1([], [], ["neg", "pos"]) == 0.0


def test_one_stray_answer_adds_a_class_to_the_reward() -> None:
    gold, predicted = ["a"] * 10 + ["b"] * 10, ["a"] * 10 + ["b"] * 9 + ["c"]
    assert released_f1(gold, predicted, ["a", "b", "c"]) == pytest.approx((1 + 18 / 19) / 3)
    assert macro_f1(gold, predicted) == pytest.approx((1 + 18 / 19) / 2)


def test_the_analysis_drops_empty_answers() -> None:
    half = ["neg"] * 5 + [""] * 5 + ["pos"] * 5 + [""] * 5
    assert analysis_f1(BALANCED, half) == 1.0
    assert macro_f1(BALANCED, [answer or None for answer in half]) == pytest.approx(2 / 3)


def test_the_analysis_counts_every_junk_answer_as_a_class() -> None:
    gold = ["neg"] * 50 + ["pos"] * 50
    junk = [f"I think it is {word}" for word in ["one", "two", "three", "four", "five"]]
    texts = ["neg"] * 45 + junk + ["pos"] * 45 + [text.upper() + "!" for text in junk]
    assert analysis_f1(gold, texts) == pytest.approx(0.158, abs=5e-4)
    predicted = [text if text in ("neg", "pos") else None for text in texts]
    assert macro_f1(gold, predicted) == pytest.approx(0.947, abs=5e-4)


def test_the_analysis_gives_no_score_for_too_few_rows_or_labels() -> None:
    assert analysis_f1(BALANCED, [""] * 20) is None
    assert analysis_f1(BALANCED, ["neg"] * 10 + [""] * 10) is None  # only one gold label remains
    assert analysis_f1(["a", "b", "c"], ["a", "b", "c"]) is None  # more labels than half the rows


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=4))
def test_all_three_scorers_agree_if_every_answer_is_a_label(pairs) -> None:
    gold, predicted = map(list, zip(*pairs, strict=True))
    if set(gold) == {"a", "b"}:
        ours = macro_f1(gold, predicted)
        assert released_f1(gold, [p.upper() for p in predicted], ["a", "b"]) == pytest.approx(ours)
        assert analysis_f1(gold, [f" {p} " for p in predicted]) == pytest.approx(ours)


def test_answers_are_the_texts_that_the_authors_scorers_read() -> None:
    failed = Prediction(None, failure=Failure(FailureKind.TIMEOUT, "no answer"))
    predictions = [Prediction("a", answer="A."), Prediction("b"), Prediction(None, answer="hm"), failed]
    assert answer_texts(predictions) == ["A.", "b", "hm", ""]
